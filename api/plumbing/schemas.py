"""The shapes of answers beside the video: what /openapi.json promises and routes fill."""

from typing import Literal

from pydantic import ConfigDict, Field

from shared.vocabulary.limits import KeyLimits
from shared.vocabulary.video import AttemptObject, Json, ResultObject, Shape


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


class VideoProvenance(Shape):
    """How a completed video was made: its request in full, and what its attempt recorded.

    `manifest` holds software, GPU, weights, parallel plan, and the block cache step by step: its
    letters (X computed, c cached), reasons and residual differences per expert and branch.
    """

    id: str
    object: Literal["video.provenance"] = "video.provenance"
    model: str
    prompt: str
    spec: Json
    image_sha256: str | None
    attempts: list[AttemptObject]
    result: ResultObject
    manifest: Json


class VideoDeleted(Shape):
    """A video that is gone."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class BatchDeleted(Shape):
    """A batch that is gone with all its videos."""

    id: str
    object: Literal["batch.deleted"] = "batch.deleted"
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


class LoraDeleted(Shape):
    """An adapter that is gone."""

    name: str
    object: Literal["lora.deleted"] = "lora.deleted"
    deleted: Literal[True] = True


class FileObject(Shape):
    """An uploaded picture; `bytes` and `sha256` are of its clean PNG."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    width: int
    height: int
    sha256: str
    expires_at: int


class FilePage(Shape):
    """A page of files; go on with `after` = `last_id`."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Shape):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class GroupObject(Shape):
    """A GPU group as its parent last told it."""

    name: str
    object: Literal["group"] = "group"
    state: str
    ranks: int
    device: str
    parallel: dict[str, int] | None = Field(
        description="Degrees `cfg`, `ulysses` and `ring` of its newest video; null before one."
    )
    models: list[str]
    model: str | None
    warm_since: int | None
    video_id: str | None
    gpus: list[Json] = Field(
        description="A reading per rank. Load, temperature and power are there where NVML tells."
    )
    software: Json
    problem: str | None
    failure_streak: int = Field(description="Failures in a row that may be its own.")
    jobs_last_hour: int
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


class ModelCounts(Shape):
    """What waits and runs of one model."""

    queued: int
    in_progress: int


class QueueObject(Shape):
    """What waits and runs: for this tenant, or for an admin's whole farm.

    `drains_at` tells when all that waits in the farm is probably rendered; null while nothing
    waits, a door is closed to it, or a model has no group or too few runs to go by.
    """

    object: Literal["queue"] = "queue"
    intake: Literal["open", "paused"]
    dispatch: Literal["open", "paused"]
    counts: dict[str, int]
    by_model: dict[str, ModelCounts]
    oldest_queued_at: int | None
    drains_at: int | None
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
    limits: KeyLimits
    gpu_seconds_today: float


class KeyCreated(KeyObject):
    """A new key with its secret, which is shown this once."""

    key: str


class KeyList(Shape):
    """All keys, newest first."""

    object: Literal["list"] = "list"
    data: list[KeyObject]


class WebhookObject(Shape):
    """An address that is told of its tenant's videos; a 410 from it turns `enabled` off."""

    id: str
    object: Literal["webhook"] = "webhook"
    tenant: str
    url: str
    events: list[str]
    description: str | None
    enabled: bool
    created_at: int


class WebhookList(Shape):
    """All webhooks, newest first."""

    object: Literal["list"] = "list"
    data: list[WebhookObject]


class WebhookDeleted(Shape):
    """A webhook that is gone."""

    id: str
    object: Literal["webhook.deleted"] = "webhook.deleted"
    deleted: Literal[True] = True


class SecretObject(Shape):
    """What signs the tenant's webhooks; `former` signs too, until `former_until`."""

    object: Literal["webhook.secret"] = "webhook.secret"
    secret: str
    former: str | None
    former_until: int | None


class DeliveryObject(Shape):
    """One event for one receiver, and its newest try: `at` to `problem` are of that one.

    While a try is under way it has no status yet; `next_try_at` is when it is given up for lost.
    """

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    id: str
    object: Literal["webhook.delivery"] = "webhook.delivery"
    type: str
    tenant: str
    webhook_id: str | None
    url: str
    video_id: str | None
    batch_id: str | None
    created_at: int
    state: Literal["pending", "delivered", "dead"]
    tries: int = Field(alias="try")
    at: int | None
    status_code: int | None
    latency_ms: int | None
    response_head: str | None
    problem: str | None
    next_try_at: int | None


class DeliveryList(Shape):
    """A page of deliveries; go on with `after` = `last_id`."""

    object: Literal["list"] = "list"
    data: list[DeliveryObject]
    last_id: str | None
    has_more: bool


class AuditEntry(Shape):
    """One deed: which key did what, to which object, in which request."""

    id: str
    object: Literal["audit.entry"] = "audit.entry"
    at: int
    tenant: str
    key_id: str
    key_name: str
    action: str
    object_id: str
    detail: Json
    request_id: str


class AuditList(Shape):
    """A page of deeds; go on with `after` = `last_id`."""

    object: Literal["list"] = "list"
    data: list[AuditEntry]
    last_id: str | None
    has_more: bool


class Readiness(Shape):
    """Which of the farm's parts answer."""

    status: Literal["ok", "degraded"]
    checks: dict[str, str]
