"""One rank: takes its parent's words over a socket and lets its engine act on them.

Any class can be the engine, named by `--engine module:Class`. It offers

* `Engine(seat: Seat)`: take the device, meet the other ranks;
* `device_name: str`, and None on the CPU: `device_uuid: str | None`, `memory_total_bytes: int |
  None`, `memory_bytes() -> int | None` (device memory in use; called from another thread);
* `load(directory: Path, plan: ParallelPlan, build: Build) -> None`;
* `generate(order: Order, hooks: Hooks) -> Closing | None`, called on the active ranks only: on rank
  0 what closes the file while the next job renders, None on the others; raises `Cancelled` when
  `hooks.word()` said so;
* `stand_by(plan: ParallelPlan) -> None`, called on the other ranks;
* `probe() -> None`: compute something on the device and reach the other ranks;
* `close() -> None`: leave the group.

All of them may raise `EngineFault`; anything else is reported under the kind `fault_of` finds.
"""

import argparse
import ctypes
import gc
import importlib
import importlib.metadata
import os
import resource
import signal
import sys
import threading
import time
import traceback
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from shared.vocabulary.spec import Value
from shared.vocabulary.states import Phase
from worker.engine.contract import (
    Cancelled,
    Closing,
    Hooks,
    LoraFiles,
    Order,
    Seat,
    StepDone,
    Word,
)
from worker.engine.faults import fault_of
from worker.ranks.messages import (
    TO_RANK,
    Beat,
    Cancel,
    Done,
    Failed,
    Generate,
    Hello,
    Load,
    Loaded,
    Lora,
    PhaseBegan,
    Probe,
    Probed,
    Released,
    Saved,
    Step,
    Stop,
    Stopped,
)

BEAT_S: Final = 1.0
ORPHANED: Final = 3  # exit status when the parent is gone
_PR_SET_PDEATHSIG: Final = 1
_SOFTWARE: Final = ("torch", "diffusers", "transformers")


