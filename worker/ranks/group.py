"""The parent's handle on N rank processes: start, ask, watch, stop, kill."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import connection as mp
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from worker.ranks.faults import RankFault, RankStopped
from worker.ranks.messages import (
    FROM_RANK,
    Beat,
    Cancel,
    Done,
    Failed,
    Generate,
    Hello,
    Load,
    Loaded,
    PhaseBegan,
    Probe,
    Probed,
    RankWord,
    Released,
    Saved,
    Step,
    Stop,
    Stopped,
)

_SILENT_S: Final = 15.0  # ranks beat each second from a thread of their own
_STOP_GRACE_S: Final = 10.0  # beyond two steps
_PROBE_S: Final = 60.0
_LEAVE_S: Final = 10.0
_POLL_S: Final = 1.0

Answer = TypeVar("Answer", Loaded, Probed)
Progress = Step | PhaseBegan | Saved
Job = tuple[str, int]  # a video's id and the attempt


@dataclass(frozen=True, slots=True)
class Layout:
    """What a group of ranks is made of, and how long its answers may take (seconds)."""

    ranks: int
    device: str  # "cpu" or "cuda"
    engine: str
    start_s: float
    load_s: float
    hang_s: float
    inherit: tuple[int, ...] = ()  # file descriptors kept open in the ranks: the group's lock
    words: tuple[str, ...] = ()  # more arguments of each rank


@dataclass(slots=True)
class _Rank:
    process: subprocess.Popen[bytes]
    pipe: Connection
    last_word: float  # monotonic
    memory_bytes: int = 0
    hello: Hello | None = None


class RankGroup:
    """N processes that act as one. All methods but `cancel` belong to one thread at a time."""

    def __init__(self, layout: Layout) -> None:
        """Prepare; `start` makes the processes."""
        self._layout = layout
        self._ranks: list[_Rank] = []
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._asked: dict[Job, tuple[JobFailure | None, Cancel]] = {}
        self._closing: dict[Job, Future[Done]] = {}
        self._wake_in, self._wake_out = mp.Pipe(duplex=False)

    @property
    def alive(self) -> bool:
        """Tell whether all processes were started and none has been given up."""
        return bool(self._ranks)

    @property
    def hellos(self) -> list[Hello]:
        """What the ranks said of themselves."""
        return [rank.hello for rank in self._ranks if rank.hello]

    @property
    def memory_bytes(self) -> list[int]:
        """The newest memory reading of each rank."""
        return [rank.memory_bytes for rank in self._ranks]

    def start(self) -> None:
        """Start all processes and hear each one's hello.

        Raises:
            RankFault: when one does not come up in time; all are gone then.
        """
        self.kill()
        self._scratch = tempfile.TemporaryDirectory(prefix="wanfarm-ranks-")
        rendezvous = Path(self._scratch.name) / "rendezvous"
        self._ranks = [self._spawn(rank, rendezvous) for rank in range(self._layout.ranks)]
        deadline = time.monotonic() + self._layout.start_s
        while any(rank.hello is None for rank in self._ranks):
            self._refuse_late(deadline, "The ranks did not all start in time.")
            for index, message in self.receive():
                if isinstance(message, Hello):
                    self._ranks[index].hello = message

    def load(self, command: Load) -> float:
        """Bring a model to all ranks; returns the slowest rank's seconds.

        Raises:
            RankFault: with the rank's own reason.
        """
        late = f"Loading {command.model} took too long."
        loaded = self._all_answer(command, Loaded, self._layout.load_s, late)
        return max(message.seconds for message in loaded)

    def probe(self) -> None:
        """Have all ranks try their devices and each other.

        Raises:
            RankFault: with what is wrong.
        """
        self._all_answer(Probe(), Probed, _PROBE_S, "The ranks did not end their self-test.")

    def _all_answer(
        self, command: Load | Probe, kind: type[Answer], within_s: float, late: str
    ) -> list[Answer]:
        """Tell all ranks, and hear each one's answer."""
        self._tell_all(command.model_dump_json())
        answers: dict[int, Answer] = {}
        deadline = time.monotonic() + within_s
        while len(answers) < self._layout.ranks:
            self._refuse_late(deadline, late)
            answers |= {i: word for i, word in self.receive() if isinstance(word, kind)}
        return [*answers.values()]

    def generate(self, command: Generate, on_progress: Callable[[Progress], None]) -> Future[Done]:
        """Render one video until the devices are free for the next.

        Args:
            command: what to render.
            on_progress: told of each phase and step of this attempt.

        Returns:
            The file, once it is closed: whatever listens to the ranks next will hear of it. Raises
            `RankFault` when it cannot be closed, or the ranks are gone before.

        Raises:
            RankStopped: when `cancel` was called, be it before, and obeyed.
            RankFault: with the reason of a rank, of `cancel`, or of our own watch.
        """
        self._tell_all(command.model_dump_json())
        try:
            _Watch(self, command, on_progress).run()
        finally:
            self._asked.clear()  # what is left came too late for its job
        closing = self._closing[command.video_id, command.attempt] = Future[Done]()
        return closing

    def close_some(self) -> bool:
        """Listen for a moment for files that are being closed; False when there are none.

        Raises:
            RankFault: when a rank is gone.
        """
        if self._closing:
            self.receive()
        return bool(self._closing)

    def cancel(self, job: Job, reason: JobFailure | None = None, *, save: bool = False) -> None:
        """Ask a job to stop before its next forward; any thread may call, also before `generate`.

        Args:
            job: the attempt; one that has left the devices is not stopped any more.
            reason: raised as a fault once the ranks have stopped; None for a plain cancel.
            save: have the latents saved first.
        """
        command = Cancel(video_id=job[0], attempt=job[1], save=save)
        self._asked.setdefault(job, (reason, command))
        self._wake_out.send_bytes(b"!")

    def stop(self) -> None:
        """Let the ranks leave politely, and kill those that do not."""
        if self._ranks:
            self._tell_all(Stop().model_dump_json(), strict=False)
            deadline = time.monotonic() + _LEAVE_S
            for rank in self._ranks:
                try:
                    rank.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    rank.process.kill()
        self.kill()

    def kill(self) -> None:
        """End all processes now; a rank left alone would wait in a collective for ever."""
        for rank in self._ranks:
            rank.process.kill()
        for rank in self._ranks:
            rank.process.wait()
            rank.pipe.close()
        self._ranks = []
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
        message = "The ranks ended before the finished video's file was closed."
        for job in list(self._closing):
            self._closing.pop(job).set_exception(RankFault(JobFailure(FailureKind.LOST, message)))

    def _spawn(self, rank: int, rendezvous: Path) -> _Rank:
        ours, theirs = socket.socketpair()
        layout = self._layout
        device = "cpu" if layout.device == "cpu" else f"cuda:{rank}"
        threads = max(1, (os.cpu_count() or 1) // layout.ranks)
        argv = [sys.executable, "-m", "worker.ranks.child", "--fd", str(theirs.fileno())]
        argv += ["--rank", str(rank), "--ranks", str(layout.ranks), "--rendezvous", str(rendezvous)]
        argv += ["--device", device, "--threads", str(threads), "--engine", layout.engine]
        argv += layout.words
        process = subprocess.Popen(
            argv,
            pass_fds=(theirs.fileno(), *layout.inherit),
            start_new_session=True,  # Ctrl-C in a terminal is the parent's to handle
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
        )
        theirs.close()
        return _Rank(process, Connection(ours.detach()), time.monotonic())

    def tell_first(self, command: Cancel) -> None:
        """Send to rank 0, which brings it to the others' agreement."""
        self._send(0, command.model_dump_json())

    def asked(self, job: Job) -> tuple[JobFailure | None, Cancel] | None:
        """Tell whether a job is to stop, for what reason and how."""
        return self._asked.get(job)

    def _tell_all(self, text: str, *, strict: bool = True) -> None:
        for index in range(len(self._ranks)):
            try:
                self._send(index, text)
            except RankFault:
                if strict:
                    raise
                return

    def _send(self, index: int, text: str) -> None:
        try:
            self._ranks[index].pipe.send_bytes(text.encode())
        except OSError:
            self._bury(index)

    def receive(self) -> list[tuple[int, RankWord]]:
        pipes = {rank.pipe: index for index, rank in enumerate(self._ranks)}
        heard: list[tuple[int, RankWord]] = []
        for ready in mp.wait([*pipes, self._wake_in], timeout=_POLL_S):
            if ready is self._wake_in:
                self._wake_in.recv_bytes()
                continue
            assert isinstance(ready, Connection)
            heard.append((pipes[ready], self._read(pipes[ready])))
        self._refuse_silent()
        return [(index, message) for index, message in heard if not isinstance(message, Beat)]

    def _read(self, index: int) -> RankWord:
        rank = self._ranks[index]
        try:
            content = rank.pipe.recv_bytes()
        except (EOFError, OSError):
            self._bury(index)
        message = FROM_RANK.validate_json(content)
        rank.last_word = time.monotonic()
        if isinstance(message, Beat):
            rank.memory_bytes = message.memory_bytes
        if isinstance(message, Done):
            self._closed(message).set_result(message)
        if isinstance(message, Failed):
            self._fail(message)
        return message

    def _closed(self, message: Done | Failed) -> Future[Done]:
        """Give what waits for a file; nothing does, when the attempt ended otherwise."""
        job = (message.video_id or "", message.attempt or 0)
        return self._closing.pop(job, None) or Future[Done]()

    def _bury(self, index: int) -> NoReturn:
        """A rank is gone: say how, and end the others."""
        try:
            code = self._ranks[index].process.wait(1)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        died = JobFailure(FailureKind.RANK_DIED, f"Rank {index} died ({_death(code)}).")
        raise RankFault(died, rank=index)

    def _refuse_silent(self) -> None:
        for index, rank in enumerate(self._ranks):
            if rank.hello and time.monotonic() - rank.last_word > _SILENT_S:
                self.kill()
                message = f"Rank {index} was silent for {_SILENT_S:.0f} s."
                raise RankFault(JobFailure(FailureKind.HANG, message), rank=index)

    def _refuse_late(self, deadline: float, message: str) -> None:
        if time.monotonic() > deadline:
            self.kill()
            raise RankFault(JobFailure(FailureKind.HANG, message))

    def _fail(self, message: Failed) -> None:
        fault = RankFault(JobFailure(message.kind, message.message), message.trace, message.rank)
        if message.video_id is not None:
            self._closed(message).set_exception(fault)
            return
        # A rank that fails alone leaves the others waiting in a collective.
        if message.kind.poisons_group or self._layout.ranks > 1:
            self.kill()
        raise fault

    @property
    def hang_s(self) -> float:
        """Longest silence of a busy group about its work, in seconds."""
        return self._layout.hang_s


class _Watch:
    """One `generate` from the parent's side: passes progress on, carries cancels, sees hangs."""

    def __init__(
        self, group: RankGroup, command: Generate, on_progress: Callable[[Progress], None]
    ) -> None:
        self._group = group
        self._command = command
        self._on_progress = on_progress
        self._last_step_s = 0.0
        self._worked_at = time.monotonic()
        self._stop_by: float | None = None
        self._reason: JobFailure | None = None

    def run(self) -> None:
        """Wait until the devices are free."""
        while True:
            self._carry_cancel()
            if any(self._hear(message) for _, message in self._group.receive()):
                return  # nothing of this job comes after it but its file
            self._refuse_hang()

    def _hear(self, message: RankWord) -> bool:
        match message:
            case Step() | PhaseBegan() | Saved() if self._is_ours(message):
                self._worked_at = time.monotonic()
                if isinstance(message, Step):
                    self._last_step_s = message.seconds
                self._on_progress(message)
            case Released() if self._is_ours(message):
                return True
            case Stopped() if self._is_ours(message):
                if self._reason is not None:
                    raise RankFault(self._reason)
                raise RankStopped(message.step)
            case _:
                pass  # a late word of an earlier attempt
        return False

    def _is_ours(self, message: Progress | Released | Stopped) -> bool:
        mine = (self._command.video_id, self._command.attempt)
        return (message.video_id, message.attempt) == mine

    def _carry_cancel(self) -> None:
        asked = self._group.asked((self._command.video_id, self._command.attempt))
        if asked is not None and self._stop_by is None:
            self._reason, cancel = asked
            self._stop_by = time.monotonic() + 2 * self._last_step_s + _STOP_GRACE_S
            self._group.tell_first(cancel)

    def _refuse_hang(self) -> None:
        now = time.monotonic()
        if self._stop_by is not None and now > self._stop_by:
            self._group.kill()
            if self._reason is not None:
                raise RankFault(self._reason)
            raise RankStopped(0)
        if now - self._worked_at > self._group.hang_s:
            self._group.kill()
            message = f"No step was finished for {self._group.hang_s:.0f} s."
            raise RankFault(JobFailure(FailureKind.HANG, message))


def _death(code: int | None) -> str:
    if code is None:
        return "connection lost"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
