"""What this farm's own runs tell of the next one: how long it runs, and when it starts."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from shared.jobs import estimates, groups, lifecycle, queries, running
from shared.machinery.tables import Attempt
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.states import GroupState
from tests.services.jobs import MODEL, RESULT, ago, claimed, edit, row, submit

UNCACHED = {"high": None}


def ran(farm, seconds: float, *, denoise_s: float | None = None, load_s: float = 0, **given) -> str:
    """A video that took so long to render, and to load before."""
    claim = claimed(farm, **given)
    running.record_plan(farm, claim.fence, {}, UNCACHED)
    phases = {"denoise": denoise_s or 0.8 * seconds}
    lifecycle.complete(farm, claim.fence, RESULT, {"phase_seconds": phases, "load_s": load_s})
    began = Attempt.ended_at - timedelta(seconds=seconds + load_s)
    with farm.db.connect() as db:
        of = Attempt.video_id == claim.fence.video_id
        db.execute(update(Attempt).where(of).values(claimed_at=began))
    return claim.fence.video_id


def expected(farm, video_id: str) -> dict | None:
    return row(farm, video_id)["attempts"][-1]["expected"]


def group(farm, name: str, state: GroupState = GroupState.IDLE) -> groups.Identity:
    made = groups.Identity(name, f"life-of-{name}", "host", 1, "cpu", (MODEL,))
    groups.register(farm, made)
    groups.beat(farm, made, groups.Reading(condition=state))
    return made


def wait(farm, video_id: str) -> estimates.Wait | None:
    waiting = row(farm, video_id)
    spec = GenerationSpec.model_validate(waiting["spec"])
    earliest = waiting["created_at"].timestamp()
    place = queries.place(farm, waiting)
    return estimates.wait(farm, spec, earliest, groups.all_groups(farm), place)


def test_an_attempt_is_expected_to_take_what_its_like_took(farm):
    assert expected(farm, ran(farm, 10)) is None
    for seconds in (9, 10, 10, 10, 11, 10, 10, 10):
        ran(farm, seconds)

    told = expected(farm, ran(farm, 10))

    assert told["basis"] == "measured"
    assert told["p50_s"] == pytest.approx(10, abs=0.2)
    assert told["rest_s"] == pytest.approx(2, abs=0.2)


def test_loading_a_model_is_no_part_of_a_run(farm):
    for _ in range(9):
        ran(farm, 10, load_s=30)

    assert expected(farm, ran(farm, 10))["p90_s"] == pytest.approx(10, abs=0.2)


def test_more_steps_are_expected_to_take_longer(farm):
    for steps in (2, 4, 6) * 3:
        ran(farm, 4 * steps + 1, denoise_s=4 * steps, steps=steps)

    told = expected(farm, ran(farm, 49, denoise_s=48, steps=12))

    assert told["basis"] == "interpolated"
    assert told["p50_s"] == pytest.approx(49, rel=0.1)


def test_how_well_runs_were_foreseen_is_known(farm):
    assert estimates.accuracy(farm) is None
    for _ in range(10):
        ran(farm, 10)
    ran(farm, 90)

    found = estimates.accuracy(farm)

    assert found is not None
    assert found.runs == 10  # of the first nothing was expected
    assert found.within < 1
    assert found.median_error == pytest.approx(0, abs=0.05)


def test_a_video_waits_for_the_group_that_is_free_first(farm):
    for _ in range(9):
        ran(farm, 10)
    group(farm, "g0")
    held = claimed(farm).fence.video_id
    edit(farm, held, started_at=ago(4))
    running_now = row(farm, held)["started_at"].timestamp()
    first, second = submit(farm), submit(farm)

    waits = [wait(farm, one) for one in (first, second)]

    assert [one.ahead for one in waits] == [0, 1]
    assert waits[0].starts_at == pytest.approx(running_now + 10, abs=0.5)
    assert waits[1].starts_at == pytest.approx(running_now + 20, abs=1)


def test_two_groups_halve_the_wait(farm):
    for _ in range(9):
        ran(farm, 10)
    group(farm, "g0")
    group(farm, "g1")
    waiting = [submit(farm) for _ in range(4)]

    ahead = [wait(farm, one).ahead for one in waiting]

    assert ahead == [0, 0, 1, 1]


@pytest.mark.parametrize("state", [GroupState.DOWN, GroupState.DRAINED])
def test_a_video_that_no_group_will_take_has_no_start(farm, state):
    video_id = submit(farm)
    assert wait(farm, video_id) is None
    made = group(farm, "g0")
    assert wait(farm, video_id) is not None

    groups.beat(farm, made, groups.Reading(condition=state))

    assert wait(farm, video_id) is None


def test_runs_of_another_version_are_passed_over(farm):
    for _ in range(9):
        edit(farm, ran(farm, 10), spec={"model": MODEL, "from": "long ago"})

    claim = claimed(farm)

    assert estimates.of_attempt(farm, claim.fence, UNCACHED) is None
