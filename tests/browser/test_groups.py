"""The pages of groups in a browser: a drain with a question and without, a report to copy."""

import pytest

from shared.jobs import groups
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState
from tests.browser.conftest import Visit
from tests.browser.staging import Stage
from tests.browser.visitor import PHONE

pytestmark = pytest.mark.browser
SICK = "Out of service after 2 failures in a row. The last: Rank 1 died (SIGKILL)."


def gpu(rank: int) -> dict:
    return {
        "rank": rank, "pid": 100 + rank, "device": "NVIDIA H100 80GB HBM3", "uuid": f"GPU-{rank}",
        "memory_bytes": 61_000_000_000, "memory_total_bytes": 80_000_000_000,
        "utilization_ratio": 0.98, "temperature_c": 64, "power_w": 610.0,
    }  # fmt: skip


def drains(stage: Stage) -> list[tuple[str | None, str | None]]:
    return [(one["drain"], one["drain_reason"]) for one in groups.all_groups(stage.farm)]


@pytest.fixture
def running(stage: Stage) -> str:
    """A job of a group that has completed one and failed at another; a second group is down."""
    stage.submit("a red ball passes behind a blue square")
    first = stage.claim()
    stage.denoise(first.fence, 20)
    stage.complete(first.fence)
    stage.submit("portrait of a circle", max_attempts=1)
    stage.give_back(stage.claim(), FailureKind.RANK_DIED, "Rank 1 died (SIGKILL).")
    video_id = stage.submit("a fox running through deep snow, " * 20)
    stage.denoise(stage.claim().fence, 12)
    busy = {"devices": [gpu(rank) for rank in range(2)], "software": {"torch": "2.13.0"}}
    stage.beat(GroupState.BUSY, video_id, failure_streak=1, **busy)
    stage.beat(GroupState.DOWN, name="g1", problem=SICK, failure_streak=2)
    return video_id


def test_a_group_is_drained_by_a_question_and_its_page_goes_on(
    visit: Visit, stage: Stage, running: str
):
    visitor = visit("/groups/g0", size=PHONE)
    assert "98 %" in visitor.text(".ranks")
    assert visitor.page.get_attribute("#group-g0-job", "href") == f"/jobs/{running}"

    visitor.page.click("#drain")
    visitor.check_width()
    assert visitor.axe() == []
    assert "No other group is up" in visitor.text("#finish-dialog")
    visitor.page.fill("#finish-dialog-reason", "new driver")
    visitor.page.click("#finish-dialog button.danger")
    visitor.page.wait_for_selector("#standing >> text=new driver")
    assert drains(stage) == [("finish", "new driver"), (None, None)]

    visitor.page.evaluate("window.same = true")
    stage.beat(GroupState.DRAINING, running)
    visitor.page.wait_for_selector("#standing >> text=It finishes its job")
    assert visitor.page.evaluate("window.same") is True


@pytest.mark.usefixtures("running")
def test_a_problem_unfolds_and_a_report_is_copied(visit: Visit):
    visitor = visit("/jobs")
    visitor.page.keyboard.press("g")
    visitor.page.keyboard.press("g")
    visitor.page.wait_for_url("**/groups")
    visitor.page.click("#open-g1")
    visitor.page.wait_for_url("**/groups/g1")

    visitor.page.click("#problem summary")
    assert visitor.text("#problem p") == SICK

    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.go("/groups/g0")
    visitor.page.click("#copy-report")
    visitor.page.wait_for_selector("#copy-report >> text=Copied")
    report = visitor.page.evaluate("navigator.clipboard.readText()")
    assert all(fact in report for fact in ("rank1", "torch 2.13.0", "Rank 1 died (SIGKILL)."))
    assert "fox" not in report


@pytest.mark.usefixtures("running")
def test_without_script_a_group_is_drained_and_resumed_at_once(visit: Visit, stage: Stage):
    visitor = visit("/groups/g0", script=False)

    visitor.page.click("#drain-now")
    assert drains(stage) == [("requeue", None), (None, None)]
    visitor.page.click("#resume")

    assert drains(stage) == [(None, None), (None, None)]
    assert visitor.page.url.endswith("/groups/g0")
