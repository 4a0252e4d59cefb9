"""An engine without torch that does what the prompt of its job says."""

import os
import threading
from pathlib import Path

from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import Phase
from worker.engine.contract import Cancelled, Closing, Hooks, Order, Seat, StepDone
from worker.engine.faults import EngineFault
from worker.engine.result import Decision, Report, VideoFile

NEVER = threading.Event()


def _raise(error: Exception) -> None:
    raise error


TROUBLES = {
    "hang": NEVER.wait,
    "die": lambda: os._exit(9),
    "break": lambda: _raise(ZeroDivisionError()),
    "memory": lambda: _raise(MemoryError()),
    "nan": lambda: _raise(EngineFault(FailureKind.NON_FINITE, "The latents are not finite.")),
}

PAUSES = {"wait": 0.05, "wait longer": 0.2, "wait longest": 0.6}  # seconds a step


class Engine:
    device_name = "fake"
    device_uuid = None
    memory_total_bytes = None

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def memory_bytes(self) -> int:
        return 7

    def load(self, directory: Path, plan: ParallelPlan, build: Build) -> None:
        if not directory.exists():
            raise EngineFault(FailureKind.BAD_CHECKPOINT, "There is no such checkpoint.")

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        spec, out = order.spec, order.out
        TROUBLES.get(spec.prompt, lambda: None)()
        hooks.phase(Phase.DENOISE)
        for step in range(1, spec.steps + 1):
            if hooks.word():
                raise Cancelled(step - 1)
            hooks.step(
                StepDone(step, spec.steps, "high", spec.steps + 1, {"cond": Decision()}, 0.0)
            )
            NEVER.wait(PAUSES.get(spec.prompt, 0))
        if self._seat.rank:
            return None
        out.write_bytes(b"")
        stills = {"thumbnail": str(out), "spritesheet": str(out)}
        file = VideoFile(path=str(out), **stills, width=8, height=8, frames=1, fps=1)
        report = Report(
            phase_seconds={}, switch_step=1, steps=[], peak_memory_bytes=0, latents_sha256=""
        )
        return lambda: (file, report)

    def stand_by(self, plan: ParallelPlan) -> None:
        pass

    def probe(self) -> None:
        pass

    def close(self) -> None:
        pass
