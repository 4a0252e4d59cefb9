"""Takes the pictures of the docs from a farm that renders: `pytest tests/browser/pictures.py`.

Its name keeps it out of ordinary runs, so that tests leave the tree as it is.
"""

from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image

from shared.jobs import lifecycle, queries
from tests.browser.conftest import ROOT, Visit
from tests.browser.staging import Stage
from tests.browser.visitor import DESK, PHONE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
TARGET = ROOT / "docs" / "pictures"
LIMIT_BYTES = 150_000


@pytest.mark.usefixtures("worker")
def test_take_pictures(visit: Visit, stage: Stage, eventually: Callable[..., object]):
    made = [
        stage.submit(prompt, seed=seed, steps=steps)
        for prompt, seed, steps in (
            ("a red ball passes behind a blue square", 7, 20),
            ("two green triangles cross, slow push-in", 1138402, 10),
            ("a yellow star falls into a grey lake at dusk", 42, 14),
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
    pages |= {"job-done": f"/jobs/{made[0]}", "new": f"/new?from={made[1]}"}
    for theme in ("dark", "light"):
        for size, width in ((DESK, "wide"), (PHONE, "phone")):
            visitor = visit("/", size=size)
            if theme == "light":
                visitor.page.click("button[name=theme]")
            for name, path in pages.items():
                visitor.go(path)
                visitor.page.evaluate(SHOW_A_FRAME)
                visitor.page.wait_for_timeout(500)
                _keep(f"{name}-{theme}-{width}.png", visitor.page.screenshot(full_page=True))
    assert _state(stage, running) == "in_progress", "the running job ended before its picture"


SHOW_A_FRAME = """async () => {
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


def _keep(name: str, png: bytes) -> None:
    """Store a picture in its true colours, packed as tightly as PNG can."""
    TARGET.mkdir(parents=True, exist_ok=True)
    out = BytesIO()
    with Image.open(BytesIO(png)) as picture:
        picture.convert("RGB").save(out, "PNG", optimize=True)
    assert out.tell() < LIMIT_BYTES, name
    (TARGET / name).write_bytes(out.getvalue())
