"""Who sends: one process at a time for each row, whatever is killed, and no lane blocks another."""

import json
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from shared.jobs import deliveries
from shared.jobs.deliveries import LEASE_S, Answer
from tests.farm.conftest import ROOT, environment
from tests.services.hooks import NO, completed, due_in_s, let_be_due, listen, log
from tests.services.receiver import Receiver
from worker.deliveries import Deliverer


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"webhook_allow_private": True})


@pytest.fixture
def receiver():
    with Receiver() as one:
        yield one


def test_a_slow_receiver_does_not_hold_up_the_others(farm, receiver, eventually):
    receiver.go.clear()
    listen(farm, receiver.url)
    ended = [completed(farm) for _ in range(17)]  # one more than there are threads
    deliverer = Deliverer(farm)
    deliverer.start()
    try:
        eventually(lambda: receiver.got)
        with Receiver() as quick:
            ended.append(completed(farm, webhook_url=quick.url))
            eventually(lambda: quick.got)
        assert len(receiver.got) <= 4
        receiver.go.set()
        eventually(lambda: len(receiver.got) == len(ended))
    finally:
        receiver.go.set()
        deliverer.stop()
        deliverer.join(20)
    assert {json.loads(got.body)["data"]["id"] for got in receiver.got} == set(ended)


def test_a_late_record_of_a_try_changes_nothing(farm):
    listen(farm, "http://all/")
    completed(farm)
    first = deliveries.claim(farm)
    assert LEASE_S - 5 < due_in_s(farm) <= LEASE_S
    let_be_due(farm)
    second = deliveries.claim(farm)

    assert deliveries.record(farm, first, NO) is False
    assert deliveries.record(farm, second, Answer(200, 5)) is True
    (one,) = log(farm)
    assert (one["tries"], one["status_code"]) == (2, 200)


def test_of_many_who_look_at_once_one_takes_a_delivery(farm):
    listen(farm, "http://all/")
    completed(farm)
    found, start = [], threading.Barrier(8)

    def look() -> None:
        start.wait(10)
        found.append(deliveries.claim(farm))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert sum(due is not None for due in found) == 1


def test_a_process_killed_while_it_sends_is_followed_by_another_that_sends_again(
    farm, receiver, eventually
):
    listen(farm, receiver.url)
    completed(farm)
    receiver.go.clear()
    with start_upkeep(farm) as first:
        eventually(lambda: receiver.got, within=30)
        first.kill()  # after it was sent, before an answer could be written down
    let_be_due(farm)
    receiver.go.set()
    with start_upkeep(farm) as second:
        eventually(lambda: log(farm)[0]["delivered_at"], within=30)
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0

    assert len(receiver.got) == 2
    assert len({(got.id, got.body) for got in receiver.got}) == 1
    assert log(farm)[0]["tries"] == 2


@contextmanager
def start_upkeep(farm):
    with subprocess.Popen(
        [sys.executable, "-m", "worker.upkeep"], env=environment(farm.settings), cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()
