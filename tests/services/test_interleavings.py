"""What comes between the statements of a story: any other story, at every place."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import event, select

from shared.jobs import invariants, lifecycle, removal, running
from shared.machinery.farm import Farm, open_farm
from shared.machinery.tables import Video
from shared.vocabulary.errors import StaleAttempt, WanfarmError
from shared.vocabulary.states import VideoState
from tests.services.jobs import DIED, OFFER, RESULT, let_lease_expire, submit, take


@dataclass
class Scene:
    """One video, the only group that takes it, who holds it, and what was promised to whom."""

    video_id: str
    group: str
    claim: lifecycle.Claim | None = None
    promised: set[str] = field(default_factory=set)

    @property
    def fence(self) -> lifecycle.Fence:
        assert self.claim
        return self.claim.fence


Story = Callable[[Farm, Scene], object]


def is_claimed(farm: Farm, scene: Scene) -> None:
    lifecycle.claim(farm, replace(OFFER, group=scene.group))


def is_cancelled(farm: Farm, scene: Scene) -> None:
    lifecycle.cancel(farm, scene.video_id, by="a person")
    scene.promised.add("cancelled")


def is_deleted(farm: Farm, scene: Scene) -> None:
    removal.delete(farm, scene.video_id, by="a person")
    scene.promised.add("deleted")


def completes(farm: Farm, scene: Scene) -> None:
    lifecycle.complete(farm, scene.fence, RESULT, {})
    scene.promised.add("completed")


def breaks(farm: Farm, scene: Scene) -> None:
    lifecycle.give_back(farm, scene.claim, DIED)


def is_drained(farm: Farm, scene: Scene) -> None:
    lifecycle.requeue_uncharged(farm, scene.fence, "The worker is leaving.")


def renews(farm: Farm, scene: Scene) -> None:
    running.renew(farm, scene.fence)


def is_rescued(farm: Farm, scene: Scene) -> None:
    lifecycle.rescue(farm)


def is_taken_over(farm: Farm, scene: Scene) -> None:
    lifecycle.take_over(farm, scene.group)


def goes_to_another(farm: Farm, scene: Scene) -> None:
    is_taken_over(farm, scene)
    is_claimed(farm, scene)


_numbers = itertools.count()


def waiting(farm: Farm) -> Scene:
    number = next(_numbers)
    alone = {"group": f"g{number}", "key_id": f"k{number}"}
    return Scene(submit(farm, max_attempts=2, **alone), alone["group"])


def held(farm: Farm) -> Scene:
    scene = waiting(farm)
    return replace(scene, claim=take(farm, replace(OFFER, group=scene.group)))


def silent(farm: Farm) -> Scene:
    scene = held(farm)
    let_lease_expire(farm, scene.video_id)
    return scene


ENDS = (completes, breaks, is_drained, is_cancelled, is_deleted, goes_to_another)
CASES = {  # a situation, what is told in it, and what may come between
    waiting: ((is_cancelled, is_deleted), (is_claimed, is_cancelled, is_deleted)),
    held: ((breaks, is_drained, is_cancelled, is_deleted, is_taken_over), ENDS),
    silent: ((is_rescued,), (*ENDS, renews, is_rescued)),
}


@pytest.fixture
def others(settings) -> Iterator[Farm]:
    """The handles of another process."""
    handles = open_farm(settings)
    yield handles
    handles.close()


@contextmanager
def interrupted(farm: Farm, place: int, deed: Callable[[], None]) -> Iterator[list[int]]:
    """Do a deed right before the statement of that number; gives the numbers that were reached."""
    reached: list[int] = []

    def before(*_: object) -> None:
        reached.append(len(reached) + 1)
        if reached[-1] == place:
            deed()

    event.listen(farm.db, "before_cursor_execute", before)
    try:
        yield reached
    finally:
        event.remove(farm.db, "before_cursor_execute", before)


def told(story: Story, farm: Farm, scene: Scene) -> None:
    """Tell a story to its end, or until it hears that another was first."""
    try:
        story(farm, scene)
    except StaleAttempt:
        pass
    except WanfarmError as err:
        if err.code not in {"not_cancellable", "video_not_found"}:
            raise


def broken_promise(farm: Farm, scene: Scene) -> str | None:
    """What a person or a worker was told that did not come true."""
    statement = select(Video.state, Video.cancel_requested_at).where(Video.id == scene.video_id)
    with farm.db.connect() as db:
        row = db.execute(statement).one_or_none()
    if "completed" in scene.promised and row and row.state != "completed":
        return f"completed, and it is {row.state}"
    ends = row is None or VideoState(row.state).is_final or row.state == "in_progress"
    if scene.promised & {"cancelled", "deleted"} and not ends:
        return "cancelled, and it waits for a group"
    return None


@pytest.mark.parametrize("situation", CASES)
def test_whatever_comes_between_its_statements_a_story_keeps_its_promises(farm, others, situation):
    broken = []
    for story, other in itertools.product(*CASES[situation]):
        for place in itertools.count(2):
            scene = situation(farm)
            with interrupted(farm, place, lambda: told(other, others, scene)) as reached:  # noqa: B023
                told(story, farm, scene)
            if what := broken_promise(farm, scene):
                broken.append((story.__name__, other.__name__, place, what))
            if len(reached) < place:
                break

    assert broken == []
    assert list(invariants.broken(farm)) == []
