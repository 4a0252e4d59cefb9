"""How far the host may run ahead of the device, and when a step counts as done."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from shared.vocabulary.spec import FailureKind
from worker.engine.contract import StepDone
from worker.engine.faults import EngineFault

_NEARLY: Final = 0.75  # of a forward: the next one is queued in what is left of it
_BREATH_S: Final = 0.001

Tell = Callable[[StepDone], None]


class HostPace:
    """Where host and device are one: each step is done when it returns."""

    def __init__(self, tell: Tell) -> None:
        """Take who is told of each step, with its seconds."""
        self._tell = tell
        self._began = 0.0

    def begin(self) -> None:
        """Say that a step begins."""
        self._began = time.monotonic()

    def hold(self) -> None:
        """Wait before a forward; there is nothing to wait for."""

    def launched(self) -> None:
        """Say that a forward has begun."""

    def finish(self, latents: Tensor, done: StepDone) -> None:
        """Say that a step has ended.

        Raises:
            EngineFault: kind `non_finite`.
        """
        _refuse_non_finite(torch.isfinite(latents).all(), done)
        self._tell(dataclasses.replace(done, seconds=time.monotonic() - self._began))

    def drain(self) -> None:
        """Wait for all steps."""


@dataclass(frozen=True, slots=True)
class _Queued:
    done: StepDone
    began: torch.cuda.Event
    ended: torch.cuda.Event
    finite: Tensor  # [] bool in pinned memory, there once `ended` has passed


class DevicePace:
    """Queues each forward while the one before still runs, and a cancel waits for little more.

    Before a forward the host waits until the one before is nearly done, judged by the time of the
    one before that. A step is told, and its latents are looked at, when the device has passed its
    end; on all ranks at the same forward.
    """

    def __init__(self, tell: Tell) -> None:
        """Take who is told of each step, with the device's seconds."""
        self._tell = tell
        self._steps: deque[_Queued] = deque()
        self._ripe = 0  # of these steps, how many have a forward queued behind them
        self._ends: deque[torch.cuda.Event] = deque(maxlen=3)  # of the newest forwards
        self._pause = threading.Event()

    def begin(self) -> None:
        """Say that a step is being queued."""
        self._began = _mark()

    def hold(self) -> None:
        """Wait before a forward.

        Raises:
            EngineFault: kind `non_finite`, when an earlier step left the numbers.
        """
        for _ in range(self._ripe):
            self._end(self._steps.popleft())
        self._ripe = 0
        if len(self._ends) < 3:
            return
        first, second, running = self._ends
        second.synchronize()
        since, patience = time.monotonic(), _NEARLY * first.elapsed_time(second) / 1000
        while not running.query() and time.monotonic() - since < patience:
            self._pause.wait(_BREATH_S)

    def launched(self) -> None:
        """Say that a forward has been queued."""
        self._ends.append(_mark())
        self._ripe = len(self._steps)

    def finish(self, latents: Tensor, done: StepDone) -> None:
        """Say that the rest of a step has been queued."""
        finite = torch.empty((), dtype=torch.bool, pin_memory=True)
        finite.copy_(torch.isfinite(latents).all(), non_blocking=True)
        self._steps.append(_Queued(done, self._began, _mark(), finite))

    def drain(self) -> None:
        """Wait for all steps.

        Raises:
            EngineFault: kind `non_finite`.
        """
        while self._steps:
            self._end(self._steps.popleft())

    def _end(self, step: _Queued) -> None:
        step.ended.synchronize()
        _refuse_non_finite(step.finite, step.done)
        seconds = step.began.elapsed_time(step.ended) / 1000
        self._tell(dataclasses.replace(step.done, seconds=seconds))


def pace_of(device: torch.device, tell: Tell) -> HostPace | DevicePace:
    """Give the pace of a job on a device."""
    return DevicePace(tell) if device.type == "cuda" else HostPace(tell)


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _refuse_non_finite(finite: Tensor, done: StepDone) -> None:
    if not finite:
        raise EngineFault(
            FailureKind.NON_FINITE,
            f"The latents left the numbers at step {done.step}. No video was made. "
            "Try another seed or a lower guidance.",
        )
