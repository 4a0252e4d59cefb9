"""Whoever renders next goes on from the saved latents, and the video is the same to the bit."""

import os
import signal

import pytest

from shared.jobs import queries

LONG = {"steps": 24, "frames": 17}


@pytest.fixture
def undisturbed(house, completes):
    """The hash of the same video's latents, rendered by the same farm in one go."""

    def render() -> str:
        return completes(house.submit(**LONG))["attempts"][0]["report"]["latents_sha256"]

    return render


def saved_step(house, video_id: str) -> int:
    return (house.row(video_id)["checkpoint"] or {}).get("step", 0)


def left_behind(house) -> list[str]:
    return house.farm.storage.names("checkpoints")


@pytest.mark.long  # as the next one, by the same parent
def test_a_video_goes_on_when_its_rank_was_killed(house, completes, undisturbed, eventually):
    worker = house.start(checkpoint_seconds=0.01)
    video_id = house.submit(**LONG)
    eventually(lambda: saved_step(house, video_id) > 2, within=60)

    os.kill(worker.ranks()[0], signal.SIGKILL)

    row = completes(video_id)
    report = row["attempts"][1]["report"]
    assert 2 < report["resumed_at"] < 24
    assert report["steps"][0]["step"] == report["resumed_at"] + 1
    assert len(report["pattern"]["high"]["cond"]) == report["switch_step"] - 1
    assert report["latents_sha256"] == undisturbed()
    eventually(lambda: left_behind(house) == [])


def test_another_worker_goes_on_with_the_video_of_one_that_was_killed(house, completes, eventually):
    killed = house.start(group="g0", checkpoint_seconds=0.01)
    video_id = house.submit(**LONG)
    eventually(lambda: saved_step(house, video_id) > 8, within=60)

    killed.kill()
    house.start(group="g1")

    row, again = (completes(one) for one in (video_id, house.submit(**LONG)))
    assert [one["group_name"] for one in row["attempts"]] == ["g0", "g1"]
    ours, whole = (one["attempts"][-1]["report"] for one in (row, again))
    assert 8 < ours["resumed_at"] < 24
    assert whole["resumed_at"] is None
    assert ours["latents_sha256"] == whole["latents_sha256"]
    assert row["result"]["sha256"] == again["result"]["sha256"]


def test_a_leaving_worker_saves_the_step_at_which_it_stops(
    house, completes, undisturbed, eventually
):
    worker = house.start(drain_s=0.1, checkpoint_seconds=1000)
    video_id = house.submit(**LONG)
    eventually(lambda: house.step(video_id) > 0, within=60)

    assert worker.leave() == 0

    back = house.row(video_id)
    saved = back["checkpoint"]
    assert (back["progress"], saved["step"] > 0) == (0, True)
    house.start()
    report = completes(video_id)["attempts"][1]["report"]
    assert report["resumed_at"] == saved["step"]
    assert report["latents_sha256"] == undisturbed()
    assert progress_of(house, video_id, attempt=2)[0] == saved["progress"]
    eventually(lambda: left_behind(house) == [])


def progress_of(house, video_id: str, attempt: int) -> list[int]:
    """What an attempt told, in order."""
    events = queries.events(house.farm, video_id)
    told = [e["progress"] for e in events if e["attempt"] == attempt and "progress" in e]
    assert told == sorted(told)
    return told
