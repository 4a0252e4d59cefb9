"""One fault each, on real processes: what it may cost, and that it costs no more."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import libfaketime
import psycopg
import pytest
import redis
from sqlalchemy.engine import make_url

from shared.jobs import invariants
from tests.farm.conftest import CAMERA, WITNESS, House, is_alive, overlaps

CLOCK = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
LONG = {"prompt": "wait longer", "steps": 40}  # of the camera: eight seconds, longer than a lease


@pytest.fixture(autouse=True)
def ledger(house: House) -> Iterator[None]:
    """Whatever happened, nothing is against the rules."""
    yield
    house.end()
    assert [*invariants.broken(house.farm)] == []


def taken_over(house: House, video_id: str) -> bool:
    row = house.row(video_id)
    return row["attempt"] == 2 and row["state"] == "in_progress"


def moved_on(house: House, video_id: str) -> Callable[[], bool]:
    at = house.step(video_id)
    return lambda: house.step(video_id) != at


def test_a_parent_that_was_stopped_beyond_its_lease_finds_its_video_taken(
    house, ticker, completes, eventually
):
    stopped = house.start(engine=CAMERA, group="g0")
    video_id = house.submit(**LONG)
    eventually(lambda: house.step(video_id) > 2, within=60)
    ranks = stopped.ranks()

    stopped.process.send_signal(signal.SIGSTOP)
    eventually(lambda: house.state(video_id) == "queued", within=30)
    assert not any(is_alive(pid) for pid in ranks)  # they ended themselves: nothing ran twice
    house.start(engine=CAMERA, group="g1")
    eventually(lambda: taken_over(house, video_id), within=60)
    stopped.process.send_signal(signal.SIGCONT)

    row = completes(video_id)
    assert [one["group_name"] for one in row["attempts"]] == ["g0", "g1"]
    assert len(house.results(video_id)) == 1


def test_connections_that_are_reset_again_and_again_cost_no_attempt(
    house, postgres, completes, eventually
):
    house.start(engine=CAMERA, database_url=postgres.url)
    video_id = house.submit(prompt="wait", steps=60)
    eventually(lambda: house.step(video_id) > 2, within=60)

    while house.step(video_id) < 50 and house.state(video_id) == "in_progress":
        postgres.tell("cut")
        eventually(moved_on(house, video_id), within=30)

    assert completes(video_id)["attempt"] == 1


def test_a_client_that_freezes_with_a_row_locked_does_not_keep_its_video(
    house, ticker, completes, eventually
):
    worker = house.start(engine=CAMERA, group="g0")
    video_id = house.submit(**LONG)
    eventually(lambda: house.step(video_id) > 2, within=60)
    url = make_url(house.farm.settings.database_url).set(drivername="postgresql")

    with psycopg.connect(url.render_as_string(hide_password=False)) as frozen:
        frozen.execute("SET idle_in_transaction_session_timeout = '10s'")  # as ours have it
        frozen.execute("UPDATE videos SET progress = progress WHERE id = %s", (video_id,))
        worker.kill()
        house.start(engine=CAMERA, group="g1")

        assert completes(video_id)["attempt"] == 2
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            frozen.execute("SELECT 1")
        frozen.close()


def test_a_redis_that_hangs_stops_neither_submits_nor_videos(house, completes, eventually):
    house.start(engine=CAMERA)
    completes(house.submit())
    with redis.Redis.from_url(house.farm.settings.redis_url) as client:
        server = client.info("server")["process_id"]

    os.kill(server, signal.SIGSTOP)
    try:
        completes(house.submit())
    finally:
        os.kill(server, signal.SIGCONT)

    completes(house.submit())


@pytest.mark.parametrize("clock", ["+2h", "-2h"])
def test_a_worker_whose_clock_is_wrong_does_nothing_early_or_late(
    house, ticker, completes, eventually, clock, monkeypatch
):
    faked = {"LD_PRELOAD": str(CLOCK), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with monkeypatch.context() as patched:
        for name, value in faked.items():
            patched.setenv(name, value)
        house.start(engine=CAMERA)
    first, second = house.submit(prompt="wait", steps=60), house.submit()

    rows = [completes(first), completes(second)]

    assert [row["attempt"] for row in rows] == [1, 1]
    assert 3 < (rows[0]["completed_at"] - rows[0]["started_at"]).total_seconds() < 60


def test_videos_that_break_their_ranks_leave_the_others_as_they_are(house, completes, eventually):
    """Every seventh runs out of memory, every eleventh computes rubbish."""
    house.start(engine=CAMERA)
    planted = {7: "memory", 14: "memory", 11: "nan"}
    ids = {number: house.submit(prompt=planted.get(number, "a ball")) for number in range(1, 16)}

    rows = {number: ended(house, eventually, one) for number, one in ids.items()}

    broken = {number: row["error"]["code"] for number, row in rows.items() if row["error"]}
    assert broken == {7: "out_of_memory", 14: "out_of_memory", 11: "bad_output"}
    well = [row["result"]["sha256"] for number, row in rows.items() if number not in planted]
    assert len(well) == 12
    assert len({*well}) == 1


def ended(house, eventually, video_id: str) -> dict:
    eventually(lambda: house.row(video_id)["completed_at"], within=120)
    return house.row(video_id)


@pytest.mark.parametrize(
    ("trouble", "lease_s", "order"),
    [
        ("away 20", 6, LONG),
        # every write waits three seconds for an answer, so it takes a longer lease
        pytest.param(
            "swallow 60", 40, {"prompt": "wait longest", "steps": 100},
            marks=[pytest.mark.long, pytest.mark.timeout(300)],
        ),
    ],
)  # fmt: skip
def test_a_parent_that_loses_postgres_beyond_its_lease_stops_before_another_begins(
    house, postgres, ticker, completes, eventually, trouble, lease_s, order
):
    seed = random.randrange(2**32)
    house.start(engine=WITNESS, group="g0", lease_s=lease_s, database_url=postgres.url)
    video_id = house.submit(**order, seed=seed)
    eventually(lambda: house.step(video_id) > 2, within=60)
    house.start(engine=WITNESS, group="g1", lease_s=lease_s)

    postgres.tell(trouble)

    row = completes(video_id, within=lease_s + 120)
    assert [one["group_name"] for one in row["attempts"]] == ["g0", "g1"]
    assert [one for one in overlaps(house.farm.settings.models_dir) if one[0] == seed] == []
    assert len(house.results(video_id)) == 1
