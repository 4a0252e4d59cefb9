"""A rank process: what it answers, how it stops, and that it never outlives its parent."""

import signal

import pytest

from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import FailureKind
from tests.engine.ranks import Rank, job, load
from tests.engine.rendering import ALONE, small
from worker.ranks.messages import (
    Cancel,
    Done,
    Failed,
    Hello,
    Loaded,
    PhaseBegan,
    Released,
    Step,
    Stop,
    Stopped,
)


@pytest.fixture
def rank(tmp_path):
    """A child with the fake engine that has said hello."""
    rank = Rank(0, 1, tmp_path, fake=True)
    rank.hear(Hello)
    yield rank
    rank.end()


def test_a_job_is_told_from_phase_to_done(rank, tmp_path):
    rank.say(load("wan-tiny-t2v", tmp_path))
    rank.say(job(small(steps=2), ALONE, tmp_path / "out.mp4"))

    told = [rank.hear() for _ in range(6)]

    assert [type(message) for message in told] == [
        *(Loaded, PhaseBegan, Step, Step),
        *(Released, Done),
    ]
    assert [m.step for m in told if isinstance(m, Step)] == [1, 2]


def test_it_beats_while_its_engine_hangs(rank, tmp_path):
    rank.say(job(small(prompt="hang"), ALONE, tmp_path / "out.mp4"))

    with pytest.raises(TimeoutError):
        rank.hear(within=2.5)

    assert rank.beats >= 2


def test_a_cancel_stops_the_attempt_it_names(rank, tmp_path):
    rank.say(job(small(prompt="wait", steps=100), ALONE, tmp_path / "out.mp4", attempt=2))
    rank.hear(Step)

    rank.say(Cancel(video_id="video_1", attempt=2))

    assert rank.hear(Stopped).attempt == 2


def test_a_cancel_of_an_earlier_attempt_changes_nothing(rank, tmp_path):
    rank.say(Cancel(video_id="video_1", attempt=1))
    rank.say(job(small(), ALONE, tmp_path / "out.mp4", attempt=2))

    assert rank.hear(Stopped, Done).attempt == 2


def test_a_standing_by_rank_answers_nothing(rank, tmp_path):
    other = Rank(1, 2, tmp_path, fake=True)
    try:
        other.hear(Hello)
        other.say(job(small(), ParallelPlan(ranks=2), tmp_path / "out.mp4"))
        other.say(load("wan-tiny-t2v", tmp_path))
        assert isinstance(other.hear(), Loaded)
    finally:
        other.end()


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [("break", FailureKind.INTERNAL), ("memory", FailureKind.OUT_OF_MEMORY)],
)
def test_an_exception_is_reported_with_its_kind(rank, tmp_path, prompt, kind):
    rank.say(job(small(prompt=prompt), ALONE, tmp_path / "out.mp4"))

    failed = rank.hear(Failed)

    assert failed.kind is kind
    assert "Traceback" in failed.trace
    assert "Traceback" not in failed.message


def test_a_fault_of_the_engine_keeps_its_words(rank, tmp_path):
    rank.say(load("wan-tiny-t2v", tmp_path / "nowhere"))

    failed = rank.hear(Failed)

    assert (failed.kind, failed.message) == (
        FailureKind.BAD_CHECKPOINT,
        "There is no such checkpoint.",
    )


def test_stop_ends_it_with_success(rank):
    rank.say(Stop())

    assert rank.ended() == 0


def test_stop_during_a_job_stops_the_job_first(rank, tmp_path):
    rank.say(job(small(prompt="wait", steps=100), ALONE, tmp_path / "out.mp4"))
    rank.hear(Step)

    rank.say(Stop())

    rank.hear(Stopped)
    assert rank.ended() == 0


@pytest.mark.parametrize("prompt", ["hang", "wait"])
def test_it_ends_when_its_parent_is_gone(rank, tmp_path, prompt):
    rank.say(job(small(prompt=prompt), ALONE, tmp_path / "out.mp4"))
    rank.hear(PhaseBegan) if prompt == "wait" else None

    rank.wire.close()

    assert rank.ended() != 0


def test_the_end_of_the_thread_that_started_it_is_not_the_end_of_its_parent(rank, tmp_path):
    rank.signal(signal.SIGHUP)  # what the kernel sends then
    rank.say(load("wan-tiny-t2v", tmp_path))

    assert rank.hear(Loaded)
