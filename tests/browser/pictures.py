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
from shared.machinery.farm import Farm
from shared.vocabulary.catalog import MINIATURES, MODELS
from tests.browser.conftest import ROOT, Visit
from tests.browser.staging import Stage
from tests.browser.test_admin import do_deeds
from tests.browser.visitor import DESK, PHONE
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
    _keep("contact-sheet.png", sheet.quantize(256))


def test_take_pictures_of_the_admin_pages(visit: Visit, farm: Farm):
    do_deeds(farm)
    for theme in ("dark", "light"):
        for size, width in ((DESK, "wide"), (PHONE, "phone")):
            visitor = visit("/", size=size)
            if theme == "light":
                visitor.page.click("button[name=theme]")
            for name in ("keys", "audit"):
                picture = visitor.go(f"/admin/{name}").page.screenshot(full_page=True)
                _keep(f"admin-{name}-{theme}-{width}.png", _picture(picture))


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
    running = stage.submit(fox, steps=40, frames=65, size="256x256")  # outlives the pictures
    for prompt in ("macro: ink spreads in water, teal and amber", "a paper boat in a storm drain"):
        waiting = stage.submit(prompt)
    lifecycle.cancel(stage.farm, waiting, by="ops-laptop", reason="wrong street")
    eventually(lambda: (_row(stage, running)["detail"] or {}).get("step", 0) > 21, within=240)

    pages = {"overview": "/", "jobs": "/jobs", "job-running": f"/jobs/{running}"}
    pages |= {"job-done": f"/jobs/{made[0]}", "new": f"/new?from={made[2]}"}
    pages |= {"compare": f"/compare?ids={made[1]},{made[0]}"}
    pages |= {"groups": "/groups", "group": "/groups/g0"}
    for theme in ("dark", "light"):
        for size, width in ((DESK, "wide"), (PHONE, "phone")):
            visitor = visit("/", size=size)
            if theme == "light":
                visitor.page.click("button[name=theme]")
            for name, path in pages.items():
                visitor.go(path)
                visitor.page.evaluate(SHOW_A_FRAME)
                visitor.page.wait_for_timeout(500)
                # to hide carets it writes style attributes, which the pages' policy refuses
                picture = visitor.page.screenshot(full_page=True, caret="initial")
                _keep(f"{name}-{theme}-{width}.png", _picture(picture))
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
    picture.save(out, "PNG", optimize=True)
    assert out.tell() < LIMIT_BYTES, f"{name}: {out.tell()} bytes"
    (TARGET / name).write_bytes(out.getvalue())
