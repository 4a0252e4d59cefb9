"""Whatever is killed, a video is rendered once and its row is true."""

import os
import signal

from shared.jobs.tick import Ticker
from tests.farm.conftest import CAMERA, is_alive

LONG = {"prompt": "wait", "steps": 60}  # of the camera: three seconds


def test_a_killed_parent_loses_nothing(house, completes, eventually):
    worker = house.start(engine=CAMERA)
    video_id = house.submit(**LONG)
    eventually(lambda: house.step(video_id) > 2, within=60)
    ranks = worker.ranks()
    ticker = Ticker(house.farm)
    ticker.start()

    worker.kill()

    eventually(lambda: not any(is_alive(pid) for pid in ranks), within=5)
    eventually(lambda: house.state(video_id) == "queued", within=house.farm.settings.lease_s + 15)
    ticker.stop()
    house.start(engine=CAMERA)
    row = completes(video_id)
    assert row["attempt"] == 2
    assert [attempt["kind"] for attempt in row["attempts"]] == ["lost", None]
    assert house.history(video_id) == [
        "queued",
        "in_progress",
        "queued",
        "in_progress",
        "completed",
    ]
    assert len(house.results(video_id)) == 1


def test_a_parent_that_comes_back_takes_over_at_once(house, completes, eventually):
    worker = house.start(engine=CAMERA, lease_s=600)
    video_id = house.submit(**LONG)
    eventually(lambda: house.step(video_id) > 2, within=60)

    worker.kill()
    house.start(engine=CAMERA)

    assert completes(video_id)["attempt"] == 2


def test_a_killed_rank_is_replaced_by_the_same_parent(house, completes, eventually):
    worker = house.start(engine=CAMERA)
    video_id = house.submit(**LONG)
    eventually(lambda: house.step(video_id) > 2, within=60)

    os.kill(worker.ranks()[0], signal.SIGKILL)

    row = completes(video_id)
    first, second = row["attempts"]
    assert (first["outcome"], first["kind"]) == ("requeued", "rank_died")
    assert first["message"] == "Rank 0 died (SIGKILL)."
    assert first["incarnation"] == second["incarnation"]


def test_an_emptied_redis_loses_no_job(house, completes):
    ids = [house.submit(seed=seed) for seed in range(20)]
    for key in house.farm.doorbell._redis.scan_iter(f"{house.farm.settings.key_prefix}*"):
        house.farm.doorbell._redis.delete(key)

    house.start(engine=CAMERA)

    for video_id in ids:
        assert completes(video_id)["attempt"] == 1
