"""Saved latents in the ledger and the store: who may write them, who goes on, when they go."""

import pytest

from shared.jobs import lifecycle, removal, running
from shared.vocabulary.errors import StaleAttempt
from tests.services.jobs import RESULT, claimed, completed, row, submit, take
from worker import upkeep
from worker.engine.result import Decision, Pattern
from worker.progress import Reporter
from worker.ranks.messages import Saved, Step

NAME = "latents.safetensors"


def key_of(fence) -> str:
    return f"{removal.saved_key(fence.video_id, fence.attempt)}/{NAME}"


def save(farm, fence, step: int = 4) -> None:
    """An attempt has saved its latents after a step of eight."""
    farm.storage.put_bytes(b"latents", key_of(fence))
    checkpoint = {"key": key_of(fence), "step": step, "progress": 47}
    running.keep(farm, fence, checkpoint)


def words(fence, *numbers: int):
    """What rank 0 says of steps of a job whose experts change after the third of eight."""
    for number in numbers:
        yield Step(
            video_id=fence.video_id,
            attempt=fence.attempt,
            step=number,
            steps=8,
            expert="high" if number < 4 else "low",
            switch_step=4,
            branches={"cond": Decision(cached=number % 2 == 0), "uncond": Decision()},
            seconds=0.1,
        )


def saved(fence, step: int) -> Saved:
    path = f"/elsewhere/{NAME}"
    return Saved(video_id=fence.video_id, attempt=fence.attempt, step=step, steps=8, path=path)


@pytest.fixture
def next_attempt(farm):
    """Give an attempt's job back, and claim it again."""

    def act(fence):
        lifecycle.requeue_uncharged(farm, fence, "The worker is leaving.")
        return take(farm)

    return act


def test_the_next_attempt_is_told_where_to_go_on_and_begins_at_that_progress(farm, next_attempt):
    fence = claimed(farm).fence
    save(farm, fence)

    second = next_attempt(fence)

    assert (second.checkpoint["key"], second.checkpoint["step"]) == (key_of(fence), 4)
    assert row(farm, fence.video_id)["progress"] == 47


def test_an_attempt_that_saved_nothing_leaves_nothing_to_go_on_from(farm, next_attempt):
    second = next_attempt(claimed(farm).fence)

    assert second.checkpoint is None
    assert row(farm, second.fence.video_id)["progress"] == 0


def test_a_late_attempt_cannot_say_where_to_go_on(farm, next_attempt):
    fence = claimed(farm).fence
    next_attempt(fence)

    with pytest.raises(StaleAttempt):
        save(farm, fence)

    assert row(farm, fence.video_id)["checkpoint"] is None


def test_a_save_is_kept_with_its_progress_also_when_it_is_told_before_its_step(farm):
    fence = claimed(farm).fence
    reporter = Reporter(farm, fence)
    for word in words(fence, 1, 2, 3, 4):
        reporter.hear(word)

    reporter.hear(saved(fence, 5))

    assert row(farm, fence.video_id)["checkpoint"] == {
        "key": key_of(fence),
        "step": 5,
        "progress": 58,
    }


def so_far() -> Pattern:
    """What the steps before some saved latents did."""
    return {"high": {"cond": "XcX", "uncond": "XXX"}}


def test_an_attempt_that_goes_on_adds_to_the_pattern(farm, next_attempt):
    fence = claimed(farm).fence
    save(farm, fence, step=3)
    second = next_attempt(fence)

    reporter = Reporter(farm, second.fence, second.checkpoint, so_far())
    for word in words(second.fence, 4, 5):
        reporter.hear(word)

    assert reporter.pattern == so_far() | {"low": {"cond": "cX", "uncond": "XX"}}


def test_an_attempt_that_could_not_go_on_begins_its_pattern_anew(farm, next_attempt):
    fence = claimed(farm).fence
    save(farm, fence, step=3)
    second = next_attempt(fence)

    reporter = Reporter(farm, second.fence, second.checkpoint, so_far())
    for word in words(second.fence, 1):
        reporter.hear(word)

    assert reporter.pattern == {"high": {"cond": "X", "uncond": "X"}}


def test_a_newer_save_takes_the_place_of_the_one_before(farm, next_attempt):
    fence = claimed(farm).fence
    save(farm, fence)
    second = next_attempt(fence)

    Reporter(farm, second.fence, second.checkpoint).hear(saved(second.fence, 6))

    assert not farm.storage.exists(key_of(fence))
    assert row(farm, fence.video_id)["checkpoint"]["key"] == key_of(second.fence)


def test_upkeep_removes_what_was_saved_of_videos_that_are_over_or_gone(farm):
    over, alive = claimed(farm).fence, claimed(farm).fence
    waiting = submit(farm)
    for fence in (over, alive):
        save(farm, fence)
    for video_id in (waiting, "video_gone"):
        farm.storage.put_bytes(b"latents", f"checkpoints/{video_id}/1/{NAME}")
    lifecycle.complete(farm, over, RESULT, {})

    done = upkeep.round_of_duties(farm, upkeep.DUTIES)

    assert done["checkpoints"] == 2
    assert set(farm.storage.names("checkpoints")) == {alive.video_id, waiting}


def test_a_deleted_video_takes_its_saved_latents_along(farm):
    video_id = completed(farm)
    farm.storage.put_bytes(b"latents", f"checkpoints/{video_id}/1/{NAME}")

    removal.delete(farm, video_id, by="a person")

    assert farm.storage.names("checkpoints") == []
