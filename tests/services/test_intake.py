"""From an order to a waiting row: once per key, within the caps, whatever Redis does."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from shared.jobs import board, groups, intake, invariants, lifecycle, orders, queries
from shared.machinery.doorbell import ENOUGH
from shared.machinery.farm import open_farm
from shared.machinery.feed import EVENTS
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import is_id
from shared.vocabulary.states import GroupState
from tests.services.jobs import (
    MODEL,
    OFFER,
    order,
    row,
    seconds_until,
    states_of,
    submit,
    take,
)

BIG = "wan2.2-t2v-a14b"


def test_an_order_becomes_a_waiting_row_with_its_first_event(farm):
    video_id = submit(farm, prompt="a hill", priority=3, user="ada", metadata={"shot": "7"})

    waiting = row(farm, video_id)
    assert is_id(video_id, "video")
    assert states_of(farm, video_id) == ["queued"]
    assert (waiting["attempt"], waiting["attempts_left"], waiting["progress"]) == (0, 3, 0)
    assert waiting["spec"]["prompt"] == "a hill"
    assert (waiting["priority"], waiting["user"]) == (3, "ada")
    assert (waiting["metadata"], waiting["asked"]) == ({"shot": "7"}, ["prompt"])


def test_deadlines_count_from_the_databases_clock(farm):
    video_id = submit(farm, start_within_s=100, finish_within_s=1000)

    assert 95 < seconds_until(farm, video_id, "start_by") <= 100
    assert 995 < seconds_until(farm, video_id, "finish_by") <= 1000


def test_a_new_video_is_rung_for_and_told(farm, eventually):
    with farm.feed.subscription(EVENTS) as told:
        told.next(1)
        video_id = submit(farm)
        event = told.next(5)

    eventually(lambda: farm.doorbell.waiting(MODEL) == 1)
    assert event["event"] == queries.events(farm, video_id)[0]
    assert event["tenant"] == "default"


def test_no_ring_is_added_to_many_that_wait(farm):
    for _ in range(ENOUGH + 2):
        assert farm.doorbell.ring(MODEL)

    assert farm.doorbell.waiting(MODEL) == ENOUGH


def test_one_key_sent_again_gives_the_same_video(farm):
    again = order(farm, idempotency_key="k", fingerprint="f")

    first, second = intake.submit(farm, again), intake.submit(farm, again)

    assert second == intake.Accepted(first.video_id, replayed=True)


def test_twenty_submits_with_one_key_at_once_make_one_row(farm):
    same = order(farm, idempotency_key="k", fingerprint="f")
    start = threading.Barrier(20)

    def one(_: int) -> intake.Accepted:
        start.wait()
        return intake.submit(farm, same)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(20)))

    page = queries.page(farm, queries.Filter(tenant=None), limit=100)
    assert {answer.video_id for answer in answers} == {only["id"] for only in page.rows}
    assert len(page.rows) == 1
    assert sum(not answer.replayed for answer in answers) == 1


def at_once(farm, *asked: orders.Order) -> list[intake.Accepted | WanfarmError]:
    """What each of several threads is answered."""
    start = threading.Barrier(len(asked))

    def one(order: orders.Order) -> intake.Accepted | WanfarmError:
        start.wait()
        try:
            return intake.submit(farm, order)
        except WanfarmError as err:
            return err

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(one, asked))


def test_orders_at_once_are_a_video_each_with_a_place_of_its_own(farm):
    asked = [
        order(farm, tenant=tenant, seed=seed, priority=priority, start_within_s=50 + seed)
        for seed, (tenant, priority) in enumerate([("one", 0), ("two", 0), ("two", 1)] * 6)
    ]

    answers = at_once(farm, *asked)

    for sent, answer in zip(asked, answers, strict=True):
        made = row(farm, answer.video_id)
        assert {name: answer.row[name] for name in made} == made
        assert (made["tenant"], made["spec"]["seed"]) == (sent.tenant, sent.spec.seed)
        assert states_of(farm, answer.video_id) == ["queued"]
        assert answer.outlook.place >= 1
    first = [one for one in answers if one.row["priority"] == 1]
    assert max(one.outlook.place for one in first) <= len(first)
    assert list(invariants.broken(farm)) == []


def test_a_full_queue_takes_as_many_of_those_at_once_as_it_holds(small):
    asked = [order(small, seed=seed, key_id=f"key{seed % 4}") for seed in range(16)]

    answers = at_once(small, *asked)

    refused = [one for one in answers if isinstance(one, WanfarmError)]
    assert {one.code for one in refused} == {"queue_full"}
    assert len(answers) - len(refused) == 3


def test_what_one_order_is_refused_for_does_not_touch_the_others(farm):
    submit(farm, idempotency_key="k", fingerprint="f")
    wrong = order(farm, idempotency_key="k", fingerprint="another")
    unknown = replace(order(farm), tenant="nobody")  # no such row: Postgres refuses the statement
    good = [order(farm, seed=seed) for seed in range(6)]

    with pytest.raises(IntegrityError):
        intake.submit(farm, unknown)
    answers = at_once(farm, wrong, *good)

    assert [getattr(one, "code", None) for one in answers] == ["idempotency_key_reused"] + [
        None
    ] * 6


def test_one_key_for_another_request_is_refused(farm):
    submit(farm, idempotency_key="k", fingerprint="f")

    with pytest.raises(WanfarmError) as refused:
        submit(farm, idempotency_key="k", fingerprint="another")

    assert refused.value.code == "idempotency_key_reused"
    assert board.read(farm, None).queued == 1


def test_the_keys_of_two_tenants_do_not_meet(farm):
    first = submit(farm, tenant="one", idempotency_key="k", fingerprint="f")

    assert submit(farm, tenant="two", idempotency_key="k", fingerprint="f") != first


def test_a_fingerprint_tells_requests_apart_but_not_the_order_of_their_fields():
    first = orders.fingerprint("POST /v1/videos", {"a": 1, "b": 2})

    assert first == orders.fingerprint("POST /v1/videos", {"b": 2, "a": 1})
    assert first != orders.fingerprint("POST /v1/videos", {"a": 1, "b": 3})
    assert first != orders.fingerprint("POST /v1/remix", {"a": 1, "b": 2})


@pytest.fixture
def small(settings):
    """A farm that takes three waiting videos, two of a key."""
    handles = open_farm(settings.model_copy(update={"max_queued": 3, "max_queued_per_key": 2}))
    yield handles
    handles.close()


def test_a_full_queue_refuses_the_key_that_filled_it(small):
    submit(small)
    submit(small)

    with pytest.raises(WanfarmError, match=r"full for key 'test' \(2 of 2 waiting\)") as refused:
        submit(small)

    assert (refused.value.code, refused.value.retry_after_s) == ("queue_full", 30)
    assert submit(small, key_id="other")


def test_a_full_farm_refuses_everyone(small):
    for key_id in ("one", "two", "three"):
        submit(small, key_id=key_id)

    with pytest.raises(WanfarmError, match="full of this farm"):
        submit(small, key_id="four")


def test_a_queue_that_another_process_fills_is_full_all_the_same(small, farm):
    submit(small, key_id="one")
    submit(farm, key_id="two")
    submit(farm, key_id="two")

    with pytest.raises(WanfarmError, match="full of this farm"):
        submit(small, key_id="one")


def test_a_queue_with_much_room_is_counted_once(farm):
    submit(farm)
    known = dict(farm.room)

    submit(farm)

    assert farm.room == known


def test_only_waiting_videos_fill_the_queue(small):
    submit(small)
    lifecycle.cancel(small, submit(small), by="a person")
    take(small, OFFER)

    assert submit(small)
    assert submit(small)


def test_a_repeated_request_is_answered_even_when_the_queue_is_full(small):
    first = submit(small, idempotency_key="k", fingerprint="f")
    submit(small)

    assert submit(small, idempotency_key="k", fingerprint="f") == first


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    yield port


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Takes connections and says nothing, as a stopped process does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("redis", [closed_port, silent_port], ids=["gone", "hung"])
def test_a_video_is_taken_while_redis_is_away(settings, redis):
    with redis() as port:
        lonely = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{port}/0"})
        farm = open_farm(lonely)
        began = time.monotonic()

        video_id = submit(farm)

        assert time.monotonic() - began < 2  # nobody asked Redis
        assert row(farm, video_id)["state"] == "queued"
        farm.close()


def group(farm, name: str, *, gb: float | None, models: tuple[str, ...] = (BIG,)) -> None:
    """A living group with one card."""
    identity = groups.Identity(name, "life-1", "host", 1, "cuda", models)
    card = {"rank": 0, "memory_total_bytes": gb and int(gb * 1e9)}
    groups.register(farm, identity)
    groups.beat(farm, identity, groups.Reading(GroupState.IDLE, devices=[card]))


HUGE = {"model": BIG, "width": 1280, "height": 720, "frames": 193}


def test_a_video_that_no_group_can_hold_is_refused_with_the_nearest_that_fits(farm):
    group(farm, "small", gb=8)
    group(farm, "middle", gb=16)

    with pytest.raises(WanfarmError, match=r"The nearest that fits is \d+x\d+ with") as refused:
        submit(farm, **HUGE)

    assert refused.value.code == "does_not_fit"
    assert "A GPU here has 16.0 GB." in refused.value.message
    assert submit(farm, model=BIG, width=480, height=256, frames=17)


@pytest.mark.parametrize(
    "other",
    [{"gb": 80}, {"gb": None}, {}],
    ids=["a-large-group", "a-group-with-unknown-cards", "nobody-else"],
)
def test_a_video_is_taken_while_some_group_may_hold_it(farm, other):
    if other:
        group(farm, "small", gb=8)
        group(farm, "other", **other)

    assert submit(farm, **HUGE)


def test_only_the_wanted_group_counts(farm):
    group(farm, "small", gb=8)
    group(farm, "large", gb=80)

    with pytest.raises(WanfarmError, match="A GPU here has 8"):
        submit(farm, group="small", **HUGE)
