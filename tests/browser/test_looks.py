"""Each page in both themes and at both widths: accessible, quiet, and no wider than its window."""

import hashlib
import json
from pathlib import Path

import pytest

from shared.jobs import lifecycle
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState
from tests.browser.conftest import Visit
from tests.browser.staging import Clip, Stage
from tests.browser.visitor import DESK, PHONE

ROOT = Path(__file__).parents[2]
VENDORED = (ROOT / "api/static/vendor", Path(__file__).parent / "vendor")
SHIPPABLE = {"0BSD", "MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0"}


@pytest.fixture
def scenes(stage: Stage) -> list[str]:
    """Paths of pages that show every state a video and a group can be in."""
    done = stage.submit("a red ball passes behind a blue square")
    first = stage.claim()
    stage.denoise(first.fence, 20)
    stage.complete(first.fence)
    finer = stage.submit("a red ball passes behind a blue square", steps=40)
    stage.complete(stage.claim().fence, clip=Clip(frames=17))

    stopped = stage.submit("a yellow star falls into a grey lake")
    second = stage.claim()
    stage.denoise(second.fence, 4)
    lifecycle.cancel(stage.farm, stopped, by="ops-laptop", reason="wrong colour")
    lifecycle.cancelled(stage.farm, second.fence, step=4)

    failed = stage.submit("portrait of a circle", max_attempts=1)
    third = stage.claim()
    stage.give_back(third, FailureKind.BAD_INPUT, "The image is empty. Nothing was rendered.")

    running = stage.submit("a fox running through deep snow, " * 20)
    stage.denoise(stage.claim().fence, 12)
    waiting = stage.submit("macro: ink diffusing in water")
    stage.beat(GroupState.BUSY, running)
    stage.beat(GroupState.DOWN, name="g1", problem="Rank 1 died (SIGKILL).", failure_streak=2)
    jobs = [f"/jobs/{one}" for one in (done, stopped, failed, running, waiting)]
    others = ["/jobs?q=no+such+prompt", f"/new?from={done}", f"/compare?ids={done},{finer}"]
    groups = ["/groups", "/groups/g0", "/groups/g1"]
    return ["/", "/jobs", "/new", *others, *groups, *jobs]


LOOKS = pytest.mark.parametrize(
    ("theme", "size"),
    [
        pytest.param("dark", DESK, id="dark-desk"),
        pytest.param("light", PHONE, id="light-phone"),
        pytest.param("light", DESK, id="light-desk", marks=pytest.mark.long),
        pytest.param("dark", PHONE, id="dark-phone", marks=pytest.mark.long),
    ],
)


@pytest.mark.browser
@LOOKS
def test_questions_are_accessible_and_in_the_middle(
    visit: Visit, stage: Stage, theme: str, size: tuple
):
    running = stage.submit("a fox runs through deep snow")
    stage.denoise(stage.claim().fence, 3)
    stage.beat(GroupState.BUSY, running)
    visitor = visit("/", size=size)
    if theme == "light":
        visitor.page.click("button[name=theme]")

    for path, name in (
        (f"/jobs/{running}", "cancel-dialog"),
        ("/groups/g0", "finish-dialog"),
        ("/groups/g0", "requeue-dialog"),
        ("/admin", "pause-intake"),
    ):
        visitor.go(path).page.locator(f"form[data-dialog={name}] button").first.click()
        box = visitor.page.locator(f"#{name}").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] / 2 == pytest.approx(size[0] / 2, abs=8), name
        assert box["y"] + box["height"] / 2 == pytest.approx(size[1] / 2, abs=8), name
        assert visitor.axe() == [], name


@pytest.mark.browser
@LOOKS
def test_pages_are_accessible_and_fit(visit: Visit, scenes: list[str], theme: str, size: tuple):
    visitor = visit("/", size=size, expected=("404",))
    if theme == "light":
        visitor.page.click("button[name=theme]")

    found = {path: visitor.go(path).axe() for path in [*scenes, "/nowhere"]}

    assert visitor.page.get_attribute("html", "data-theme") == theme
    assert {path: faults for path, faults in found.items() if faults} == {}


@pytest.mark.browser
def test_the_login_page_is_accessible(visit: Visit):
    visitor = visit("/login", log_in=False, size=PHONE)

    assert visitor.axe() == []


@pytest.mark.browser
def test_an_open_menu_and_dialog_are_accessible(visit: Visit, stage: Stage):
    video_id = stage.submit("a ball")
    visitor = visit(f"/jobs/{video_id}", size=PHONE)

    visitor.page.click("#live summary")
    visitor.check_width()
    assert visitor.axe() == []
    visitor.page.keyboard.press("Escape")
    visitor.page.click("#cancel")
    assert visitor.axe() == []


def test_vendored_files_are_the_ones_written_down():
    for folder in VENDORED:
        written: dict[str, str] = {}
        for package in json.loads((folder / "VENDOR.json").read_text())["packages"]:
            assert package["version"]
            written |= package["sha256"]
        found = {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "VENDOR.json"
        }
        assert found == written


def test_only_permissive_licences_reach_a_browser():
    packages = json.loads((VENDORED[0] / "VENDOR.json").read_text())["packages"]

    assert {one["licence"] for one in packages} <= SHIPPABLE


def test_our_scripts_stay_small_and_nothing_is_inline():
    static, templates = ROOT / "api/static/app", ROOT / "api/templates"
    sizes = {path.name: path.stat().st_size for path in static.glob("*.js")}
    assert sizes.pop("compare.js") < 8_000  # which one page alone loads
    assert sum(sizes.values()) < 20_000
    for path in templates.rglob("*.html"):
        text = path.read_text()
        assert "style=" not in text, path
        assert "hx-on" not in text, path
        assert not any("src=" not in part[:200] for part in text.split("<script")[1:]), path
