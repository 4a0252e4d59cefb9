"""People take a group out of service and bring it back; its video is finished or goes elsewhere."""

import pytest

from shared.jobs import groups
from shared.vocabulary.states import GroupState
from tests.services.conftest import ME
from tests.services.jobs import row, submit

LONG = {"prompt": "wait", "steps": 40}  # two seconds


@pytest.fixture
def serving(parent, eventually):
    """A parent whose keeper listens."""
    parent.keeper.start()
    eventually(lambda: parent.keeper._told is not None)
    return parent


def is_draining(parent) -> bool:
    return parent.runner.reading().condition in {GroupState.DRAINING, GroupState.DRAINED}


def test_a_drained_group_takes_no_video_until_it_is_resumed(farm, serving, eventually):
    groups.drain(farm, "g0", "finish", "new driver")
    eventually(lambda: is_draining(serving), within=5)
    video_id = submit(farm)

    serving.work()
    assert row(farm, video_id)["state"] == "queued"
    assert serving.runner.reading().condition is GroupState.DRAINED

    groups.resume(farm, "g0")
    eventually(lambda: not is_draining(serving), within=5)
    serving.work()
    assert row(farm, video_id)["state"] == "completed"


@pytest.mark.parametrize(
    ("mode", "state", "outcome"),
    [("finish", "completed", "completed"), ("requeue", "queued", "drained")],
)
def test_its_running_video_is_finished_or_put_back(farm, serving, eventually, mode, state, outcome):
    video_id = submit(farm, **LONG)
    serving.thread.start()
    eventually(lambda: (row(farm, video_id)["detail"] or {}).get("step", 0) > 1, within=30)

    groups.drain(farm, "g0", mode)

    serving.thread.join(30)
    video = row(farm, video_id)
    assert (video["state"], video["attempts"][0]["outcome"]) == (state, outcome)
    assert video["attempts_left"] == (3 if mode == "requeue" else 2)


def test_a_restart_does_not_end_a_drain(farm):
    groups.register(farm, ME)
    groups.drain(farm, "g0", "finish", "new driver")

    groups.register(farm, ME)

    (group,) = groups.all_groups(farm)
    assert (group["drain"], group["drain_reason"]) == ("finish", "new driver")


def test_a_group_that_is_not_there_is_told(farm):
    assert groups.drain(farm, "nobody", "finish") is False
    assert groups.resume(farm, "nobody") is False
