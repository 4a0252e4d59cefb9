"""When the queue is empty, and how much was rendered lately."""

import itertools
import time

import pytest

from shared.jobs import board, forecast, groups, lifecycle
from shared.vocabulary.states import GroupState
from tests.services.jobs import (
    DIED,
    MODEL,
    OTHER_MODEL,
    ago,
    claimed,
    completed,
    edit,
    submit,
)
from tests.services.test_estimates import group, ran


def left(farm) -> tuple[float, float, float] | None:
    """Seconds until the queue is empty: at least, probably, at most."""
    drain = forecast.drained(farm, board.live(farm), groups.all_groups(farm))
    now = time.time()
    return drain and (drain.earliest - now, drain.likely - now, drain.latest - now)


def test_nothing_waits_and_nothing_is_foreseen(farm):
    assert left(farm) is None


def test_groups_share_what_waits(farm):
    for seconds in (8, 10, 12):
        ran(farm, seconds)
    group(farm, "g0")
    for _ in range(4):
        submit(farm)
    alone = left(farm)
    group(farm, "g1")

    assert alone == pytest.approx((4 * 8.4, 4 * 10, 4 * 11.6), abs=1)
    assert left(farm) == pytest.approx((2 * 8.4, 2 * 10, 2 * 11.6), abs=1)


def test_what_runs_comes_first(farm):
    for _ in range(9):
        ran(farm, 10)
    group(farm, "g0")
    held = claimed(farm).fence.video_id
    edit(farm, held, started_at=ago(4))
    submit(farm)

    assert left(farm)[1] == pytest.approx(6 + 10, abs=1)


@pytest.mark.parametrize("state", [GroupState.DOWN, GroupState.DRAINED])
def test_nobody_knows_the_end_of_what_no_group_takes(farm, state):
    for _ in range(9):
        ran(farm, 10)
    made = group(farm, "g0")
    submit(farm)
    assert left(farm) is not None

    groups.beat(farm, made, groups.Reading(condition=state))

    assert left(farm) is None


def test_a_model_that_never_ran_is_not_guessed_at(farm):
    group(farm, "g0")
    ran(farm, 10)
    submit(farm)

    assert left(farm) is None


def test_each_model_is_counted_for_its_tenant(farm):
    claimed(farm, tenant="one")
    submit(farm, tenant="one", model=OTHER_MODEL)
    submit(farm, tenant="two")

    def counts(tenant: str | None) -> set[tuple[str, str, int]]:
        return {(one.model, one.state, one.count) for one in board.live(farm, tenant)}

    mine = {(MODEL, "in_progress", 1), (OTHER_MODEL, "queued", 1)}
    assert counts("one") == mine
    assert counts(None) == mine | {(MODEL, "queued", 1)}


def test_each_five_minutes_of_four_hours_have_their_count(farm):
    for seconds in (0, 0, 600, 5 * 3600):
        edit(farm, completed(farm, tenant="one"), completed_at=ago(seconds))
    lifecycle.give_back(farm, claimed(farm, tenant="two", max_attempts=1), DIED)

    spans, of_one = board.throughput(farm, None), board.throughput(farm, "one")

    assert len(spans) == board.SPANS
    steps = {(b.began - a.began).total_seconds() for a, b in itertools.pairwise(spans)}
    assert steps == {board.SPAN_S}
    assert sum(one.completed for one in spans) == 3
    assert sum(one.completed for one in spans[-2:]) == 2  # the clock may have turned in between
    assert [sum(one.failed for one in some) for some in (spans, of_one)] == [1, 0]
