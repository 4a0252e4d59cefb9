"""Pages that stay open: several videos at once, and a server that goes and comes back."""

import contextlib

import pytest

from shared.jobs import queries
from shared.machinery.settings import Settings
from shared.vocabulary.states import GroupState
from tests.browser.conftest import Visit, serving
from tests.browser.staging import Stage
from tests.browser.visitor import Visitor
from tests.conftest import wait_for

pytestmark = pytest.mark.browser

# Follows a video as any page may, and keeps the number of each event.
FOLLOW = """(url) => {
  window.ids = [];
  const stream = new EventSource(url);
  const note = (event) => event.lastEventId && window.ids.push(Number(event.lastEventId));
  for (const type of ["snapshot", "state", "attempt", "phase", "step", "warning"]) {
    stream.addEventListener(type, note);
  }
  // it repeats the number of the event that it follows
  stream.addEventListener("end", () => { stream.close(); window.over = true; });
}"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Leases that outlast a server's absence."""
    return settings.model_copy(update={"lease_s": 120})


def shown(visitor: Visitor) -> list[float]:
    """The progress of each running video, as the page has it now."""
    bars = visitor.page.locator("progress")
    return bars.evaluate_all("all => all.map((one) => one.value)")


def test_four_running_videos_advance_before_ones_eyes(visit: Visit, stage: Stage):
    ids = [stage.submit(f"a ball, number {n}") for n in range(4)]
    claims = [stage.claim() for _ in ids]
    for claim in claims:
        stage.denoise(claim.fence, 1)
    stage.beat(GroupState.BUSY, ids[0])
    visitor = visit("/")
    visitor.page.evaluate("window.stays = true")
    wait_for(lambda: len(shown(visitor)) >= 4)
    before = shown(visitor)

    for step in (6, 12):
        for claim in claims:
            stage.step(claim.fence, step)
        wait_for(lambda last=before: all(a > b for a, b in zip(shown(visitor), last, strict=True)))
        before = shown(visitor)
    for claim in claims:
        stage.complete(claim.fence)
    stage.beat(GroupState.IDLE)

    wait_for(lambda: not shown(visitor))
    assert visitor.page.evaluate("window.stays"), "it was loaded anew"
    visitor.page.wait_for_load_state("networkidle")  # the posters


def test_a_server_that_comes_back_is_followed_without_a_lost_or_doubled_event(
    chromium, page_settings, key, stage: Stage
):
    video_id = stage.submit("a ball")
    fence = stage.claim().fence
    refused = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE")
    with contextlib.ExitStack() as first:
        address = first.enter_context(serving(page_settings))
        visitor = Visitor(chromium, address, expected=(*refused, "net::", "htmx:"))
        visitor.log_in(key)
        page = visitor.go(f"/jobs/{video_id}").page
        page.evaluate(FOLLOW, f"/v1/videos/{video_id}/events")
        wait_for(lambda: page.evaluate("window.ids.length") == 1)  # the snapshot
        stage.denoise(fence, 4)
        wait_for(lambda: page.evaluate("window.ids.length") > 4)
    for step in range(5, 10):  # while nobody serves
        stage.step(fence, step)

    with serving(page_settings, port=int(address.rpartition(":")[2])):
        for step in range(10, 15):
            stage.step(fence, step)
        page.wait_for_selector("#steps[data-step='14']", timeout=30_000)
        stage.complete(fence)
        page.wait_for_selector("#player", timeout=30_000)
        wait_for(lambda: page.evaluate("window.over === true"), within=30)

        seen = page.evaluate("window.ids")
        written = [one["id"] for one in queries.events(stage.farm, video_id, limit=1000)]
        assert seen == sorted(set(seen)), "an event came twice, or out of turn"
        assert seen == written[-len(seen) :] == list(range(seen[0], written[-1] + 1))
        assert visitor.leave() == []
