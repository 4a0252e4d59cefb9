"""The shapes of estimates: what would become of a video or a batch."""

from typing import Literal

from shared.vocabulary.video import Json, Shape, Warned


class RunRange(Shape):
    """How long a run takes: 8 of 10 end between the first and the last."""

    p10: float
    p50: float
    p90: float


class VideoEstimate(Shape):
    """What would become of a request if it were sent now; what nobody knows yet is null.

    `fits` names the groups that can render it; `peak_memory_mb` is of one GPU; `cache_gain` is how
    much longer it would take without the block cache; `basis` says what the run time rests on.
    """

    object: Literal["video.estimate"] = "video.estimate"
    model: str
    prompt: str
    spec: Json
    warnings: list[Warned]
    fits: list[str]
    queue_position: int
    starts_at: int | None
    completes_at: int | None
    run_s: RunRange | None
    gpu_seconds: float | None
    peak_memory_mb: int | None
    cache_gain: float | None
    basis: Literal["measured", "interpolated", "prior"] | None


class BatchItemEstimate(VideoEstimate):
    """What would become of one video of a batch; `set` is what it differs in."""

    set: Json


class BatchEstimate(Shape):
    """What would become of a batch if it were sent now, with its sums; the unknown is null."""

    object: Literal["batch.estimate"] = "batch.estimate"
    total: int
    gpu_seconds: float | None
    completes_at: int | None
    data: list[BatchItemEstimate]
