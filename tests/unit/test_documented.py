"""What the code knows by name has its entry in the reference."""

import re
from pathlib import Path

import pytest
import yaml

from api.routes.unbuilt import PATHS
from shared.machinery.cache_settings import CacheSettings, alias_of
from shared.machinery.settings import Settings, variable_of
from shared.vocabulary import request
from shared.vocabulary.errors import CODES, JOB_CODES
from shared.vocabulary.states import MOVES, GroupState, Phase, VideoState

DOCS = Path(__file__).parents[2] / "docs"
SERVICES = yaml.safe_load((DOCS.parent / "docker-compose.yml").read_text())["services"]
CAUSE_AND_REMEDY = 2  # sentences


def lines(page: str) -> list[str]:
    return (DOCS / page).read_text().splitlines()


@pytest.mark.parametrize("code", sorted({*CODES, *JOB_CODES.values(), "cancelled"}))
def test_an_error_code_has_a_section_that_says_what_to_do(code):
    page = lines("reference/errors.md")

    assert page.count(f"### `{code}`") == 1
    told = page[page.index(f"### `{code}`") + 1]
    assert len(re.findall(r"\.(?: |$)", told)) >= CAUSE_AND_REMEDY


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_setting_has_its_line_with_a_meaning(field):
    (line,) = (one for one in lines("reference/settings.md") if f"| `{variable_of(field)}` " in one)

    assert line.split(" | ")[-1].strip("| ")
    assert field not in CacheSettings.model_fields or (alias_of(field) or "") in line


@pytest.mark.parametrize("state", [*VideoState, *GroupState, *Phase], ids=repr)
def test_a_state_has_its_line_with_its_sign(state):
    (line,) = (one for one in lines("reference/states.md") if f"| `{state}` | " in one)

    assert not hasattr(state, "glyph") or line.startswith(f"| {state.glyph} |")


@pytest.mark.parametrize("state", VideoState)
def test_a_state_names_all_that_may_follow(state):
    (line,) = (one for one in lines("reference/states.md") if f"| `{state}` | " in one)
    goals = line.split(" | ")[-1]

    assert {goal for goal in VideoState if f"`{goal}`" in goals} == MOVES[state]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_its_section(service):
    assert lines("reference/compose.md").count(f"## {service}") == 1


def test_every_name_of_other_servers_is_on_the_page_for_those_who_come_from_there():
    page = (DOCS / "how-to" / "move-from-sglang.md").read_text()
    names = {
        *request.ALIASES, *request.OFF_VALUES, *request.REFUSED, *request.CONTAINERS,
        *request.COMPOSED, *request.CACHE_DIT_NAMES,
    }  # fmt: skip

    assert {name for name in names if f"`{name}`" not in page} == set()


def test_what_is_not_built_is_what_the_api_refuses():
    section = (DOCS / "status.md").read_text().partition("## Not built")[2].partition("\n## ")[0]

    assert set(re.findall(r"`([A-Z]+ /[^`]+)`", section)) == set(PATHS)


def test_the_contents_list_every_page():
    contents = (DOCS / "README.md").read_text()
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"README.md"}

    assert {page for page in pages if f"]({page})" not in contents} == set()
