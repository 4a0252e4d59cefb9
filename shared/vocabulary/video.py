"""The video as the world sees it: in answers, in events and in webhooks."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

State = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
Json = dict[str, Any]


class Shape(BaseModel):
    """Base of every answer: all keys always present."""

    model_config = ConfigDict(extra="forbid")


class JobError(Shape):
    """Why a video failed or was cancelled."""

    code: str
    message: str
    type: Literal["job_error"] = "job_error"
    param: None = None
    retryable: bool
    attempt: int | None


class Warned(Shape):
    """What the sender should know about a request that was taken."""

    code: str
    param: str | None
    message: str


class QueuePlace(Shape):
    """Where a waiting video stands.

    `ahead_gpu_seconds` is what those before it take if they are like it; null while no group takes
    its model, or nothing is known of such a run.
    """

    position: int
    ahead_gpu_seconds: float | None
    reason: Literal["waiting_for_group", "no_group_for_model", "retry_backoff", "dispatch_paused"]


class Eta(Shape):
    """When a video is expected to start and end; absolute, so that a body stays the same.

    8 of 10 runs end between `earliest` and `latest`. `basis` says what that rests on: `measured`,
    runs of just this shape, or the steps of this run; `interpolated`, other runs of its model;
    `prior`, a published figure, before there are any.
    """

    starts_at: int | None
    completes_at: int
    earliest: int
    latest: int
    basis: Literal["measured", "interpolated", "prior"]


class AttemptError(Shape):
    """Why an attempt ended badly."""

    code: str
    message: str


class AttemptObject(Shape):
    """One try of one group."""

    n: int
    group: str
    gpus: int
    started_at: int
    resumed_at_step: None = None
    ended_at: int | None
    outcome: str | None
    error: AttemptError | None


class ResultObject(Shape):
    """The finished file."""

    bytes: int
    sha256: str
    width: int
    height: int
    frames: int
    fps: int
    codec: str


class Urls(Shape):
    """Where the video's other faces are."""

    self: str
    events: str
    cancel: str
    content: str | None
    thumbnail: str | None
    spritesheet: str | None
    provenance: str | None
    log: str


class VideoObject(Shape):
    """A video: what the Videos dialect knows first, then what this farm adds."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: State
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    seconds: str
    size: str
    prompt: str
    remixed_from_video_id: str | None
    error: JobError | None
    url: str | None
    quality: str
    num_outputs: Literal[1] = 1
    fps: int
    num_frames: int
    duration_s: float
    inference_time_s: float | None
    peak_memory_mb: int | None
    spec: Json
    started_at: int | None
    cancel_requested_at: int | None
    priority: int
    key: str
    tenant: str
    batch_id: str | None
    promoted_from_video_id: str | None
    metadata: dict[str, str]
    start_by: int | None
    finish_by: int | None
    warnings: list[Warned]
    queue: QueuePlace | None
    eta: Eta | None
    progress_detail: Json | None
    attempts: list[AttemptObject] | None
    timings: dict[str, float] | None
    gpu_seconds: float | None
    result: ResultObject | None
    provenance: Json | None
    urls: Urls


class VideoPage(Shape):
    """A page of videos; go on with `after` = `last_id`."""

    object: Literal["list"] = "list"
    data: list[VideoObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchItem(Shape):
    """A video of a batch, where it stands, and in what it differs from the others."""

    video_id: str
    status: State
    set: Json


class BatchUrls(Shape):
    """Where the batch's other faces are."""

    self: str
    cancel: str
    videos: str
    sheet: str | None


class BatchObject(Shape):
    """Videos that were asked for together: those of them that were not deleted since.

    `status` is `queued` while all wait and `in_progress` while one is not over; then `completed`
    if one of them is, else `failed` if one of them has, else `cancelled`.
    """

    id: str
    object: Literal["batch"] = "batch"
    name: str | None
    status: State
    total: int
    counts: dict[State, int]
    axes: Json
    items: list[BatchItem]
    created_at: int
    completed_at: int | None
    key: str
    tenant: str
    metadata: dict[str, str]
    urls: BatchUrls


class BatchPage(Shape):
    """A page of batches; go on with `after` = `last_id`."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
