"""What a group has done in the last day: its hours, failures, runs, and the last hour of all."""

from sqlalchemy import update

from shared.jobs import group_history, lifecycle, running
from shared.machinery.tables import Attempt
from tests.services.jobs import DIED, RESULT, ago, claimed, completed

TWO = {"ranks": 2, "cfg": 2}


def move_attempt(farm, video_id: str, began_s: float, ended_s: float) -> None:
    """An attempt happened so many seconds ago."""
    change = update(Attempt).where(Attempt.video_id == video_id)
    with farm.db.connect() as db:
        db.execute(change.values(claimed_at=ago(began_s), ended_at=ago(ended_s)))


def failed(farm, **given) -> str:
    claim = claimed(farm, max_attempts=1, **given)
    lifecycle.give_back(farm, claim, DIED)
    return claim.fence.video_id


def test_attempts_are_counted_in_the_hour_in_which_they_ended(farm):
    completed(farm)
    move_attempt(farm, completed(farm), 9 * 3600, 5 * 3600)
    move_attempt(farm, failed(farm), 5 * 3600 + 60, 5 * 3600)
    move_attempt(farm, completed(farm), 30 * 3600, 29 * 3600)
    claimed(farm)

    hours = group_history.hours(farm, "g0")

    assert len(hours) == 24
    assert [(one.completed, one.failed) for one in hours[-6:]] == [(1, 1), *[(0, 0)] * 4, (1, 0)]
    assert sum(one.completed + one.failed for one in hours) == 3
    assert sum(one.completed for one in group_history.hours(farm, "g1")) == 0


def test_failures_of_a_day_are_listed_newest_first_and_stops_are_none(farm):
    older, newer = failed(farm), failed(farm, tenant="two")
    move_attempt(farm, older, 7200, 3600)
    move_attempt(farm, failed(farm), 90_100, 90_000)
    completed(farm)
    drained, stopped = claimed(farm), claimed(farm)
    lifecycle.requeue_uncharged(farm, drained.fence, "The worker is leaving.")
    lifecycle.cancel(farm, stopped.fence.video_id, by="test")
    lifecycle.cancelled(farm, stopped.fence)

    found = group_history.failures(farm, "g0")

    assert [(one["video_id"], one["tenant"]) for one in found] == [
        (newer, "two"),
        (older, "default"),
    ]
    assert (found[0]["kind"], found[0]["message"]) == (DIED.kind, DIED.message)


def test_the_cache_share_is_that_of_the_runs_that_had_a_cache(farm):
    build = {"precision": "bf16"}
    for report in (
        {"build": {"precision": "fp8"}, "cached": {"cached_ratio": 0.6}},
        {"build": build, "cached": {"cached_ratio": 0.2}},
        {"build": build},
    ):
        lifecycle.complete(farm, claimed(farm).fence, RESULT, report)

    runs = group_history.runs(farm, "g0")

    assert (runs.count, runs.cached, runs.cached_ratio, runs.build) == (3, 2, 0.4, build)


def test_a_group_that_ran_nothing_has_no_share(farm):
    assert group_history.runs(farm, "g0") == group_history.Runs(0, 0, None, {})


def test_the_last_hour_of_several_groups_is_read_at_once(farm):
    completed(farm)
    move_attempt(farm, completed(farm), 5000, 4000)
    running.record_plan(farm, claimed(farm).fence, TWO, {"high": None})

    lately = group_history.lately(farm, ["g0", "g1"])

    assert (lately["g0"].completed_1h, lately["g0"].plan) == (1, TWO)
    assert lately["g0"].degrees(2) == {"cfg": 2, "ulysses": 1, "ring": 1}
    assert lately["g0"].degrees(4) is None, "it has other ranks by now"
    assert (lately["g1"].completed_1h, lately["g1"].degrees(2)) == (0, None)
