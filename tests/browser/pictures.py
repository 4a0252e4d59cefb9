"""Takes the pictures of the docs from a farm that renders: `pytest tests/browser/pictures.py`.

Its name keeps it out of ordinary runs, so that tests leave the tree as it is.
"""

import textwrap
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from mini import world
from mini.build import build
from shared.jobs import lifecycle, queries
from shared.jobs.scheduling import Offer
from shared.machinery.farm import Farm
from shared.vocabulary.catalog import MINIATURES, MODELS
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from tests.browser.conftest import ROOT, Visit
from tests.browser.staging import Stage
from tests.browser.test_admin import do_deeds
from tests.browser.visitor import DESK, PHONE, Visitor
from tests.engine.rendering import decoded

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
TARGET = ROOT / "docs" / "pictures"
LIMIT_BYTES = 200_000
MODEL = MINIATURES[0]
SHEET = (
    "a red ball passes behind a blue square",
    "a yellow star moves up over a gradient from navy to black",
    "a small green triangle crosses a pink star on a white background",
    "an orange disc goes around in a circle in front of a black background",
    "a purple square grows on a grey background",
    "a large cyan circle bounces on a brown background",
    "a pink triangle slides to the left over a gradient from white to grey",
    "a blue star shrinks on a white background",
)
SHOWN = (0, 5, 11, 16)  # frames of each


@pytest.fixture
def served(checkpoints: Path) -> tuple[str, ...]:
    """The trained miniature, and a tiny one whose videos may be long."""
    build(MODELS[MODEL], checkpoints)
    return (MODEL, "wan-tiny-t2v")


