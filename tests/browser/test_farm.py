"""The whole way in a browser: the form, a real worker with real ranks, the finished file."""

import hashlib
from pathlib import Path

import pytest

from shared.jobs import queries
from shared.machinery.farm import Farm
from tests.browser.conftest import Visit
from tests.browser.visitor import Visitor

pytestmark = pytest.mark.browser
PATIENCE_MS = 90_000


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("worker")
def test_from_the_form_to_the_playing_video_and_to_a_cancelled_one(
    visit: Visit, farm: Farm, tmp_path: Path
):
    plays(visit("/new"), farm, tmp_path)
    is_cancelled_from_its_page(visit("/new"))


def plays(visitor: Visitor, farm: Farm, tmp_path: Path) -> None:
    page = visitor.page
    page.fill("#prompt", "a red ball passes behind a blue square")
    page.fill("#seed", "7")
    page.click("#create")
    page.wait_for_url("**/jobs/video_*")
    video_id = page.url.rpartition("/")[2]

    page.evaluate(WATCH)
    page.wait_for_selector("#player", timeout=PATIENCE_MS)
    seen = page.evaluate("window.seen")
    assert seen == sorted(seen)
    assert len(set(seen)) > 2, "the steps were not seen to advance"

    length, at = page.evaluate(PLAY)
    row = queries.one(farm, video_id, None)
    assert length == pytest.approx(33 / 16, abs=0.1)
    assert at > 0
    with page.expect_download() as download:
        page.click("#download")
    file = tmp_path / "mine.mp4"
    download.value.save_as(file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == row["result"]["sha256"]
    assert row["result"]["sha256"] in visitor.text(".hash")

    cells = [one.get_attribute("class") for one in page.locator(".map rect.cell").all()]
    pattern = row["attempts"][-1]["report"]["pattern"]
    letters = "".join("".join(lanes.values()) for lanes in pattern.values())
    assert sum("computed" in one for one in cells) == letters.count("X")
    assert sum("cached" in one for one in cells) == letters.count("c")


def is_cancelled_from_its_page(visitor: Visitor) -> None:
    page = visitor.page
    page.fill("#prompt", "two green triangles cross")
    page.fill("#steps", "100")
    page.click("#create")
    page.wait_for_url("**/jobs/video_*")
    page.wait_for_selector("#steps:not([data-step='0'])", timeout=PATIENCE_MS)

    page.click("#cancel")
    page.click("#cancel-dialog button.danger")
    page.wait_for_selector("#job[data-state='cancelled']", timeout=PATIENCE_MS)

    assert "by ops-laptop" in visitor.text("#cancelled-title")
    assert "at step" in visitor.text(".main-column")
    assert page.locator("#cancel").count() == 0


# Notes each number of finished steps that the page shows.
WATCH = """() => {
  window.seen = [];
  const note = () => {
    const at = document.getElementById("steps")?.dataset.step;
    if (at !== undefined) window.seen.push(Number(at));
  };
  new MutationObserver(note).observe(document.querySelector("main"), {childList: true});
  note();
}"""
PLAY = """async () => {
  const player = document.getElementById("player");
  player.muted = true;
  await player.play();
  await new Promise((done) => player.addEventListener("timeupdate", () => {
    if (player.currentTime > 0) done();
  }));
  return [player.duration, player.currentTime];
}"""
