"""What a rank process and its engine say to each other; importable without torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import GenerationSpec, Target
from shared.vocabulary.states import Phase
from worker.engine.result import Branch, Decision, Expert, Report, VideoFile


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one rank sits in its group."""

    rank: int
    ranks: int
    rendezvous: Path  # a file that all ranks can see and that no earlier group has used
    device: str  # "cpu" or "cuda:K"
    threads: int  # CPU threads of this rank


@dataclass(frozen=True, slots=True)
class LoraFiles:
    """One adapter of a job, found on this host."""

    name: str
    strength: float
    target: Target
    high: Path | None  # safetensors for the high-noise expert, or for the only one
    low: Path | None


@dataclass(frozen=True, slots=True)
class Order:
    """One job as an engine gets it: what to render, how, from which files, to where."""

    spec: GenerationSpec
    plan: ParallelPlan
    out: Path  # where rank 0 puts the MP4
    image: Path | None = None  # the input image, when the spec has one; read on rank 0
    cache: CachePolicies | None = None  # None computes every step
    loras: tuple[LoraFiles, ...] = ()
    resume: Path | None = None  # latents saved by an earlier attempt
    save_to: Path | None = None  # directory for saved latents
    save_every_s: float = 30.0  # seconds of work between two saves


@dataclass(frozen=True, slots=True)
class StepDone:
    """One denoising step that the device has finished; `step` is 1-based."""

    step: int
    steps: int
    expert: Expert
    switch_step: int  # first step of the low-noise expert, 1-based; steps + 1 when it never comes
    branches: dict[Branch, Decision]
    seconds: float


class Word(IntEnum):
    """What the ranks are to do next; rank 0 has it, all of them agree on it."""

    GO = 0
    CANCEL = 1
    SAVE_AND_STOP = 2  # as CANCEL, with the latents saved first where there is a place for them


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the engine asks and tells during one job.

    `word` is asked on rank 0 only, before every forward and every decoded latent frame. `saved` is
    called on rank 0 only, from a thread of its own. The others are called on every active rank.
    """

    word: Callable[[], Word]
    phase: Callable[[Phase], None]
    step: Callable[[StepDone], None]
    saved: Callable[[int, Path], None] = field(default=lambda _step, _path: None)


# Waits for the file of a video whose pictures have all left the device, and sums it up. It may be
# called from another thread while the engine renders the next job; raises `EngineFault`.
Closing = Callable[[], tuple[VideoFile, Report]]


class Cancelled(Exception):
    """The job was stopped as asked, after so many finished steps; nothing of it is left."""

    def __init__(self, step: int) -> None:
        """Keep the number of finished steps."""
        super().__init__(f"stopped after step {step}")
        self.step = step
