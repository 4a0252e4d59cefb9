"""The rows. They are the domain objects: each column's comment says who sets it."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.vocabulary.states import MOVES, VideoState

_ID = String(40, collation="C")  # byte order = order of creation
_IN_PROGRESS = "state = 'in_progress'"
_QUEUED = "state = 'queued'"
_FINAL = ", ".join(f"'{state}'" for state in MOVES if state.is_final)


class Base(DeclarativeBase):
    """One metadata for all tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[dict[str, Any]]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
    }


class Tenant(Base):
    """A party that owns videos."""

    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    share: Mapped[float] = mapped_column(default=0.0, server_default="0")  # charged / weight
    weight: Mapped[float] = mapped_column(default=1.0, server_default="1")
    used_s: Mapped[float] = mapped_column(default=0.0, server_default="0")  # GPU-seconds, in all
    purged_s: Mapped[float] = mapped_column(default=0.0, server_default="0")  # of removed videos
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    webhook_secret: Mapped[str | None] = mapped_column(String(64))  # made when first asked for
    former_secret: Mapped[str | None] = mapped_column(String(64))  # by rotate; signs too, until
    former_until: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("weight > 0", name="weight_positive"),)


class ApiKey(Base):
    """A bearer key; only the hash of its secret is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(8, collation="C"), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name"))
    name: Mapped[str] = mapped_column(String(64))
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(String(8))  # read < submit < admin
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]  # set by verify, at most once a minute
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    limits: Mapped[dict[str, Any]] = mapped_column(server_default="{}")  # KeyLimits that are set
    used_day: Mapped[date | None]  # UTC; with the GPU-seconds that its videos took then
    used_s: Mapped[float] = mapped_column(default=0.0, server_default="0")


class LoginToken(Base):
    """A one-time login link for a key; spent by POST."""

    __tablename__ = "login_tokens"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Video(Base):
    """What was asked and where it stands. Only `lifecycle.move` sets `state`."""

    __tablename__ = "videos"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name"))
    key_id: Mapped[str] = mapped_column(String(8))
    key_name: Mapped[str] = mapped_column(String(64))  # as it was called when the video was made
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(default=0)  # the fence; +1 by claim
    seq: Mapped[int] = mapped_column(default=1)  # number of the newest event; +1 by every write
    attempts_left: Mapped[int]  # -1 by claim, given back by drain and loss

    model: Mapped[str] = mapped_column(String(64))
    spec: Mapped[dict[str, Any]]  # GenerationSpec, complete; never changes
    asked: Mapped[list[str]]  # names of the fields that the caller sent
    tokens: Mapped[int]
    image_sha256: Mapped[str | None] = mapped_column(String(64))
    priority: Mapped[int] = mapped_column(default=0)
    group_wanted: Mapped[str | None] = mapped_column(String(32))
    user_name: Mapped[str | None] = mapped_column("user", String(128))
    meta: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    remixed_from: Mapped[str | None] = mapped_column(_ID)
    promoted_from: Mapped[str | None] = mapped_column(_ID)
    batch_id: Mapped[str | None] = mapped_column(_ID, ForeignKey("batches.id"))
    webhook_url: Mapped[str | None] = mapped_column(String(2048))  # told of its end

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    run_after: Mapped[datetime] = mapped_column(server_default=func.now())  # back-off, by requeue
    start_by: Mapped[datetime | None]  # by submit
    finish_by: Mapped[datetime | None]  # by submit
    started_at: Mapped[datetime | None]  # by the newest claim
    completed_at: Mapped[datetime | None]  # by the move to a final state
    expires_in_s: Mapped[int]
    expires_at: Mapped[datetime | None]  # by complete
    lease_until: Mapped[datetime | None]  # by claim, report and renew; None unless in_progress
    group_name: Mapped[str | None] = mapped_column(String(32))  # by claim
    cancel_requested_at: Mapped[datetime | None]
    cancelled_by: Mapped[str | None] = mapped_column(String(300))  # who asked, and why
    delete_requested_at: Mapped[datetime | None]

    progress: Mapped[int] = mapped_column(default=0)  # 0..100, by report and complete
    detail: Mapped[dict[str, Any] | None]  # phase and step, by report
    checkpoint: Mapped[dict[str, Any] | None]  # saved latents to go on from, by keep
    result: Mapped[dict[str, Any] | None]  # by complete
    error: Mapped[dict[str, Any] | None]  # by fail and cancel

    __table_args__ = (
        CheckConstraint(f"({_IN_PROGRESS}) = (lease_until IS NOT NULL)", name="lease_in_progress"),
        CheckConstraint(f"(state IN ({_FINAL})) = (completed_at IS NOT NULL)", name="final_ended"),
        CheckConstraint("(state = 'completed') = (result IS NOT NULL)", name="completed_result"),
        Index(
            "videos_claim", "tenant", "model", text("priority DESC"), "id",
            postgresql_where=text(_QUEUED),
        ),
        Index("videos_lease", "lease_until", postgresql_where=text(_IN_PROGRESS)),
        Index(
            "videos_due", text("least(start_by, finish_by)"),
            postgresql_where=text(f"{_QUEUED} AND least(start_by, finish_by) IS NOT NULL"),
        ),
        Index("videos_page", "tenant", text("id DESC")),
        Index("videos_state_page", "tenant", "state", text("id DESC")),
        Index("videos_states", "state", text("id DESC")),
        Index("videos_keys", "key_name", text("id DESC")),
        Index("videos_groups", "group_name", text("id DESC")),
        Index(
            "videos_completed", "completed_at", postgresql_where=text("completed_at IS NOT NULL"),
        ),
        Index(
            "videos_runs", "model", text("completed_at DESC"),
            postgresql_where=text("state = 'completed'"),
        ),
        Index("videos_expires", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
        Index("videos_batch", "batch_id", "id", postgresql_where=text("batch_id IS NOT NULL")),
        Index("videos_image", "image_sha256", postgresql_where=text("image_sha256 IS NOT NULL")),
        Index(
            "videos_delete", "delete_requested_at",
            postgresql_where=text("delete_requested_at IS NOT NULL"),
        ),
        {"postgresql_with": {"fillfactor": "80"}},
    )  # fmt: skip

    @property
    def video_state(self) -> VideoState:
        """The state as a member of the enumeration."""
        return VideoState(self.state)


class Batch(Base):
    """Videos that were asked for together; where it stands is read off them."""

    __tablename__ = "batches"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name"))
    key_name: Mapped[str] = mapped_column(String(64))  # as it was called when the batch was made
    name: Mapped[str | None] = mapped_column(String(200))
    meta: Mapped[dict[str, Any]] = mapped_column("metadata")
    axes: Mapped[dict[str, Any]] = mapped_column(JSON)  # as JSON, which keeps their order
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # what each video differs in
    unfinished: Mapped[int]  # videos that have not ended; -1 by each move to an end
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("batches_page", "tenant", text("id DESC")),)


class Attempt(Base):
    """One try of one group at one video."""

    __tablename__ = "attempts"

    video_id: Mapped[str] = mapped_column(
        _ID, ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    group_name: Mapped[str] = mapped_column(String(32))
    incarnation: Mapped[str] = mapped_column(String(40))  # which life of the parent
    ranks: Mapped[int]
    claimed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]  # by whatever ends the attempt
    outcome: Mapped[str | None] = mapped_column(String(16))  # completed failed cancelled requeued
    kind: Mapped[str | None] = mapped_column(String(24))  # FailureKind
    message: Mapped[str | None]
    plan: Mapped[dict[str, Any] | None]  # by record_plan
    cache: Mapped[dict[str, Any] | None]  # by record_plan: the policies used, and who chose them
    expected: Mapped[dict[str, Any] | None]  # by record_plan: how long it will take, as `Expected`
    report: Mapped[dict[str, Any] | None]
    charged_s: Mapped[float] = mapped_column(default=0.0, server_default="0")  # GPU-seconds

    __table_args__ = (Index("attempts_group", "group_name", text("claimed_at DESC")),)


class Cost(Base):
    """What a model takes."""

    __tablename__ = "costs"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    rate: Mapped[float]  # GPU-seconds per token and step, newest samples first


class Event(Base):
    """One numbered line of a video's ledger; the numbers have no gap."""

    __tablename__ = "events"

    video_id: Mapped[str] = mapped_column(
        _ID, ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    type: Mapped[str] = mapped_column(String(16))  # state phase step warning
    attempt: Mapped[int]
    data: Mapped[dict[str, Any]]

    __table_args__ = (Index("events_at", "at", postgresql_using="brin"),)


class GpuGroup(Base):
    """What a worker parent last said of itself."""

    __tablename__ = "gpu_groups"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    incarnation: Mapped[str] = mapped_column(String(40))
    host: Mapped[str] = mapped_column(String(255))
    ranks: Mapped[int]
    device: Mapped[str] = mapped_column(String(16))
    models: Mapped[list[str]]
    condition: Mapped[str] = mapped_column(String(16))  # GroupState
    warm_model: Mapped[str | None] = mapped_column(String(64))
    warm_since: Mapped[datetime | None]  # by the heartbeat that first told of `warm_model`
    video_id: Mapped[str | None] = mapped_column(_ID)
    devices: Mapped[list[dict[str, Any]]] = mapped_column(default=list)  # per rank, newest reading
    software: Mapped[dict[str, Any]] = mapped_column(default=dict)
    problem: Mapped[str | None]  # why it is not idle or busy
    failure_streak: Mapped[int] = mapped_column(default=0, server_default="0")  # its own
    drain: Mapped[str | None] = mapped_column(String(8))  # finish or requeue, until resumed
    drain_reason: Mapped[str | None] = mapped_column(String(300))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Pause(Base):
    """A door of the queue that somebody has closed."""

    __tablename__ = "pauses"

    what: Mapped[str] = mapped_column(String(8), primary_key=True)  # intake or dispatch
    reason: Mapped[str | None] = mapped_column(String(300))
    by: Mapped[str] = mapped_column(String(64))  # the name of the key
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookEndpoint(Base):
    """An address that wants to be told of its tenant's videos."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name"))
    url: Mapped[str] = mapped_column(String(2048))
    events: Mapped[list[str]]  # of `outbox.EVENTS`, and batch.completed
    description: Mapped[str | None] = mapped_column(String(300))
    enabled: Mapped[bool] = mapped_column(default=True, server_default=true())  # off by a 410 too
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("webhook_endpoints_tenant", "tenant"),)


class WebhookDelivery(Base):
    """One event for one receiver: born with the move it tells of, kept as the log.

    Of a video, of a batch, or of neither: a test.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)  # the event's, the same at every try
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name"))
    type: Mapped[str] = mapped_column(String(24))
    endpoint_id: Mapped[str | None] = mapped_column(  # None: to the `webhook_url` of its video
        _ID, ForeignKey("webhook_endpoints.id", ondelete="CASCADE")
    )
    video_id: Mapped[str | None] = mapped_column(_ID, ForeignKey("videos.id", ondelete="CASCADE"))
    batch_id: Mapped[str | None] = mapped_column(_ID, ForeignKey("batches.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    body: Mapped[str | None] = mapped_column(Text)  # by the first try; never changes
    tries: Mapped[int] = mapped_column(default=0, server_default="0")  # begun ones; the fence
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())  # by claim: its lease
    tried_at: Mapped[datetime | None]  # by claim; what follows is of that try, by record
    status_code: Mapped[int | None]
    latency_ms: Mapped[int | None]
    response_head: Mapped[str | None] = mapped_column(Text)
    problem: Mapped[str | None] = mapped_column(String(300))
    delivered_at: Mapped[datetime | None]
    dead_at: Mapped[datetime | None]  # no try follows, unless somebody asks for one

    __table_args__ = (
        Index(
            "webhook_deliveries_due", "next_at",
            postgresql_where=text("delivered_at IS NULL AND dead_at IS NULL"),
        ),
        Index("webhook_deliveries_page", "tenant", text("id DESC")),
        Index("webhook_deliveries_endpoint", "endpoint_id"),
        Index("webhook_deliveries_video", "video_id"),
        Index(
            "webhook_deliveries_batch", "batch_id", postgresql_where=text("batch_id IS NOT NULL")
        ),
        Index("webhook_deliveries_at", "at", postgresql_using="brin"),
    )  # fmt: skip


class File(Base):
    """A picture that was uploaded to be used by many videos; they keep it when this goes."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name"))
    sha256: Mapped[str] = mapped_column(String(64))  # names the stored PNG
    bytes: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    filename: Mapped[str] = mapped_column(String(255))  # as its sender called it first
    purpose: Mapped[str] = mapped_column(String(24))  # as OpenAI's API has it; lists may ask for it
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]  # later again by every upload of the same picture

    __table_args__ = (
        Index("files_picture", "sha256", "tenant", unique=True),
        Index("files_page", "tenant", text("id DESC")),
        Index("files_expires", "expires_at"),
    )


class Audit(Base):
    """One thing that somebody did to the farm, by the statement that did it."""

    __tablename__ = "audit"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    tenant: Mapped[str] = mapped_column(String(64))  # of the key
    key_id: Mapped[str] = mapped_column(String(8))
    key_name: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(24))  # one of `audit.ACTIONS`
    object_id: Mapped[str] = mapped_column(String(64))  # what it was done to
    detail: Mapped[dict[str, Any]]
    request_id: Mapped[str] = mapped_column(String(64))

    __table_args__ = (
        Index("audit_action", "action", text("id DESC")),
        Index("audit_request", "request_id"),
        Index("audit_at", "at", postgresql_using="brin"),
    )


class Idempotency(Base):
    """Which object a client's Idempotency-Key made, and of what request."""

    __tablename__ = "idempotency"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    object_id: Mapped[str] = mapped_column(_ID)
    at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("idempotency_at", "at", postgresql_using="brin"),)
