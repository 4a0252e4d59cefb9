"""What one attempt yields; importable without torch."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.spec import Value
from shared.vocabulary.states import Phase

Branch = Literal["cond", "uncond"]
Expert = Literal["high", "low", "single"]
# Why a forward was computed or cached: see worker/engine/cache/rules.py. "" without a cache.
Reason = Literal["", "w", "s", "L", "n", "S", "M", "m", "a", "A", "d", "D"]


class Decision(Value):
    """What the block cache did in one forward."""

    cached: bool = False
    reason: Reason = ""
    diff: float | None = None  # residual difference, where one was measured


Pattern = dict[Expert, dict[Branch, str]]  # a letter a step: X computed, c cached


def extend(pattern: Pattern, expert: Expert, branches: Mapping[Branch, Decision]) -> None:
    """Add a step to a pattern."""
    lanes = pattern.setdefault(expert, {})
    for branch, decision in branches.items():
        lanes[branch] = lanes.get(branch, "") + ("c" if decision.cached else "X")


class VideoFile(Value):
    """The finished, closed MP4, and the still pictures of it."""

    path: str
    thumbnail: str  # WebP: the middle frame
    spritesheet: str  # JPEG: sixteen frames, evenly taken
    width: int
    height: int
    frames: int
    fps: int


class StepRecord(Value):
    """One step as the report keeps it; `step` is 1-based."""

    step: int
    expert: Expert
    seconds: float
    branches: dict[Branch, Decision]


class Report(Value):
    """What an attempt cost, for the attempt's row and the provenance."""

    phase_seconds: dict[Phase, float]
    switch_step: int
    steps: list[StepRecord]
    peak_memory_bytes: int
    latents_sha256: str  # of the final latents' fp32 bytes: the same job gives the same hash
    cache: CachePolicies | None = None  # the policies used
    build: dict[str, str] = Field(default_factory=dict)  # weights, precision, attention: as used
    loras: dict[str, dict[str, str]] = Field(default_factory=dict)  # name: expert: sha256
    resumed_at: int | None = None  # step after which a saved attempt went on
    warnings: list[str] = Field(default_factory=list)
