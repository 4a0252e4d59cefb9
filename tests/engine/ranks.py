"""Real rank processes, spoken to as their parent would."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path

from shared.vocabulary.catalog import MODELS
from shared.vocabulary.plan import Build, ParallelPlan
from worker.ranks import child
from worker.ranks.messages import (
    FROM_RANK,
    Beat,
    Done,
    Failed,
    Generate,
    Hello,
    Load,
    Loaded,
    Stop,
)

REFERENCE = Build()
_SPAWNS = multiprocessing.get_context("spawn")  # a fork of a process that knows CUDA has none
# A server that has imported the engine forks ranks on the CPU: each would spend five seconds on it.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["worker.engine.engine", "worker.ranks.child"])


class Rank:
    """One started child and this end of its socket."""

    def __init__(
        self, rank: int, ranks: int, scratch: Path, *, fake: bool = False, device: str = "cpu"
    ) -> None:
        self.wire, theirs = multiprocessing.Pipe()
        argv = ["--rank", str(rank), "--ranks", str(ranks), "--threads", "1"]
        argv += ["--rendezvous", str(scratch / "rendezvous"), "--device", device]
        argv += ["--engine", "tests.engine.fake:Engine"] if fake else []
        context = _FORKS if device == "cpu" else _SPAWNS
        self._process = context.Process(target=_be, args=(theirs, argv))
        self._process.start()
        theirs.close()
        self.beats = 0

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    def say(self, message) -> None:
        self.wire.send_bytes(message.model_dump_json().encode())

    def hear(self, *kinds, within: float = 60):
        """The next message, or the next of some kinds; beats are only counted."""
        deadline = time.monotonic() + within
        while self.wire.poll(deadline - time.monotonic()):
            message = FROM_RANK.validate_json(self.wire.recv_bytes())
            if isinstance(message, Beat):
                self.beats += 1
            elif not kinds or isinstance(message, kinds):
                return message
        raise TimeoutError(f"no {kinds} within {within} s")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def ended(self, within: float = 10) -> int:
        """Wait for the end; gives the exit status."""
        self._process.join(within)
        assert self._process.exitcode is not None, f"rank {self.pid} still runs"
        return self._process.exitcode

    def end(self) -> None:
        self.wire.close()
        self._process.kill()
        self._process.join(10)


def _be(theirs: Connection, argv: list[str]) -> None:
    wire = os.dup(theirs.fileno())
    theirs.close()
    sys.exit(child.main(["--fd", str(wire), *argv]))


def side_by_side(target: Callable[..., None], each: Iterable[tuple], within: float = 100) -> None:
    """Run a function of a test's module in some processes at once; all must end well."""
    processes = [_FORKS.Process(target=target, args=args) for args in each]
    for process in processes:
        process.start()
    for process in processes:
        process.join(within)
    assert {process.exitcode for process in processes} == {0}


class Group:
    """Ranks that act as one and hold one model at a time; also a sequence of them."""

    def __init__(self, count: int, models: Path, scratch: Path, device: str = "cpu") -> None:
        self._ranks = [
            Rank(number, count, scratch, device=device.format(number)) for number in range(count)
        ]
        self._models = models
        self._held: tuple[str, Build] | None = None
        for rank in self:
            rank.hear(Hello)

    def __getitem__(self, number: int) -> Rank:
        return self._ranks[number]

    def hold(self, model: str, build: Build = REFERENCE) -> None:
        if self._held == (model, build):
            return
        command = load(model, self._models / MODELS[model].directory, ranks=len(self._ranks))
        self.say(command.model_copy(update={"build": build}))
        for rank in self:
            assert isinstance(rank.hear(), Loaded)
        self._held = model, build

    def say(self, command) -> None:
        for rank in self:
            rank.say(command)

    def ask(self, command, *kinds):
        self.say(command)
        return self[0].hear(*(kinds or (Done, Failed)))

    def leave(self) -> None:
        """Ask them to, and see that all of them do."""
        self.say(Stop())
        assert [rank.ended() for rank in self] == [0] * len(self._ranks)

    def end(self) -> None:
        for rank in self:
            rank.end()


def job(spec, plan: ParallelPlan, out: Path, attempt: int = 1) -> Generate:
    return Generate(video_id="video_1", attempt=attempt, spec=spec, plan=plan, out=str(out))


def load(model: str, directory: Path, ranks: int = 1) -> Load:
    return Load(model=model, directory=str(directory), plan=ParallelPlan(ranks=ranks))