class Wire:
    """The socket to the parent, and what has come over it."""

    def __init__(self, connection: Connection) -> None:
        """Take an open connection; nothing is read before `listen`."""
        self._connection = connection
        self._sending = threading.Lock()
        self._cancel: Cancel | None = None
        self._leaving = False
        self.commands: SimpleQueue[Load | Generate | Probe | Stop] = SimpleQueue()

    def send(self, message: Value) -> None:
        """Tell the parent; without a parent the process ends."""
        try:
            with self._sending:
                self._connection.send_bytes(message.model_dump_json().encode())
        except OSError:
            os._exit(ORPHANED)

    def listen(self) -> None:
        """Read commands until the parent is gone, then end the process at once.

        The thread that computes may be deep in a forward or a collective: only `_exit` is quick.
        """
        try:
            while True:
                self._take(self._connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(ORPHANED)

    def word(self, job: Generate) -> Word:
        """Tell what the parent wants of this attempt."""
        cancel = self._cancel
        if cancel and (cancel.video_id, cancel.attempt) == (job.video_id, job.attempt):
            return Word.SAVE_AND_STOP if cancel.save else Word.CANCEL
        return Word.CANCEL if self._leaving else Word.GO

    def _take(self, data: bytes) -> None:
        message = TO_RANK.validate_json(data)
        if isinstance(message, Cancel):
            self._cancel = message
            return
        self._leaving = isinstance(message, Stop)
        self.commands.put(message)


class Rank:
    """What this process does with each command."""

    def __init__(self, seat: Seat, wire: Wire) -> None:
        """Wait for `serve`."""
        self._seat = seat
        self._wire = wire
        self._engine: Any = None

    def serve(self, engine: str) -> int:
        """Build the engine, then obey until told to stop; returns the exit status."""
        try:
            self._engine = _named(engine)(self._seat)
            self._greet()
        except Exception as error:  # noqa: BLE001 - the outermost loop: the parent must hear of it
            self._report(error)
            return 1
        while not isinstance(command := self._wire.commands.get(), Stop):
            try:
                self._obey(command)
            except Exception as error:  # noqa: BLE001 - the outermost loop: the parent judges it
                self._report(error)
        self._engine.close()
        return 0

    def beat(self) -> None:
        """Say each second that the process lives; runs in a thread of its own."""
        pause = threading.Event()
        while not pause.wait(BEAT_S):
            self._wire.send(Beat(rank=self._seat.rank, memory_bytes=self._memory_bytes()))

    def _greet(self) -> None:
        self._wire.send(
            Hello(
                rank=self._seat.rank,
                pid=os.getpid(),
                device=self._engine.device_name,
                device_uuid=self._engine.device_uuid,
                memory_total_bytes=self._engine.memory_total_bytes,
                software={name: importlib.metadata.version(name) for name in _SOFTWARE},
            )
        )

    def _obey(self, command: Load | Generate | Probe) -> None:
        match command:
            case Probe():
                self._engine.probe()
                self._wire.send(Probed(rank=self._seat.rank))
            case Load():
                began = time.monotonic()
                self._engine.load(Path(command.directory), command.plan, command.build)
                seconds = time.monotonic() - began
                self._wire.send(Loaded(rank=self._seat.rank, model=command.model, seconds=seconds))
            case Generate() if self._seat.rank < command.plan.active:
                self._generate(command)
            case Generate():
                self._engine.stand_by(command.plan)

    def _generate(self, job: Generate) -> None:
        try:
            close = self._engine.generate(_order(job), self._hooks(job))
        except Cancelled as stopped:
            if self._seat.rank == 0:
                self._wire.send(
                    Stopped(video_id=job.video_id, attempt=job.attempt, step=stopped.step)
                )
            return
        if close is not None:
            self._wire.send(Released(video_id=job.video_id, attempt=job.attempt))
            threading.Thread(target=self._close, args=(job, close)).start()

    def _close(self, job: Generate, close: Closing) -> None:
        """Wait for a job's file, in a thread beside the next job."""
        try:
            file, report = close()
        except Exception as error:  # noqa: BLE001 - the outermost loop: the parent must hear of it
            self._report(error, job)
            return
        self._wire.send(Done(video_id=job.video_id, attempt=job.attempt, file=file, report=report))

    def _hooks(self, job: Generate) -> Hooks:
        if self._seat.rank != 0:
            return Hooks(word=lambda: Word.GO, phase=lambda _: None, step=lambda _: None)

        def phase(phase: Phase) -> None:
            self._wire.send(PhaseBegan(video_id=job.video_id, attempt=job.attempt, phase=phase))

        def step(done: StepDone) -> None:
            self._wire.send(
                Step(
                    video_id=job.video_id,
                    attempt=job.attempt,
                    step=done.step,
                    steps=done.steps,
                    expert=done.expert,
                    switch_step=done.switch_step,
                    branches=done.branches,
                    seconds=done.seconds,
                )
            )

        def saved(step: int, path: Path) -> None:
            self._wire.send(
                Saved(
                    video_id=job.video_id,
                    attempt=job.attempt,
                    step=step,
                    steps=job.spec.steps,
                    path=str(path),
                )
            )

        return Hooks(word=lambda: self._wire.word(job), phase=phase, step=step, saved=saved)

    def _report(self, error: Exception, closing: Generate | None = None) -> None:
        fault = fault_of(error)
        foreseen = fault is error
        self._wire.send(
            Failed(
                rank=self._seat.rank,
                kind=fault.kind,
                message=fault.message,
                trace="" if foreseen else "".join(traceback.format_exception(error)),
                video_id=closing and closing.video_id,
                attempt=closing and closing.attempt,
            )
        )

    def _memory_bytes(self) -> int:
        taken = None if self._engine is None else self._engine.memory_bytes()
        return _resident_bytes() if taken is None else taken


def main(argv: list[str] | None = None) -> int:
    """Run one rank as its argv says; returns the exit status."""
    told = _arguments().parse_args(argv)
    _follow_parent()
    wire = Wire(Connection(told.fd))
    seat = Seat(told.rank, told.ranks, told.rendezvous, told.device, told.threads)
    rank = Rank(seat, wire)
    loops = [wire.listen, rank.beat]
    if told.sign:
        loops.append(partial(_follow_sign, told.sign, told.patience))
    for loop in loops:
        threading.Thread(target=loop, daemon=True).start()
    return rank.serve(told.engine)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="worker.ranks.child", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="an inherited socket to the parent")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--rendezvous", type=Path, required=True, help="a file for this start only")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:K")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this rank")
    parser.add_argument("--engine", default="worker.engine.engine:Engine")
    parser.add_argument("--sign", type=Path, help="a file that the parent touches while it lives")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds without a touch")
    return parser


def _order(job: Generate) -> Order:
    return Order(
        spec=job.spec,
        plan=job.plan,
        out=Path(job.out),
        image=_path(job.image),
        cache=job.cache,
        loras=tuple(_files(lora) for lora in job.loras),
        resume=_path(job.resume),
        save_to=_path(job.save_to),
        save_every_s=job.save_every_s,
    )


def _files(lora: Lora) -> LoraFiles:
    ref = lora.ref
    return LoraFiles(ref.name, ref.strength, ref.target, _path(lora.high), _path(lora.low))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _named(engine: str) -> Any:  # noqa: ANN401 - the contract is in this module's docstring
    module, _, name = engine.partition(":")
    gc.disable()  # importing makes only what stays: looking for garbage took a tenth of its time
    imported = importlib.import_module(module)
    gc.freeze()
    gc.enable()
    return getattr(imported, name)


def _follow_parent() -> None:
    """End with the parent, whatever this process is busy with.

    The end of the socket tells it first; the kernel's signal covers a socket that something else
    keeps open. It is not SIGKILL, as the kernel also sends it when only the thread that started
    this process ends.
    """
    parent = os.getppid()

    def check(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(ORPHANED)

    signal.signal(signal.SIGHUP, check)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
        check()


def _follow_sign(sign: Path, patience_s: float) -> None:
    """End when the parent leaves no sign: it was stopped, and somebody else will render this."""
    pause, seen, since = threading.Event(), 0.0, time.monotonic()
    while not pause.wait(BEAT_S):
        touched = sign.stat().st_mtime if sign.exists() else 0.0
        if touched != seen:
            seen, since = touched, time.monotonic()
        elif time.monotonic() - since > patience_s:
            os._exit(ORPHANED)


def _resident_bytes() -> int:
    """Memory of this process now, or at its peak where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
