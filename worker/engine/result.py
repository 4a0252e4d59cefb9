"""What one attempt yields; importable without torch."""

from typing import Literal

from pydantic import Field

from shared.vocabulary.spec import Value
from shared.vocabulary.states import Phase

Branch = Literal["cond", "uncond"]
Expert = Literal["high", "low", "single"]


class VideoFile(Value):
    """The finished, closed MP4."""

    path: str
    width: int
    height: int
    frames: int
    fps: int


class Report(Value):
    """What an attempt cost, for the attempt's row and the provenance."""

    phase_seconds: dict[Phase, float]
    switch_step: int
    steps: list[dict[str, float | int | str]]
    peak_memory_bytes: int
    latents_sha256: str  # of the final latents' fp32 bytes: the same job gives the same hash
    warnings: list[str] = Field(default_factory=list)
