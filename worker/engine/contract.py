"""What a rank process and its engine say to each other; importable without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.vocabulary.states import Phase
from worker.engine.result import Branch, Expert


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one rank sits in its group."""

    rank: int
    ranks: int
    rendezvous: Path  # a file that all ranks can see and that no earlier group has used
    device: str  # "cpu" or "cuda:K"
    threads: int  # CPU threads of this rank


@dataclass(frozen=True, slots=True)
class StepDone:
    """One denoising step that the device has finished; `step` is 1-based."""

    step: int
    steps: int
    expert: Expert
    switch_step: int  # first step of the low-noise expert, 1-based; steps + 1 when it never comes
    branches: tuple[Branch, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the engine asks and tells during one job.

    `cancelled` is asked on rank 0 only, before every forward and every decoded latent frame. The
    other two are called on every active rank.
    """

    cancelled: Callable[[], bool]
    phase: Callable[[Phase], None]
    step: Callable[[StepDone], None]


class Cancelled(Exception):
    """The job was stopped as asked, after so many finished steps; nothing of it is left."""

    def __init__(self, step: int) -> None:
        """Keep the number of finished steps."""
        super().__init__(f"stopped after step {step}")
        self.step = step
