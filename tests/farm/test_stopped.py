"""Cancel, drain and deadlines: the GPU stops, the row says why, the next job starts."""

import signal

import pytest

from shared.jobs import lifecycle
from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import Delivery
from tests.farm.conftest import CAMERA

LONG = {"prompt": "wait", "steps": 100}  # of the camera: five seconds
SLOW = {"steps": 100, "width": 256, "height": 256, "frames": 65}  # each step is told

PLANS = {1: ParallelPlan(ranks=1), 2: ParallelPlan(ranks=2, cfg=2)}  # all on their devices


def test_a_queued_video_is_cancelled_at_once_and_never_starts(house, completes):
    video_id, other = house.submit(), house.submit()

    assert lifecycle.cancel(house.farm, video_id, by="a person") == "cancelled"

    house.start(engine=CAMERA)
    completes(other)
    assert house.history(video_id) == ["queued", "cancelled"]
    assert house.row(video_id)["error"]["message"] == "Cancelled by a person before it started."


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_running_video_stops_within_two_steps_and_the_next_one_starts(
    house, completes, eventually, ranks
):
    house.start(ranks=ranks)
    video_id, other = house.submit(**SLOW), house.submit()
    eventually(lambda: house.step(video_id) > 1, within=60)

    seen = house.step(video_id)
    lifecycle.cancel(house.farm, video_id, by="a person", reason="wrong prompt")

    eventually(lambda: house.row(video_id)["completed_at"], within=20)
    row = house.row(video_id)
    assert row["state"] == "cancelled"
    assert row["cancelled_by"] == "a person: wrong prompt"
    assert row["attempts"][0]["plan"] == PLANS[ranks].model_dump(mode="json")
    stopped_at = int(row["error"]["message"].removesuffix(".").rpartition(" ")[2])
    assert seen <= stopped_at <= seen + 2
    assert completes(other)["attempts"][0]["incarnation"] == row["attempts"][0]["incarnation"]
    assert not house.results(video_id)


def test_a_leaving_worker_finishes_its_job_and_takes_no_other(house, eventually):
    worker = house.start(engine=CAMERA)
    first, second = house.submit(**LONG), house.submit()
    eventually(lambda: house.step(first) > 0, within=60)

    assert worker.leave() == 0

    assert (house.state(first), house.state(second)) == ("completed", "queued")


def test_a_worker_that_must_leave_hands_its_job_back_uncharged(house, eventually):
    worker = house.start(engine=CAMERA, drain_s=0.5)
    video_id = house.submit(**LONG)
    eventually(lambda: house.step(video_id) > 1, within=60)

    assert worker.leave() == 0

    row = house.row(video_id)
    assert (row["state"], row["attempts_left"]) == ("queued", 3)
    assert row["attempts"][0]["outcome"] == "drained"


def test_a_deadline_to_finish_fails_a_running_video(house, eventually):
    worker = house.start(engine=CAMERA)
    eventually(lambda: worker.ranks(), within=30)
    video_id = house.submit(Delivery(finish_within_s=2), **LONG)

    eventually(lambda: house.row(video_id)["completed_at"], within=40)

    assert house.history(video_id)[1:] == ["in_progress", "failed"]
    assert house.row(video_id)["error"]["code"] == "deadline_missed"


def test_two_parents_cannot_run_one_group(house, eventually):
    first = house.start(engine=CAMERA)
    eventually(lambda: first.ranks(), within=30)

    second = house.start()

    assert second.process.wait(30) == 1
    assert "group g0 is already running on this host" in second.log.read_text()
    first.process.send_signal(signal.SIGKILL)
