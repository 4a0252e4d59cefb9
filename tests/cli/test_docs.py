"""What the documentation says is there: verbs, targets, files, error codes, settings."""

import re
import shlex
from itertools import chain
from pathlib import Path

import click
import pytest

from cli import main, reference
from cli.client import Exit
from shared.machinery.settings import Settings, variable_of
from shared.vocabulary.errors import CODES, JOB_CODES
from tests.cli.conftest import ROOT

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("docs/**/*.md"),
    ]
)
ENDS = {"|", "||", "&&", ";", ">", "2>", "<"}
CANCELLED = "cancelled"  # a code of videos that no failure kind has
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def console_lines(page: Path) -> list[str]:
    """The commands of a page's console blocks, continued lines joined."""
    joined = (block.replace("\\\n", " ") for block in blocks(page, "console"))
    lines = chain.from_iterable(text.splitlines() for text in joined)
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def commands(page: Path, program: str) -> list[list[str]]:
    """The words after a program's name, wherever a page calls it: in blocks and between ticks."""
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    found: list[list[str]] = []
    for line in [*console_lines(page), *inline]:
        for match in re.finditer(rf"(?:^|[\s(]){program} +(?=[a-z])([^()`]*)", line):
            words = shlex.split(match[1].replace("'", "").replace('"', ""), comments=True)
            end = next((at for at, word in enumerate(words) if word in ENDS), len(words))
            found.append(words[:end])
    return found


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """Follow words down the tree of verbs; gives the verb and what is left."""
    command: click.Command | None = main.wanfarm
    while words and isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words[0])
        assert command is not None, f"there is no `wanfarm ... {words[0]}`"
        words = words[1:]
    assert command is not None
    return command, words


@by_page
def test_every_verb_and_option_that_a_page_shows_is_there(page):
    for words in commands(page, "wanfarm"):
        command, rest = resolve(words)
        known = {name for param in command.params for name in param.opts} | {"--help", "..."}
        shown = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert shown - known == set(), words


@by_page
def test_every_make_target_that_a_page_shows_is_there(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^COMMANDS := (.*)$", makefile, re.MULTILINE)[1].split())

    shown = {word for words in commands(page, "make") for word in words[:1]}

    assert shown - targets == set()


@by_page
def test_every_link_and_picture_leads_somewhere(page):
    words = re.sub(r"`[^`\n]*`", "", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", words):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            goal = page.parent / path if path else page
            assert goal.exists(), target
            assert not anchor or anchor in anchors(goal), target


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@by_page
def test_every_variable_that_a_page_names_is_a_setting(page):
    known = {variable_of(name) for name in Settings.model_fields}
    named = {
        name.removesuffix("_FILE")
        for name in re.findall(r"(?<!_)WANFARM_[A-Z0-9_]*[A-Z]", page.read_text())
    }

    assert named - known == set()


@pytest.mark.parametrize("name", reference.NAMES)
def test_a_generated_page_is_what_the_code_says(name):
    assert (reference.FOLDER / name).read_text() == reference.page(name), (
        "run `python -m cli.reference`"
    )


def test_every_exit_code_is_explained():
    page = reference.cli_page()

    assert [code for code in Exit if f"| {code.value} | " not in page] == []


def test_every_error_code_has_one_paragraph_below_its_status():
    sections: dict[str, list[str]] = {}
    section = ""
    for line in (reference.FOLDER / "errors.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
            sections[section] = []
        elif line.startswith("### "):
            sections[section].append(line.strip("# `"))

    jobs = sections.pop("Failed and cancelled videos")
    told = {code: int(status) for status, codes in sections.items() for code in codes}

    assert told == {code: facts.status for code, facts in CODES.items()}
    both = {"does_not_fit", "internal_error", "lora_mismatch"}  # of requests and of videos
    assert {*jobs, *both} == {*JOB_CODES.values(), CANCELLED}
    assert len(jobs) == len(set(jobs))


def test_every_code_that_may_be_sent_again_says_so():
    text = (reference.FOLDER / "errors.md").read_text()
    paragraphs = dict(re.findall(r"^### `(\w+)`\n(.*)$", text, re.MULTILINE))
    again = re.compile(r"Retry-After|again|once more")

    silent = [
        c for c, facts in CODES.items() if facts.retryable and not again.search(paragraphs[c])
    ]

    assert silent == []


def test_the_readme_keeps_its_length_and_order():
    lines = (ROOT / "README.md").read_text().splitlines()

    assert len(lines) <= 250
    assert [line for line in lines if line.startswith("## ")][:2] == [
        "## Try it without a GPU",
        "## A GPU server in five commands",
    ]


def test_python_in_the_readme_compiles():
    for code in blocks(ROOT / "README.md", "python"):
        compile(code, "README.md", "exec")


TESTS = re.findall(
    r"`(tests/\w+/\w+\.py)(?:::(\w+))?`", "".join(page.read_text() for page in PAGES)
)


@pytest.mark.parametrize(("path", "name"), sorted(TESTS))
def test_a_test_that_is_named_is_there(path, name):
    assert (ROOT / path).exists()
    assert not name or f"def {name}(" in (ROOT / path).read_text()
