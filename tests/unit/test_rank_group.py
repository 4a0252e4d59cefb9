"""A parent's handle on real rank processes: what it hears, what it survives, what it ends."""

import fcntl
import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from shared.vocabulary.errors import JobFailure
from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import FailureKind, GenerationSpec
from tests.farm.conftest import is_alive
from worker.ranks.faults import RankFault, RankStopped
from worker.ranks.group import Layout, RankGroup
from worker.ranks.messages import Done, Generate, Load, PhaseBegan, Step

MODEL = "wan-tiny-t2v"
FAKE = "tests.engine.fake:Engine"
FIRST = ("video_1", 1)
DEADLINE = JobFailure(FailureKind.DEADLINE, "The deadline to finish has passed.")


@pytest.fixture
def make():
    """Groups of the fake engine; `make(ranks, start_s=...)` starts one."""
    made = []

    def start(ranks: int = 1, engine: str = FAKE, *, start: bool = True, **changes) -> RankGroup:
        waits = {"start_s": 30, "load_s": 10, "hang_s": 10} | changes
        group = RankGroup(Layout(ranks=ranks, device="cpu", engine=engine, **waits))
        made.append(group)
        if start:
            group.start()
        return group

    yield start
    for group in made:
        group.kill()


def job(tmp_path: Path, prompt: str = "a ball", steps: int = 2, attempt: int = 1) -> Generate:
    spec = GenerationSpec(
        model=MODEL, prompt=prompt, width=64, height=64, frames=5, steps=steps, seed=1
    )
    out = str(tmp_path / "out.mp4")
    return Generate(
        video_id="video_1", attempt=attempt, spec=spec, plan=ParallelPlan(ranks=1), out=out
    )


def load(directory: Path, ranks: int = 1) -> Load:
    return Load(model=MODEL, directory=str(directory), plan=ParallelPlan(ranks=ranks))


def deaf(_message) -> None:
    """Hear progress and make nothing of it."""


def render(group: RankGroup, command: Generate, hear=deaf) -> Done:
    """A job until its file is closed."""
    closing = group.generate(command, hear)
    while group.close_some():
        pass
    return closing.result(0)


def pids(group: RankGroup) -> list[int]:
    return [hello.pid for hello in group.hellos]


def when_it_runs(act):
    """A listener that acts once, at the first step."""
    done = []

    def hear(message) -> None:
        if isinstance(message, Step) and not done:
            done.append(message)
            act()

    return hear


@pytest.mark.parametrize("ranks", [1, 3])
def test_every_rank_says_hello_as_a_process_of_its_own(make, ranks):
    group = make(ranks)

    assert group.alive
    assert [hello.rank for hello in group.hellos] == list(range(ranks))
    assert len({os.getpid(), *pids(group)}) == ranks + 1


def test_a_model_is_loaded_on_all_ranks(make, tmp_path):
    assert make(2).load(load(tmp_path, 2)) >= 0


@pytest.mark.parametrize(("ranks", "alive"), [(1, True), (2, False)])
def test_a_bad_checkpoint_is_told_in_the_engines_words(make, tmp_path, ranks, alive):
    group = make(ranks)

    with pytest.raises(RankFault) as fault:
        group.load(load(tmp_path / "nowhere", ranks))

    assert fault.value.failure == JobFailure(
        FailureKind.BAD_CHECKPOINT, "There is no such checkpoint."
    )
    assert not fault.value.trace
    assert group.alive is alive  # several ranks might be waiting for the one that failed


def test_a_job_is_told_from_its_first_phase_to_its_file(make, tmp_path):
    group, told = make(), []

    done = render(group, job(tmp_path, steps=3), told.append)

    assert [type(message) for message in told] == [PhaseBegan, Step, Step, Step]
    assert [message.step for message in told[1:]] == [1, 2, 3]
    assert (done.video_id, done.attempt) == ("video_1", 1)
    assert Path(done.file.path).exists()


def test_one_job_follows_another_on_the_same_processes(make, tmp_path):
    group = make(2)
    before = pids(group)

    for attempt in (1, 2, 3):
        assert render(group, job(tmp_path, attempt=attempt)).attempt == attempt

    assert pids(group) == before


def test_a_cancel_from_another_thread_stops_the_job_and_keeps_the_ranks(make, tmp_path):
    group = make()
    cancel = when_it_runs(threading.Thread(target=group.cancel, args=[FIRST]).start)

    with pytest.raises(RankStopped) as stopped:
        group.generate(job(tmp_path, "wait", steps=100), cancel)

    assert 1 <= stopped.value.step < 100
    assert render(group, job(tmp_path, attempt=2)).attempt == 2


def test_a_cancel_for_a_reason_fails_with_it(make, tmp_path):
    group = make()

    with pytest.raises(RankFault) as fault:
        group.generate(
            job(tmp_path, "wait", steps=100), when_it_runs(lambda: group.cancel(FIRST, DEADLINE))
        )

    assert fault.value.failure is DEADLINE
    assert group.alive


def test_a_cancel_that_came_during_the_load_is_not_lost(make, tmp_path):
    group = make()
    group.cancel(FIRST, DEADLINE)
    group.load(load(tmp_path))

    with pytest.raises(RankFault) as fault:
        group.generate(job(tmp_path, "wait", steps=100), deaf)

    assert fault.value.failure is DEADLINE


