"""GPU groups as others see them: what they say, and what their silence says."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from shared.jobs import groups
from shared.machinery.tables import GpuGroup
from shared.vocabulary.states import GroupState
from tests.services.jobs import MODEL, OTHER_MODEL, ago

ME = groups.Identity("g0", "life-1", "host", 2, "cpu", (MODEL, OTHER_MODEL))
BUSY = groups.Reading(GroupState.BUSY, warm_model=MODEL, video_id="video_1")


def silent_for(farm, seconds: float, name: str = "g0") -> None:
    with farm.db.connect() as db:
        change = update(GpuGroup).where(GpuGroup.name == name)
        db.execute(change.values(heartbeat_at=ago(seconds)))


def only(farm) -> dict:
    (group,) = groups.all_groups(farm)
    return group


def test_a_new_group_is_starting(farm):
    groups.register(farm, ME)

    group = only(farm)
    assert (group["name"], group["state"]) == ("g0", GroupState.STARTING)
    assert (group["ranks"], group["models"]) == (2, [MODEL, OTHER_MODEL])


def test_a_heartbeat_brings_what_the_group_does(farm):
    groups.register(farm, ME)

    assert groups.beat(farm, ME, BUSY) == groups.Wish(None)

    group = only(farm)
    assert (group["state"], group["warm_model"]) == (GroupState.BUSY, MODEL)
    assert group["video_id"] == "video_1"


def warm_since(farm, model: str | None):
    groups.beat(farm, ME, groups.Reading(GroupState.IDLE, warm_model=model))
    return only(farm)["warm_since"]


def test_a_model_is_warm_since_the_heartbeat_that_first_told_of_it(farm):
    groups.register(farm, ME)

    first = warm_since(farm, MODEL)
    assert first is not None
    assert warm_since(farm, MODEL) == first
    assert warm_since(farm, OTHER_MODEL) > first
    assert warm_since(farm, None) is None
    assert warm_since(farm, MODEL) > first


@pytest.mark.parametrize(("seconds", "state"), [(25, GroupState.BUSY), (31, GroupState.DOWN)])
def test_a_group_is_down_after_thirty_seconds_of_silence(farm, seconds, state):
    groups.register(farm, ME)
    groups.beat(farm, ME, BUSY)

    silent_for(farm, seconds)

    assert only(farm)["state"] is state
    assert (only(farm)["problem"] == "no heartbeat for 31 s") == (state is GroupState.DOWN)


def test_a_heartbeat_brings_a_silent_group_back(farm):
    groups.register(farm, ME)
    silent_for(farm, 300)

    groups.beat(farm, ME, groups.Reading(GroupState.IDLE))

    assert (only(farm)["state"], only(farm)["problem"]) == (GroupState.IDLE, None)


def test_a_group_that_left_politely_is_down_at_once(farm):
    groups.register(farm, ME)
    groups.beat(farm, ME, BUSY)

    groups.leave(farm, ME)

    group = only(farm)
    assert (group["state"], group["problem"]) == (GroupState.DOWN, "stopped")
    assert group["video_id"] is None


def test_an_earlier_life_can_neither_speak_nor_leave_for_the_new_one(farm):
    groups.register(farm, ME)
    groups.register(farm, replace(ME, incarnation="life-2"))

    assert groups.beat(farm, ME, BUSY) is None
    groups.leave(farm, ME)

    assert only(farm)["state"] is GroupState.STARTING


def test_a_new_life_starts_from_a_clean_row(farm):
    groups.register(farm, ME)
    groups.beat(farm, ME, replace(BUSY, problem="Rank 0 died."))

    groups.register(farm, replace(ME, incarnation="life-2", models=(MODEL,)))

    group = only(farm)
    assert (group["video_id"], group["warm_model"], group["problem"]) == (None, None, None)
    assert group["models"] == [MODEL]


def test_a_group_that_is_down_is_shown_for_a_day(farm):
    groups.register(farm, ME)
    groups.register(farm, replace(ME, name="g1"))
    silent_for(farm, 86_000)
    silent_for(farm, 86_500, "g1")

    assert [group["name"] for group in groups.all_groups(farm)] == ["g0"]


def test_models_are_served_by_groups_that_are_not_down(farm):
    groups.register(farm, ME)
    groups.register(farm, replace(ME, name="g1", models=(MODEL,)))
    assert groups.served_models(groups.all_groups(farm)) == {
        MODEL: ["g0", "g1"],
        OTHER_MODEL: ["g0"],
    }

    silent_for(farm, 31)

    assert groups.served_models(groups.all_groups(farm)) == {MODEL: ["g1"]}
