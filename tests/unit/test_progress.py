"""What an attempt tells of itself: a percentage that only grows, and no more than is readable."""

import pytest

from shared.jobs import lifecycle, queries
from shared.vocabulary.errors import StaleAttempt
from shared.vocabulary.states import Phase
from tests.services.jobs import claimed, row
from worker.engine.result import Decision
from worker.progress import Reporter
from worker.ranks.messages import PhaseBegan, Step


@pytest.fixture
def fence(farm):
    """The attempt that reports."""
    return claimed(farm).fence


def step(fence, number: int, steps: int = 4, expert: str = "high", **cached: bool) -> Step:
    branches = cached or {"cond": False}
    return Step(
        video_id=fence.video_id,
        attempt=fence.attempt,
        step=number,
        steps=steps,
        expert=expert,
        switch_step=3,
        branches={name: Decision(cached=was) for name, was in branches.items()},
        seconds=0.12345,
    )


def told(farm, fence, kind: str) -> list[dict]:
    return [e for e in queries.events(farm, fence.video_id, after=2) if e["type"] == kind]


def test_each_phase_is_told_and_moves_the_percentage_on(farm, fence):
    reporter = Reporter(farm, fence)

    for phase in Phase:
        reporter.hear(PhaseBegan(video_id=fence.video_id, attempt=1, phase=phase))

    events = told(farm, fence, "phase")
    assert [event["name"] for event in events] == list(Phase)
    percents = [event["progress"] for event in events]
    assert percents == sorted(percents) == [0, 2, 4, 5, 90, 96, 98]
    assert row(farm, fence.video_id)["detail"]["phase"] == "store"


def test_a_step_tells_where_the_attempt_is(farm, fence):
    Reporter(farm, fence).hear(step(fence, 2, cond=False, uncond=True))

    (event,) = told(farm, fence, "step")
    detail = row(farm, fence.video_id)["detail"]
    assert (event["step"], event["steps"], event["expert"]) == (2, 4, "high")
    assert event["cached"] == {"cond": False, "uncond": True}
    assert "reason" not in event  # there was no cache
    assert event["progress"] == row(farm, fence.video_id)["progress"] == 47
    assert (detail["switch_step"], detail["step_s"]) == (3, 0.1235)


def test_a_step_of_a_cached_run_tells_why_and_how_far_it_had_moved(farm, fence):
    reporter = Reporter(farm, fence)
    said = step(fence, 2)
    hit = Decision(cached=True, reason="d", diff=0.0831)
    forced = Decision(reason="m")

    reporter.hear(said.model_copy(update={"branches": {"cond": hit, "uncond": forced}}))

    (event,) = told(farm, fence, "step")
    detail = row(farm, fence.video_id)["detail"]
    assert event["reason"] == {"cond": "d", "uncond": "m"}
    assert event["diff"] == {"cond": 0.0831, "uncond": None}
    assert detail["reasons"] == {"high": {"cond": "d", "uncond": "m"}}
    assert detail["diffs"] == {"high": {"cond": [0.0831], "uncond": [None]}}
    assert detail["cached_steps"] == 1


def test_quick_steps_are_told_together_but_the_last_one_always(farm, fence):
    reporter = Reporter(farm, fence)

    for number in range(1, 41):
        reporter.hear(step(fence, number, steps=40))

    numbers = [event["step"] for event in told(farm, fence, "step")]
    assert (numbers[0], numbers[-1]) == (1, 40)
    assert len(numbers) < 20


def test_steps_that_were_not_told_are_in_the_pattern(farm, fence):
    reporter = Reporter(farm, fence)

    for number, expert in enumerate(["high", "high", "low", "low"], start=1):
        reporter.hear(step(fence, number, expert=expert, cond=number == 2, uncond=False))

    pattern = {"high": {"cond": "Xc", "uncond": "XX"}, "low": {"cond": "XX", "uncond": "XX"}}
    assert reporter.pattern == row(farm, fence.video_id)["detail"]["pattern"] == pattern


def test_the_percentage_never_goes_back(farm, fence):
    reporter = Reporter(farm, fence)
    reporter.phase(Phase.DECODE)

    reporter.phase(Phase.LOAD)

    assert row(farm, fence.video_id)["progress"] == 90


def test_a_report_brings_back_that_a_cancel_is_asked_for(farm, fence):
    reporter = Reporter(farm, fence)
    before = reporter.phase(Phase.DENOISE)
    lifecycle.cancel(farm, fence.video_id, by="a person")

    assert (before, reporter.hear(step(fence, 4))) == (False, True)


def test_a_late_attempt_may_not_report(farm, fence):
    lifecycle.cancelled(farm, fence)

    with pytest.raises(StaleAttempt):
        Reporter(farm, fence).phase(Phase.DENOISE)
