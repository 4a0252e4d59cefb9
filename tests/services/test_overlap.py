"""One video is rendered while the file of the one before is finished: each keeps its own fate."""

import threading

import pytest

from shared.jobs import lifecycle
from shared.jobs.ledger import Fence
from shared.vocabulary.states import GroupState
from tests.services.conftest import Parent
from tests.services.jobs import row, states_of, submit
from tests.services.test_attempt import step_of

LONG = {"prompt": "wait", "steps": 40}  # two seconds
DONE = ["queued", "in_progress", "completed"]


@pytest.fixture
def parent(farm, checkpoint):
    """A parent whose films are closed when the checkpoint says `close`."""
    made = Parent(farm, checkpoint, "tests.engine.filming:LateFilmmaker")
    made.keeper.start()
    yield made
    (checkpoint / "close").touch()
    made.end()


@pytest.fixture
def overlap(farm, parent, checkpoint, eventually):
    """Have a first video closing and a second one rendering; `close()` lets both be finished."""

    def start(first: dict, second: dict):
        ids = submit(farm, **first), submit(farm, **second)
        parent.thread.start()
        eventually(lambda: row(farm, ids[1])["state"] == "in_progress", within=30)
        return ids

    return start


@pytest.fixture
def close(parent, checkpoint):
    """Let the files be closed, and wait until the parent has nothing to do."""

    def act() -> None:
        (checkpoint / "close").touch()
        parent.thread.join(30)

    return act


def test_the_next_video_starts_before_the_one_before_is_completed(
    farm, parent, overlap, close, eventually
):
    first, second = overlap({}, LONG)
    eventually(lambda: step_of(farm, second) > 1)

    reading = parent.runner.reading()
    assert (reading.condition, reading.video_id) == (GroupState.BUSY, second)
    assert row(farm, first)["state"] == "in_progress"
    assert row(farm, first)["detail"]["phase"] == "encode"

    close()
    assert states_of(farm, first) == states_of(farm, second) == DONE
    assert row(farm, first)["completed_at"] < row(farm, second)["completed_at"]


def test_both_leases_are_kept(farm, overlap, close, eventually):
    ids = overlap({}, LONG | {"steps": 100})
    before = [row(farm, video_id)["lease_until"] for video_id in ids]

    eventually(lambda: row(farm, ids[0])["lease_until"] > before[0])
    eventually(lambda: row(farm, ids[1])["lease_until"] > before[1])

    close()
    assert states_of(farm, ids[0]) == states_of(farm, ids[1]) == DONE


def test_a_cancel_of_the_rendering_video_leaves_the_finished_one_alone(
    farm, overlap, close, eventually
):
    first, second = overlap({}, LONG | {"steps": 100})

    lifecycle.cancel(farm, second, by="a person")

    eventually(lambda: row(farm, second)["state"] == "cancelled")
    close()
    assert states_of(farm, first) == DONE


def test_a_cancel_that_comes_after_the_last_picture_stops_nothing(farm, overlap, close, eventually):
    first, second = overlap({}, LONG)

    lifecycle.cancel(farm, first, by="a person")
    eventually(lambda: step_of(farm, second) == 40)

    close()
    assert states_of(farm, first) == states_of(farm, second) == DONE


def test_a_file_that_cannot_be_closed_fails_its_own_video(farm, overlap, close):
    first, second = overlap({"prompt": "fail to close", "max_attempts": 1}, LONG)

    close()

    assert row(farm, first)["error"]["code"] == "storage_error"
    assert states_of(farm, second) == DONE


def test_ranks_that_die_charge_the_video_they_render_and_not_the_one_they_close(
    farm, overlap, close, eventually
):
    first, second = overlap({"max_attempts": 2}, {"prompt": "die", "max_attempts": 2})

    eventually(lambda: row(farm, second)["state"] == "failed", within=30)

    close()
    lost, died = row(farm, first), row(farm, second)
    assert [attempt["kind"] for attempt in died["attempts"]] == ["rank_died"] * 2
    assert [attempt["kind"] for attempt in lost["attempts"]] == ["lost", "lost", None]
    assert (lost["state"], lost["attempts_left"]) == ("completed", 1)


def test_an_attempt_that_lost_its_row_while_closing_stores_nothing(
    farm, overlap, close, eventually
):
    first, second = overlap({}, LONG | {"steps": 100})
    lost = row(farm, first)

    lifecycle.requeue_uncharged(farm, Fence(first, lost["attempt"]), "Taken away.")

    close()
    attempts = row(farm, first)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["drained", "completed"]
    assert row(farm, first)["result"]["attempt"] == 2
    assert not farm.storage.path(f"videos/{first}/1").exists()
    assert states_of(farm, second) == DONE


def test_a_worker_that_leaves_waits_for_the_file_it_finishes(farm, parent, overlap, close):
    first, second = overlap({}, LONG | {"steps": 100})

    parent.runner.leave()
    parent.runner.hand_back()
    waits = threading.Thread(target=parent.runner.join, args=[30])
    waits.start()
    close()
    waits.join(30)

    assert states_of(farm, first) == DONE
    back = row(farm, second)
    assert (back["state"], back["attempts"][0]["outcome"]) == ("queued", "drained")
