"""Batches in the database: all or none, within the caps, and the end of one told once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, select, text

from shared.jobs import batches, deliveries, invariants, lifecycle, queries, removal
from shared.jobs import intake as single
from shared.machinery.farm import open_farm
from shared.machinery.tables import Batch, Idempotency
from shared.vocabulary.errors import WanfarmError
from tests.services.hooks import completed, listen, log, secret, send
from tests.services.jobs import DIED, OFFER, RESULT, ago, order, row, states_of, take
from tests.services.jobs import submit as submit_one
from tests.services.receiver import Receiver
from tests.services.tenants import flood
from tests.services.test_intake import BIG, group
from tests.services.together import asked, batch, ids, submit
from worker import upkeep


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"webhook_allow_private": True})


def count(farm, table: str) -> int:
    with farm.db.connect() as db:
        return db.scalar(text(f"SELECT count(*) FROM {table}"))


def refusal(farm, wanted: batches.BatchOrder) -> str:
    with pytest.raises(WanfarmError) as refused:
        batches.submit(farm, wanted)
    return refused.value.code


def told_of_batches(farm) -> list[str]:
    return [one["batch_id"] for one in log(farm) if one["type"] == "batch.completed"]


# --- stored


def test_all_videos_wait_in_the_order_of_the_batch(farm):
    batch_id = submit(farm, 5)

    first, *rest = ids(farm, batch_id)
    assert states_of(farm, first) == ["queued"]
    assert [take(farm).fence.video_id for _ in range(5)] == [first, *rest]
    assert [row(farm, one)["spec"]["seed"] for one in (first, *rest)] == [1, 2, 3, 4, 5]
    assert {row(farm, one)["batch_id"] for one in (first, *rest)} == {batch_id}


def test_every_video_is_rung_for(farm, eventually):
    submit(farm, 5)

    eventually(lambda: farm.doorbell.waiting("wan-tiny-t2v") == 5)


@pytest.mark.parametrize("place", [3, 7, 10])
def test_a_connection_that_breaks_leaves_nothing_of_a_batch(farm, place):
    reached = []

    def breaks(connection, *_) -> None:
        reached.append(place)
        if len(reached) == place:
            connection.connection.driver_connection.close()

    wanted = asked(farm, 20, key="k")
    event.listen(farm.db, "before_cursor_execute", breaks)
    with pytest.raises(Exception, match="closed"):
        batches.submit(farm, wanted)
    event.remove(farm.db, "before_cursor_execute", breaks)

    assert [count(farm, table) for table in ("videos", "batches", "idempotency")] == [0, 0, 0]
    assert batches.submit(farm, wanted).replayed is False


def test_one_that_no_group_can_hold_refuses_all_and_is_named(farm):
    group(farm, "middle", gb=16)
    small = order(farm, model=BIG, width=480, height=256, frames=17)
    huge = order(farm, model=BIG, width=1280, height=720, frames=193)
    sizes = {"size": "480x256"}, {"size": "1280x720"}
    members = [
        batches.Member(one, differs, {"size": f"grid.size[{at}]"})
        for at, (one, differs) in enumerate(zip((small, huge), sizes, strict=True))
    ]

    with pytest.raises(WanfarmError, match="The nearest that fits") as refused:
        batches.submit(farm, batches.BatchOrder(members))

    assert (refused.value.code, refused.value.param) == ("does_not_fit", "grid.size[1]")
    assert count(farm, "videos") == 0


def test_a_key_sent_again_gives_the_same_batch_and_no_other(farm):
    first = batches.submit(farm, asked(farm, 2, key="k"))

    again = batches.submit(farm, asked(farm, 2, key="k"))

    assert (again.batch_id, again.replayed) == (first.batch_id, True)
    with pytest.raises(WanfarmError, match="used for another request"):
        submit_one(farm, idempotency_key="k", fingerprint="another")
    submit_one(farm, idempotency_key="of a video", fingerprint="f1")
    assert refusal(farm, asked(farm, 2, key="of a video")) == "idempotency_key_reused"
    assert count(farm, "videos") == 3


def test_a_key_that_a_video_takes_in_the_meantime_refuses_the_whole_batch(farm, settings):
    other, done = open_farm(settings), []

    def first(_connection, _cursor, statement, *_) -> None:
        if "INSERT INTO batches" in statement and not done:
            done.append(submit_one(other, idempotency_key="k", fingerprint="v"))

    event.listen(farm.db, "before_cursor_execute", first)

    assert refusal(farm, asked(farm, 2, key="k")) == "idempotency_key_reused"
    assert (count(farm, "videos"), count(farm, "batches")) == (1, 0)
    other.close()


# --- within the caps


@pytest.fixture
def small(settings):
    """A farm that takes five waiting videos."""
    handles = open_farm(settings.model_copy(update={"max_queued": 9, "max_queued_per_key": 5}))
    yield handles
    handles.close()


def test_a_batch_is_taken_only_when_all_of_it_has_room(small):
    submit(small, 3)

    assert refusal(small, asked(small, 3)) == "queue_full"
    assert count(small, "videos") == 3
    assert submit(small, 2)
    assert refusal(small, asked(small, 1)) == "queue_full"


def test_a_batch_of_another_process_counts_whole(small, farm):
    submit_one(small)
    submit(farm, 4)  # far more than one transaction could have brought

    with pytest.raises(WanfarmError, match=r"full for key 'test' \(5 of 5 waiting\)"):
        submit_one(small)


def test_two_batches_at_once_do_not_overfill_the_queue(small):
    together = threading.Barrier(2)

    def one(_: int) -> str:
        wanted = asked(small, 3)
        together.wait(10)
        try:
            return batches.submit(small, wanted).batch_id[:5]
        except WanfarmError as err:
            return err.code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(one, range(2))) == ["batch", "queue_full"]

    assert count(small, "videos") == 3


# --- read


def test_a_batch_is_what_is_left_of_it(farm):
    batch_id = submit(farm, 3)
    first, second, third = ids(farm, batch_id)
    lifecycle.complete(farm, take(farm).fence, RESULT, {})

    removal.delete(farm, second, by="me")

    shown = batches.show(batch(farm, batch_id), "")
    assert (shown.total, shown.status) == (2, "in_progress")
    assert (shown.counts["completed"], shown.counts["queued"]) == (1, 1)
    assert [one.video_id for one in shown.items] == [first, third]
    removal.delete(farm, first, third, by="me")
    assert batches.one(farm, batch_id, None) is None
    assert batches.page(farm, None, limit=9).rows == []


def end(farm, how: str) -> None:
    claim = take(farm)
    if how == "completed":
        lifecycle.complete(farm, claim.fence, RESULT, {})
    elif how == "failed":
        lifecycle.give_back(farm, claim, DIED)
    elif how == "cancelled":
        lifecycle.cancelled(farm, claim.fence)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ([], "queued"),
        (["in_progress"], "in_progress"),
        (["completed"], "in_progress"),
        (["failed", "completed", "cancelled"], "completed"),
        (["cancelled", "failed", "cancelled"], "failed"),
        (["cancelled", "cancelled", "cancelled"], "cancelled"),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, list) else given,
)
def test_its_status_sums_up_those_of_its_videos(farm, ends, status):
    batch_id = submit(farm, 3, max_attempts=1)

    for how in ends:
        end(farm, how)

    shown = batches.show(batch(farm, batch_id), "")
    assert shown.status == status
    assert (shown.completed_at is None) == (len(ends) < 3)


def test_the_list_of_a_batch_reads_no_history(farm):
    batch_id = submit(farm, 2)
    flood(farm, 3000)
    asked_for = []
    event.listen(farm.db, "before_cursor_execute", lambda *a: asked_for.append(a[2:4]))
    queries.page(farm, queries.Filter(tenant="default", batch=batch_id), limit=64)
    statement, given = asked_for[0]

    with farm.db.connect() as db:
        db.execute(text("ANALYZE videos"))
        driver = db.connection.driver_connection
        plan = driver.execute(f"EXPLAIN {statement}", given).fetchall()

    assert "videos_batch" in str(plan)


# --- stopped, deleted, forgotten


def test_a_cancel_stops_what_is_not_over(farm):
    batch_id = submit(farm, 4)
    first, second, third, _ = ids(farm, batch_id)
    lifecycle.complete(farm, take(farm).fence, RESULT, {})
    take(farm)
    stale = batch(farm, batch_id)
    removal.delete(farm, third, by="me")  # in the meantime

    batches.cancel(farm, stale, by="me", reason="enough")

    shown = batches.show(batch(farm, batch_id), "")
    assert [one.status for one in shown.items] == ["completed", "in_progress", "cancelled"]
    assert row(farm, second)["cancelled_by"] == "me: enough"
    assert row(farm, first)["state"] == "completed"


def test_the_row_of_a_batch_goes_after_its_videos_and_its_key_a_day_later(farm):
    batch_id = batches.submit(farm, asked(farm, 2, key="k")).batch_id
    claim = take(farm, OFFER)
    with farm.db.connect() as db:
        db.execute(Idempotency.__table__.update().values(at=ago(90_000)))
    every = {**upkeep.DUTIES, **upkeep.HOURLY}

    batches.delete(farm, batch(farm, batch_id), by="me")
    assert upkeep.round_of_duties(farm, every)["batches"] == 0  # one of its videos still runs
    assert count(farm, "idempotency") == 1
    lifecycle.cancelled(farm, claim.fence)
    done = [upkeep.round_of_duties(farm, every) for _ in range(2)]

    assert done[0]["batches"] == 1
    assert done[1]["idempotency"] == 1
    assert count(farm, "batches") == 0


# --- told of


def test_the_end_of_a_batch_is_told_once_when_its_last_video_ends(farm):
    listen(farm, "http://all/", "batch.completed", "video.completed")
    listen(farm, "http://others/", "batch.completed", tenant="others")
    listen(farm, "http://videos/")
    batch_id = submit(farm, 3, max_attempts=1)
    completed(farm, priority=1)

    end(farm, "completed")
    removal.delete(farm, ids(farm, batch_id)[2], by="me")
    assert told_of_batches(farm) == []
    end(farm, "failed")

    assert told_of_batches(farm) == [batch_id]
    assert len({one["id"] for one in log(farm)}) == len(log(farm))
    assert list(invariants.broken(farm)) == []


@pytest.mark.parametrize("size", [2, 3])
def test_videos_that_end_at_once_tell_of_their_batch_once(farm, settings, size, eventually):
    """Each of these statements begins before another one is committed."""
    listen(farm, "http://all/", "batch.completed")
    batch_id = submit(farm, size)
    fences = [take(farm).fence for _ in range(size)]
    farms = [open_farm(settings) for _ in fences]

    with ThreadPoolExecutor(size) as pool:
        with farm.db.connect().execution_options(isolation_level="READ COMMITTED") as db:
            db.execute(select(Batch.id).with_for_update())  # holds all of them up before their end
            ends = [
                pool.submit(lifecycle.complete, one, fence, RESULT, {})
                for one, fence in zip(farms, fences, strict=True)
            ]
            eventually(lambda: waiting_for_locks(farm) == size)
        for one in ends:
            one.result(10)

    assert told_of_batches(farm) == [batch_id]
    assert batches.show(batch(farm, batch_id), "").status == "completed"
    for one in farms:
        one.close()


def waiting_for_locks(farm) -> int:
    with farm.db.connect() as db:
        waits = "datname = current_database() AND wait_event_type = 'Lock'"
        return db.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {waits}"))


def test_a_receiver_gets_the_batch_as_the_api_serves_it(farm):
    with Receiver() as receiver:
        listen(farm, receiver.url, "batch.completed")
        batch_id = submit(farm, 2)
        end(farm, "completed")
        end(farm, "cancelled")
        send(farm)
        said = receiver.got[0].verify(secret(farm))

    assert said["type"] == "batch.completed"
    assert said["data"] == batches.show(batch(farm, batch_id), "").model_dump(mode="json")
    assert said["data"]["counts"]["completed"] == 1


def test_nothing_is_sent_of_a_batch_that_is_gone(farm):
    listen(farm, "http://all/", "batch.completed")
    batch_id = submit(farm, 1)
    end(farm, "completed")
    assert told_of_batches(farm) == [batch_id]

    batches.delete(farm, batch(farm, batch_id), by="me")

    assert deliveries.claim(farm) is None
    batches.drop_empty(farm)
    assert log(farm) == []


def test_a_single_video_asks_the_database_as_often_as_before(farm):
    submit_one(farm)
    one, statements = order(farm), []
    event.listen(farm.db, "before_cursor_execute", lambda *a: statements.append(a[2]))

    single.submit(farm, one)

    assert len(statements) == 2
