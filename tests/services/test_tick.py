"""What every process does for all: ring again for what waits, and no more than that."""

from dataclasses import replace

import pytest

from shared.jobs import tick
from shared.machinery.farm import open_farm
from tests.conftest import wait_for
from tests.services.jobs import (
    MODEL,
    OTHER_MODEL,
    ago,
    claimed,
    edit,
    let_lease_expire,
    row,
    submit,
    take,
)


def forget_all_rings(farm, rung: int) -> None:
    """Wait for the rings that are on their way, and lose them."""
    wait_for(lambda: farm.doorbell.waiting(MODEL) == rung)
    for key in farm.doorbell._redis.scan_iter(f"{farm.settings.key_prefix}*"):
        farm.doorbell._redis.delete(key)


def test_lost_rings_are_rung_again_once_each(farm):
    for _ in range(3):
        submit(farm)
    forget_all_rings(farm, 3)

    assert tick.ring_again(farm) == 3

    assert farm.doorbell.waiting(MODEL) == 3
    assert tick.ring_again(farm) == 0


def test_a_ring_that_still_waits_is_not_repeated(farm):
    submit(farm)
    wait_for(lambda: farm.doorbell.waiting(MODEL) == 1)

    assert tick.ring_again(farm) == 0


@pytest.mark.parametrize(
    "edited",
    [{"run_after": ago(-60)}, {"start_by": ago(1)}, {"finish_by": ago(1)}],
    ids=["backs off", "should have started", "should have finished"],
)
def test_nobody_rings_for_a_video_that_is_not_due(farm, edited):
    edit(farm, submit(farm), **edited)
    forget_all_rings(farm, 1)

    assert tick.ring_again(farm) == 0


def test_a_running_video_is_not_rung_for(farm):
    claimed(farm)
    forget_all_rings(farm, 1)

    assert tick.ring_again(farm) == 0


def test_due_videos_are_counted_by_model_over_all_tenants(farm):
    submit(farm, tenant="one")
    submit(farm, tenant="two")
    submit(farm, model=OTHER_MODEL, guidance_low=None, boundary=None)

    due = tick.due_by_model(farm)

    assert (due[MODEL], due[OTHER_MODEL]) == (2, 1)


def test_a_long_queue_is_rung_for_sixty_four_times(farm):
    video_id = submit(farm)
    copies = """
        INSERT INTO videos SELECT (jsonb_populate_record(v, jsonb_build_object('id', v.id || n))).*
        FROM videos AS v, generate_series(1, 99) AS n WHERE v.id = %s"""
    with farm.db.connect() as db:
        db.exec_driver_sql(copies, (video_id,))
    forget_all_rings(farm, 1)

    assert tick.ring_again(farm) == 64


def test_a_tick_rescues_expires_and_rings(farm):
    lost = claimed(farm).fence.video_id
    late, waiting = submit(farm), submit(farm)
    let_lease_expire(farm, lost)
    edit(farm, late, start_by=ago(1))
    forget_all_rings(farm, 3)

    tick.tick(farm)

    states = [row(farm, video_id)["state"] for video_id in (lost, late, waiting)]
    assert states == ["queued", "cancelled", "queued"]
    assert farm.doorbell.waiting(MODEL) == 2


def test_without_redis_a_tick_still_rescues(farm, settings):
    lost = claimed(farm).fence.video_id
    let_lease_expire(farm, lost)
    lonely = open_farm(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))

    tick.tick(lonely)

    assert row(farm, lost)["state"] == "queued"
    lonely.close()


def test_the_ticker_goes_on_when_postgres_does_not_answer(settings):
    url = "postgresql+psycopg://127.0.0.1:1/nowhere"
    quick = {"tick_s": 0.05, "database_url": url}
    unreachable = open_farm(settings.model_copy(update=quick))
    ticker = tick.Ticker(unreachable)
    ticker.start()

    ticker.join(1)

    assert ticker.is_alive()
    ticker.stop()
    ticker.join(10)
    assert not ticker.is_alive()
    unreachable.close()


def test_a_ticker_puts_a_lost_video_back_by_itself(farm, settings, eventually):
    lost = claimed(farm).fence.video_id
    let_lease_expire(farm, lost)
    ticker = tick.Ticker(replace(farm, settings=settings.model_copy(update={"tick_s": 0.05})))
    ticker.start()

    eventually(lambda: row(farm, lost)["state"] == "queued")

    ticker.stop()
    ticker.join(10)
    assert take(farm).fence.attempt == 2
