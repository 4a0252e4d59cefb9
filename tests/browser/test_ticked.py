"""What is done to several jobs of the list at once."""

import pytest

from shared.jobs import queries
from tests.browser.conftest import Visit
from tests.browser.staging import Stage
from tests.browser.visitor import PHONE, Visitor

pytestmark = pytest.mark.browser


def tick(visitor: Visitor, *ids: str) -> Visitor:
    visitor.go("/jobs")
    for video_id in ids:
        visitor.page.check(f"input[value='{video_id}']")
    return visitor


def states(stage: Stage) -> dict[str, str]:
    page = queries.page(stage.farm, queries.Filter(tenant=None), limit=100)
    return {row["id"]: row["state"] for row in page.rows}


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_ticked_jobs_are_cancelled_after_a_question(visit: Visit, stage: Stage, *, script: bool):
    first, second, kept = (stage.submit(f"a ball, number {n}") for n in range(3))
    visitor = tick(visit("/jobs", script=script, size=PHONE), first, second)

    visitor.page.click("button[value=cancel]")
    visitor.page.wait_for_selector("#sure")
    assert "Cancel 2 jobs?" in visitor.text("h1")
    visitor.check_width()
    assert set(states(stage).values()) == {"queued"}, "it only asks"
    visitor.page.click("#sure")
    visitor.page.wait_for_selector("#back")

    assert visitor.text("h1") == "2 asked to stop"
    assert states(stage) == {first: "cancelled", second: "cancelled", kept: "queued"}


def test_what_is_refused_is_told_beside_what_was_done(visit: Visit, stage: Stage):
    done = stage.submit("a ball that is done")
    claimed = stage.claim()
    stage.complete(claimed.fence, steps=claimed.spec.steps)
    waiting = stage.submit("a ball that waits")
    visitor = tick(visit("/jobs"), done, waiting)

    visitor.page.click("button[value=cancel]")
    visitor.page.click("#sure")
    visitor.page.wait_for_selector("#back")

    assert visitor.text("h1") == "1 asked to stop, 1 refused"
    assert "completed" in visitor.text(".fault")
    assert visitor.axe() == []
    assert states(stage) == {done: "completed", waiting: "cancelled"}


def test_ticked_jobs_are_run_again_deleted_and_compared(visit: Visit, stage: Stage):
    ids = [stage.submit(f"a ball, number {n}") for n in range(2)]
    for _ in ids:
        claimed = stage.claim()
        stage.complete(claimed.fence, steps=claimed.spec.steps)
    visitor = tick(visit("/jobs"), *ids)
    page = visitor.page

    page.click("#compare")
    page.wait_for_url("**/compare?ids=*,*")
    tick(visitor, *ids)
    page.click("button[value=rerun]")
    page.wait_for_selector("#back")
    assert visitor.text("h1") == "2 queued again"
    assert sorted(states(stage).values()) == ["completed"] * 2 + ["queued"] * 2
    tick(visitor, *ids)
    page.click("button[value=delete]")
    page.click("#sure")
    page.wait_for_selector("#back")

    assert set(states(stage)) & set(ids) == set()


def test_all_that_match_are_cancelled_and_one_refuses(visit: Visit, stage: Stage):
    done = stage.submit("a ball that is done")
    claimed = stage.claim()
    stage.complete(claimed.fence, steps=claimed.spec.steps)
    waiting = [stage.submit(f"a ball, number {n}") for n in range(34)]  # more than a page
    other = stage.submit("a square")
    visitor = visit("/jobs?q=ball")
    page = visitor.page

    page.check("input[name=all]")
    page.wait_for_selector(".shell[data-live=paused]")
    page.click("button[value=cancel]")
    page.wait_for_selector("#sure")
    late = stage.submit("a ball that comes while somebody reads the question")
    assert visitor.text("h1") == "Cancel 35 jobs?"
    assert "and 15 more" in visitor.text("main")
    assert visitor.axe() == []
    page.click("#sure")
    page.wait_for_selector("#back")

    assert visitor.text("h1") == "34 asked to stop, 1 refused"
    ended = dict.fromkeys(waiting, "cancelled") | {done: "completed"}
    assert states(stage) == ended | {other: "queued", late: "queued"}
    page.click("#back")
    page.wait_for_url("**/jobs?q=ball")


def test_all_that_match_are_too_many_to_compare(visit: Visit, stage: Stage):
    for number in range(7):
        stage.submit(f"a ball, number {number}")
    visitor = visit("/jobs?q=ball", expected=("400",))

    visitor.page.check("input[name=all]")
    visitor.page.click("#compare")

    visitor.page.get_by_text("ids names 7 videos").wait_for()


def test_nothing_ticked_is_nothing_done(visit: Visit, stage: Stage):
    stage.submit("a ball")
    visitor = visit("/jobs", expected=("400",))

    visitor.page.click("button[value=rerun]")

    visitor.page.get_by_text("0 jobs are ticked").wait_for()
    assert list(states(stage).values()) == ["queued"]
