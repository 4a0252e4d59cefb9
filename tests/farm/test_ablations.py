"""Each protection switched off: what the other tests promise must break then."""

import random
import signal

import pytest
from sqlalchemy import select

from shared.jobs import lifecycle
from shared.jobs.tick import Ticker
from shared.machinery.farm import open_farm
from shared.machinery.tables import GpuGroup
from shared.vocabulary.errors import StaleAttempt
from tests.farm.conftest import CAMERA, WITNESS, overlaps
from tests.farm.test_faults import LONG, taken_over
from tests.farm.test_lost_answers import killed_before_its_commit
from tests.services.jobs import submit, take
from tests.services.test_invariants import stored

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


def rendered_twice_at_once(house, seed: int) -> bool:
    return any(one[0] == seed for one in overlaps(house.farm.settings.models_dir))


def test_without_the_ranks_own_end_two_groups_render_one_video(house, ticker, eventually):
    seed = random.randrange(2**32)
    stopped = house.start(engine=WITNESS, group="g0", without="the ranks' own end")
    video_id = house.submit(**LONG | {"steps": 100}, seed=seed)
    eventually(lambda: house.step(video_id) > 2, within=60)

    stopped.process.send_signal(signal.SIGSTOP)
    house.start(engine=WITNESS, group="g1")

    eventually(lambda: taken_over(house, video_id), within=60)
    eventually(lambda: rendered_twice_at_once(house, seed), within=30)


def test_without_the_parents_doubt_two_groups_render_one_video(house, postgres, ticker, eventually):
    seed = random.randrange(2**32)
    house.start(engine=WITNESS, group="g0", database_url=postgres.url, without="the parent's doubt")
    video_id = house.submit(**LONG | {"steps": 100}, seed=seed)
    eventually(lambda: house.step(video_id) > 2, within=60)
    house.start(engine=WITNESS, group="g1")

    postgres.tell("away 60")

    eventually(lambda: taken_over(house, video_id), within=60)
    eventually(lambda: rendered_twice_at_once(house, seed), within=30)


def test_without_adoption_a_finished_video_is_rendered_again(
    house, postgres, completes, eventually
):
    video_id = killed_before_its_commit(house, postgres, eventually)

    house.start(engine=CAMERA, without="adoption")

    row = completes(video_id)
    assert (row["attempt"], row["result"]["attempt"]) == (2, 2)
    assert len(house.results(video_id)) == 2


def test_without_the_fence_a_late_attempt_ends_the_video_of_another(farm, monkeypatch):
    def end(farm, fence, new, write, *where):
        return lifecycle.move(farm, fence.video_id, lifecycle.IN_PROGRESS, new, write, *where)

    late = late_attempt(farm)
    with pytest.raises(StaleAttempt):
        lifecycle.complete(farm, late, stored(farm, late), {})

    monkeypatch.setattr(lifecycle, "_end", end)

    lifecycle.complete(farm, late, stored(farm, late), {})


def late_attempt(farm) -> lifecycle.Fence:
    submit(farm)
    late = take(farm).fence
    lifecycle.requeue_uncharged(farm, late, "leaving")
    assert take(farm).fence.attempt == 2
    return late


def test_without_ringing_again_a_video_whose_ring_was_lost_waits(
    house, completes, eventually, settings
):
    """While the group says ten times that it lives and is idle."""
    house.start(engine=CAMERA, idle_look_s=600, tick_s=600)
    completes(house.submit())
    deaf = open_farm(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    house.farm, farm = deaf, house.farm
    video_id = house.submit()
    house.farm = farm
    deaf.close()

    for _ in range(10):
        beat = heartbeat(farm)
        eventually(lambda beat=beat: heartbeat(farm) > beat, within=30)
    assert house.state(video_id) == "queued"

    ticker = Ticker(farm)
    ticker.start()
    completes(video_id)
    ticker.stop()


def heartbeat(farm):
    with farm.db.connect() as db:
        return db.scalar(select(GpuGroup.heartbeat_at))
