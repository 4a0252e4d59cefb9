"""What was done and not answered, or asked and never arrived: one outcome all the same."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.jobs import invariants, keys
from tests.farm.conftest import CAMERA, House
from tests.farm.test_openai import answers

CLAIM = "INSERT INTO attempts"
COMPLETE = '"codec": "h264"'
ORDER = {"model": "wan-tiny-t2v", "prompt": "lose my answer", "size": "64x64", "frames": 5}


@pytest.fixture(autouse=True)
def ledger(house: House) -> Iterator[None]:
    """Whatever happened, nothing is against the rules."""
    yield
    house.end()
    assert [*invariants.broken(house.farm)] == []


@pytest.fixture
def ask(house: House) -> Callable[[str], dict | int]:
    """Submit the order over HTTP, always with the same key: its video, or the status."""
    _, key = keys.create(house.farm, "lost", "admin")

    def submit(url: str) -> dict | int:
        body = json.dumps(ORDER | {"num_inference_steps": 2}).encode()
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Idempotency-Key": "once",
        }
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/v1/videos", body, headers), timeout=30
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as err:
            return err.code

    return submit


def test_a_submit_whose_commit_was_not_answered_is_one_video_and_starts_without_a_ring(
    house, postgres, ask, completes, eventually
):
    """The API never learns that it was committed, so nobody rings, and then it dies."""
    url = house.serve(database_url=postgres.url, tick_s=600)
    eventually(lambda: answers(url), within=30)

    postgres.tell("lose lose my answer")
    assert ask(url) == 503
    house.workers[-1].kill()
    url = house.serve()
    eventually(lambda: answers(url), within=30)
    house.start(engine=CAMERA, idle_look_s=600)
    told = ask(url)

    assert isinstance(told, dict)
    assert completes(told["id"])["attempt"] == 1


def test_a_claim_that_was_not_answered_is_made_good_by_the_lease(
    house, postgres, ticker, completes
):
    house.start(engine=CAMERA, database_url=postgres.url)
    postgres.tell(f"lose {CLAIM}")
    video_id = house.submit(prompt="wait")

    row = completes(video_id)
    assert [one["kind"] for one in row["attempts"]] == ["lost", None]


def test_a_completion_that_was_not_answered_is_asked_for_again_and_happens_once(
    house, postgres, completes
):
    house.start(engine=CAMERA, database_url=postgres.url)
    postgres.tell(f"lose {COMPLETE}")
    video_id = house.submit(prompt="wait")

    assert completes(video_id)["attempt"] == 1
    assert house.history(video_id) == ["queued", "in_progress", "completed"]


def killed_before_its_commit(house, postgres, eventually) -> str:
    """A video whose file is stored, by a worker that did not live to say so."""
    worker = house.start(engine=CAMERA, database_url=postgres.url)
    postgres.tell(f"hold {COMPLETE}")
    video_id = house.submit(prompt="wait")
    note = Path(house.farm.storage.path(f"videos/{video_id}/1/result.json"))
    eventually(note.exists, within=60)

    worker.kill()
    return video_id


def test_a_worker_that_is_killed_between_its_file_and_its_commit_has_rendered_for_the_next(
    house, postgres, completes, eventually
):
    video_id = killed_before_its_commit(house, postgres, eventually)

    house.start(engine=CAMERA)

    row = completes(video_id)
    assert (row["attempt"], row["result"]["attempt"]) == (2, 1)
    assert len(house.results(video_id)) == 1


def test_a_half_open_connection_to_redis_is_noticed_and_its_ring_repeated(
    house, redis_line, ticker, completes
):
    """Nothing but a ring starts a video here: the worker looks by itself once in ten minutes."""
    house.start(engine=CAMERA, redis_url=redis_line.url, idle_look_s=600)
    completes(house.submit())

    redis_line.tell("freeze")

    completes(house.submit())
