"""The shapes of answers: what /openapi.json promises and presenters fill."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

State = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
Json = dict[str, Any]


class Shape(BaseModel):
    """Base of every answer: all keys always present."""

    model_config = ConfigDict(extra="forbid")


class FieldFault(Shape):
    """One thing wrong with one field."""

    param: str
    code: str
    message: str


class ErrorBody(Shape):
    """What happened, why, and what to do; `errors` lists every faulty field."""

    message: str
    type: str
    code: str
    param: str | None
    request_id: str | None
    errors: list[FieldFault]


class ErrorEnvelope(Shape):
    """The body of every answer that is not a success."""

    error: ErrorBody


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
    """Where a waiting video stands."""

    position: int
    ahead_gpu_seconds: None = None
    reason: Literal["waiting_for_group", "no_group_for_model", "retry_backoff"]


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
    provenance: None = None
    log: None = None


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
    batch_id: None = None
    promoted_from_video_id: None = None
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


class VideoDeleted(Shape):
    """A video that is gone."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class EventPage(Shape):
    """A page of a video's ledger; each event has id, type, video_id, at, attempt and its own."""

    object: Literal["list"] = "list"
    data: list[Json]
    last_id: int | None
    has_more: bool


class ModelCard(Shape):
    """A model: `defaults` and `limits` are what the request check reads."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["wanfarm"] = "wanfarm"
    aliases: list[str]
    task_type: str
    experts: int
    groups: list[str]
    warm: bool
    default: bool
    defaults: Json
    limits: Json
    cache_policies: list[str]


class ModelList(Shape):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class LoraExpert(Shape):
    """One file of an adapter; `sha256` is null until the adapter was looked at by itself."""

    sha256: str | None
    rank: int | None


class LoraObject(Shape):
    """An adapter; `experts` has `high` and/or `low`, or `single`, which serves every expert."""

    name: str
    object: Literal["lora"] = "lora"
    family: str | None
    title: str | None
    trigger: str | None
    distilled: bool
    source: str | None
    experts: dict[Literal["high", "low", "single"], LoraExpert]
    bytes: int
    created_at: int


class LoraList(Shape):
    """All adapters."""

    object: Literal["list"] = "list"
    data: list[LoraObject]


class GroupObject(Shape):
    """A GPU group as its parent last told it."""

    name: str
    object: Literal["group"] = "group"
    state: str
    ranks: int
    device: str
    models: list[str]
    model: str | None
    video_id: str | None
    gpus: list[Json]
    software: Json
    problem: str | None
    drain: str | None
    drain_reason: str | None
    started_at: int
    last_heartbeat_at: int


class GroupList(Shape):
    """All groups of the last day."""

    object: Literal["list"] = "list"
    data: list[GroupObject]


class PauseObject(Shape):
    """A door of the queue that is closed."""

    what: str
    reason: str | None
    by: str
    at: int


class QueueObject(Shape):
    """What waits and runs: for this tenant, or for an admin's whole farm."""

    object: Literal["queue"] = "queue"
    counts: dict[str, int]
    oldest_queued_s: float | None
    run_p50_s: float | None
    run_p95_s: float | None
    limits: dict[str, int]
    paused: list[PauseObject]


class KeyObject(Shape):
    """An API key, without its secret."""

    id: str
    object: Literal["key"] = "key"
    name: str
    tenant: str
    scope: Literal["read", "submit", "admin"]
    created_at: int | None
    last_used_at: int | None
    expires_at: int | None
    revoked_at: int | None


class KeyCreated(KeyObject):
    """A new key with its secret, which is shown this once."""

    key: str


class KeyList(Shape):
    """All keys, newest first."""

    object: Literal["list"] = "list"
    data: list[KeyObject]


class Readiness(Shape):
    """Which of the farm's parts answer."""

    status: Literal["ok", "degraded"]
    checks: dict[str, str]