@pytest.mark.usefixtures("worker")
def test_take_a_contact_sheet(stage: Stage, eventually: Callable[..., object]):
    made = [stage.submit(prompt, model=MODEL) for prompt in SHEET]
    eventually(lambda: all(_state(stage, one) == "completed" for one in made), within=240)

    gap, line, side = 8, 14, world.SIDE
    cell = len(SHOWN) * (side + 2), side + 2 * line + gap
    sheet = Image.new("RGB", (2 * cell[0] + 3 * gap, len(SHEET) // 2 * (cell[1] + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (prompt, one) in enumerate(zip(SHEET, made, strict=True)):
        x, y = gap + number % 2 * (cell[0] + gap), number // 2 * (cell[1] + gap) + gap
        pen.text((x, y), "\n".join(textwrap.wrap(prompt, 84)), "black")
        (path,) = stage.farm.storage.path(f"videos/{one}").rglob("*.mp4")
        video = decoded(path, side, side)
        for place, frame in enumerate(SHOWN):
            sheet.paste(Image.fromarray(video[frame]), (x + place * (side + 2), y + line + 2))
    _keep("contact-sheet.png", sheet)


def test_take_pictures_of_the_admin_pages(visit: Visit, farm: Farm):
    do_deeds(farm)
    for theme in ("dark", "light"):
        for size, width in ((DESK, "wide"), (PHONE, "phone")):
            visitor = visit("/", size=size)
            if theme == "light":
                visitor.page.click("button[name=theme]")
            for name in ("queue", "keys", "webhooks", "audit", "settings"):
                visitor.go("/admin" if name == "queue" else f"/admin/{name}")
                picture = visitor.page.screenshot(full_page=True)
                _keep(f"admin-{name}-{theme}-{width}.png", _picture(picture))
            for name, path, button in (
                ("pause", "/admin", "form[data-dialog^=pause-] button"),
                ("revoke", "/admin/keys", "form[data-dialog^=revoke-] button"),
            ):
                visitor.go(path).page.locator(button).first.click()
                picture = visitor.page.screenshot(caret="initial")
                _keep(f"dialog-{name}-{theme}-{width}.png", _picture(picture))


@pytest.mark.usefixtures("worker")
def test_take_pictures(visit: Visit, stage: Stage, eventually: Callable[..., object]):
    made = [
        stage.submit(prompt, model=MODEL, seed=seed, steps=steps)
        for prompt, seed, steps in (
            ("a red ball passes behind a blue square", 7, 20),
            ("a red ball passes behind a blue square", 7, 6),
            ("a green triangle crosses a pink star on a white background", 1138402, 10),
            ("a yellow star sinks over a gradient from navy to black", 42, 14),
        )
    ]
    eventually(lambda: all(_state(stage, one) == "completed" for one in made), within=240)
    fox = "a fox runs through deep snow, cinematic, backlit"
    running = stage.submit(fox, steps=100, frames=65, size="256x256")  # outlives the pictures
    ink = stage.submit("macro: ink spreads in water, teal and amber")
    boat = stage.submit("a paper boat in a storm drain")
    lifecycle.cancel(stage.farm, boat, by="ops-laptop", reason="wrong street")
    eventually(lambda: (_row(stage, running)["detail"] or {}).get("step", 0) > 55, within=240)

    pages = {"overview": "/", "jobs": "/jobs", "grid": "/jobs?view=grid"}
    pages |= {"job-running": f"/jobs/{running}", "job-done": f"/jobs/{made[0]}"}
    pages |= {"job-failed": f"/jobs/{_failed(stage)}", "new": f"/new?from={made[2]}"}
    pages |= {"compare": f"/compare?ids={made[1]},{made[0]}"}
    pages |= {"groups": "/groups", "group": "/groups/g0", "docs": "/docs", "nowhere": "/nowhere"}
    for theme in ("dark", "light"):
        for size, width in ((DESK, "wide"), (PHONE, "phone")):
            visitor = visit("/", size=size, expected=("404",))
            if theme == "light":
                visitor.page.click("button[name=theme]")
            for name, path in pages.items():
                visitor.go(path)
                visitor.page.evaluate(SHOW_A_FRAME)
                visitor.page.wait_for_timeout(500)
                # to hide carets it writes style attributes, which the pages' policy refuses
                picture = visitor.page.screenshot(full_page=True, caret="initial")
                _keep(f"{name}-{theme}-{width}.png", _picture(picture))
            for name, ask in _questions(running, (running, ink)).items():
                ask(visitor)
                picture = visitor.page.screenshot(caret="initial")
                _keep(f"{name}-{theme}-{width}.png", _picture(picture))
            visitor.page.context.clear_cookies(name="wanfarm_session")
            picture = visitor.go("/login").page.screenshot(caret="initial")
            _keep(f"login-{theme}-{width}.png", _picture(picture))
    assert _state(stage, running) == "in_progress", "the running job ended before its picture"


SHOW_A_FRAME = """async () => {
  document.querySelector("[value=wipe]")?.click();
  document.getElementById("last")?.click();
  const player = document.getElementById("player");
  if (!player) return;
  player.preload = "auto";
  player.muted = true;
  await player.play();
  player.pause();
}"""


def _questions(running: str, made: tuple[str, ...]) -> dict[str, Callable[[Visitor], object]]:
    """What opens each question, and the page that asks about ticked jobs."""

    def press(path: str, button: str) -> Callable[[Visitor], object]:
        return lambda visitor: visitor.go(path).page.locator(button).first.click()

    def tick(visitor: Visitor) -> None:
        visitor.go("/jobs")
        for one in made:
            visitor.page.locator(f".tick input[value={one}]").check()
        visitor.page.click("button[name=do][value=cancel]")
        visitor.page.wait_for_url("**/jobs/ticked")

    return {
        "dialog-cancel": press(f"/jobs/{running}", "form[data-dialog=cancel-dialog] button"),
        "dialog-drain": press("/groups/g0", "form[data-dialog=requeue-dialog] button"),
        "dialog-keys": lambda visitor: visitor.go("/").page.keyboard.press("?"),
        "ticked": tick,
    }


def _failed(stage: Stage) -> str:
    """A job that another group could not finish."""
    made = stage.submit("a paper boat goes over a waterfall", model="wan-tiny-ti2v", max_attempts=1)
    claim = lifecycle.claim(stage.farm, Offer("g1", "life-1", 1, ("wan-tiny-ti2v",)))
    assert claim is not None
    said = "Rank 1 hung in an all-to-all for 60 s at step 31 (collective time-out)."
    lifecycle.give_back(stage.farm, claim, JobFailure(FailureKind.HANG, said))
    return made


def _row(stage: Stage, video_id: str) -> dict:
    row = queries.one(stage.farm, video_id, None)
    assert row is not None
    return row


def _state(stage: Stage, video_id: str) -> str:
    return _row(stage, video_id)["state"]


def _picture(png: bytes) -> Image.Image:
    with Image.open(BytesIO(png)) as picture:
        return picture.convert("RGB")


def _keep(name: str, picture: Image.Image) -> None:
    """Store a picture, packed as tightly as PNG can."""
    TARGET.mkdir(parents=True, exist_ok=True)
    out = BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    assert out.tell() < LIMIT_BYTES, f"{name}: {out.tell()} bytes"
    (TARGET / name).write_bytes(out.getvalue())