def test_a_cancel_meant_for_another_job_changes_nothing(make, tmp_path):
    group = make()
    group.cancel(FIRST, DEADLINE)

    assert render(group, job(tmp_path, attempt=2)).attempt == 2


def test_a_job_renders_while_the_file_before_it_is_closed(make, tmp_path):
    group = make(engine="tests.engine.filming:SlowCloser")
    first = group.generate(job(tmp_path, "close when told"), deaf)

    second = render_other(group, tmp_path, first)

    assert (second.attempt, first.result(0).attempt) == (2, 1)


def test_a_file_that_cannot_be_closed_fails_its_own_job_only(make, tmp_path):
    group = make(engine="tests.engine.filming:SlowCloser")
    first = group.generate(job(tmp_path, "fail to close when told"), deaf)

    second = render_other(group, tmp_path, first)

    assert second.attempt == 2
    assert isinstance(first.exception(0), RankFault)
    assert group.alive


def test_a_rank_that_dies_loses_the_job_it_renders_and_the_file_it_closes(make, tmp_path):
    group = make(engine="tests.engine.filming:SlowCloser")
    first = group.generate(job(tmp_path, "close when told"), deaf)

    with pytest.raises(RankFault) as died:
        group.generate(job(tmp_path, "die", attempt=2), deaf)

    assert died.value.failure.kind is FailureKind.RANK_DIED
    assert first.exception(0).failure.kind is FailureKind.LOST


def render_other(group: RankGroup, tmp_path: Path, first: Future[Done]) -> Done:
    """Render a second job while the first one's file is open, then have that closed."""

    def hear(message) -> None:
        if isinstance(message, Step) and message.step == message.steps:
            assert not first.done()
            (tmp_path / "out.mp4.close").touch()

    return render(group, job(tmp_path, attempt=2), hear)


def test_a_job_that_makes_no_step_is_a_hang_and_its_ranks_are_ended(make, tmp_path):
    group = make(2, hang_s=1)
    before = pids(group)

    with pytest.raises(RankFault, match="No step was finished for 1 s") as fault:
        group.generate(job(tmp_path, "hang"), deaf)

    assert fault.value.failure.kind is FailureKind.HANG
    assert not any(is_alive(pid) for pid in before)


@pytest.mark.parametrize(
    ("prompt", "kind", "alive"),
    [
        ("break", FailureKind.INTERNAL, False),
        ("memory", FailureKind.OUT_OF_MEMORY, False),
    ],
)
def test_a_failure_of_a_job_is_told_with_its_kind(make, tmp_path, prompt, kind, alive):
    group = make()

    with pytest.raises(RankFault) as fault:
        group.generate(job(tmp_path, prompt), deaf)

    assert (fault.value.failure.kind, group.alive) == (kind, alive)
    assert "in generate" in fault.value.trace  # it is for the log: nobody foresaw it


def test_a_rank_that_exits_is_told_with_its_status(make, tmp_path):
    with pytest.raises(RankFault, match=r"Rank 0 died \(exit code 9\)\.") as fault:
        make().generate(job(tmp_path, "die"), deaf)

    assert fault.value.failure.kind is FailureKind.RANK_DIED


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_rank_that_a_signal_ends_is_told_with_it_and_takes_the_others_along(make, tmp_path, sent):
    group = make(2)
    before = pids(group)
    kill = when_it_runs(lambda: os.kill(before[1], sent))

    with pytest.raises(RankFault, match=rf"Rank 1 died \({sent.name}\)"):
        group.generate(job(tmp_path, "wait", steps=100), kill)

    assert not group.alive
    assert not any(is_alive(pid) for pid in before)


def test_a_rank_that_died_between_two_jobs_is_noticed_at_the_next(make, tmp_path, eventually):
    group = make()
    (pid,) = pids(group)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_alive(pid))

    with pytest.raises(RankFault, match="died"):
        group.generate(job(tmp_path), deaf)


def test_a_start_in_silence_is_given_up_and_leaves_no_process(make):
    group = make(2, "tests.engine.filming:Silent", start=False, start_s=1)

    with pytest.raises(RankFault, match="did not all start in time") as fault:
        group.start()

    assert fault.value.failure.kind is FailureKind.HANG
    assert not group.alive


def test_an_engine_that_cannot_be_built_says_why(make):
    with pytest.raises(RankFault) as fault:
        make(engine="tests.engine.fake:Missing")

    assert fault.value.failure.kind is FailureKind.INTERNAL


def test_a_dead_group_starts_again_with_new_processes(make, tmp_path):
    group = make()
    before = pids(group)
    with pytest.raises(RankFault):
        group.generate(job(tmp_path, "die"), deaf)

    group.start()

    assert set(pids(group)).isdisjoint(before)
    assert render(group, job(tmp_path, attempt=2)).attempt == 2


def test_ranks_that_are_told_to_stop_are_gone(make):
    group = make(2)
    before = pids(group)

    group.stop()

    assert not group.alive
    assert not any(is_alive(pid) for pid in before)
    group.stop()


def test_the_groups_lock_lives_as_long_as_its_ranks(make, tmp_path):
    path = tmp_path / "g0.lock"
    mine = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(mine, fcntl.LOCK_EX)
    group = make(inherit=(mine,))
    os.close(mine)

    with path.open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        group.kill()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
