"""Every figure that a farm tells Prometheus: its name, its labels, what it means, who tells it.

A label's values are a closed set, or names that whoever runs the farm has given; what a request
brings is never one of them.
"""

from dataclasses import dataclass
from typing import Final, Literal

from shared.vocabulary.catalog import BUNDLED, MODELS
from shared.vocabulary.errors import JOB_CODES
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import MOVES, GroupState, Phase, VideoState

Kind = Literal["counter", "gauge", "histogram"]
Teller = Literal["api", "worker", "upkeep"]

PREFIX: Final = "wanfarm_"
OTHER: Final = "other"  # what is not in a closed set
NO_CODE: Final = "none"


@dataclass(frozen=True, slots=True)
class Label:
    """A dimension of a metric."""

    name: str
    values: frozenset[str] | None = None  # None: names of groups, GPUs, routes
    about: str = ""  # what it holds, where the set is open or its name is not enough

    def closed(self, value: str) -> str:
        """Keep a value to the set."""
        return value if self.values is None or value in self.values else OTHER


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of series."""

    short: str
    kind: Kind
    about: str
    labels: tuple[Label, ...] = ()
    by: tuple[Teller, ...] = ("api", "worker", "upkeep")
    buckets: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The name on the wire."""
        return PREFIX + self.short

    @property
    def label_names(self) -> list[str]:
        """Its labels, in order."""
        return [label.name for label in self.labels]


def _closed(*values: str) -> frozenset[str]:
    return frozenset(values)


_REQUEST_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_JOB_S: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 14_400)
_PHASE_S: Final = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)
_STEP_S: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
_STORE_S: Final = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600)
_RATIO: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

_MODEL: Final = Label("model", frozenset(MODELS))
_SIZE: Final = Label("size", _closed("480p", "720p", "mini"))
_EXPERT: Final = Label("expert", _closed("high", "low", "single"))
_CACHED: Final = Label(
    "cached", _closed("none", "some", "all"), "how many of a step's branches the cache stood in for"
)
_LIVE: Final = Label("state", _closed(VideoState.QUEUED, VideoState.IN_PROGRESS))
_FINAL: Final = Label("state", _closed(*(state for state in MOVES if state.is_final)))
_CODE: Final = Label(
    "code",
    _closed(NO_CODE, "cancelled", "deadline_missed", *JOB_CODES.values()),
    f"of the video's error; `{NO_CODE}` of a completed one",
)
_OUTCOME: Final = Label(
    "outcome", _closed("completed", "requeued", "drained", "failed", "cancelled")
)
_PHASE: Final = Label("phase", _closed(*Phase))
_REASON: Final = Label("reason", _closed(*FailureKind), "the kind of the fault")
_GROUP: Final = Label("group", about="as `WANFARM_GROUP` names it")
_CONDITION: Final = Label("state", _closed(*GroupState))
_GPU: Final = (
    _GROUP,
    Label("rank", about="its number in the group"),
    Label("gpu", about="the UUID"),
)
_VOLUME: Final = Label(
    "volume", _closed("data", "scratch"), "`WANFARM_DATA_DIR`, or where temporary files are"
)

BUILD: Final = Metric(
    "build_info", "gauge", "Always 1.", (Label("version", about="of wanfarm, as installed"),)
)

HTTP_SECONDS: Final = Metric(
    "http_request_duration_seconds",
    "histogram",
    "From a request's arrival to the head of its answer.",
    (
        Label("method", about="`none` where no route was found"),
        Label("route", about="its pattern, never a path; `none` where none was found"),
        Label("status", about="of the answer"),
    ),
    ("api",),
    _REQUEST_S,
)
STREAMS: Final = Metric(
    "sse_streams", "gauge", "Answers that are held open: streams, and waits.", by=("api",)
)
STREAMS_REFUSED: Final = Metric(
    "sse_refused_total", "counter", "Streams and waits that found no place.", by=("api",)
)

JOBS: Final = Metric("jobs", "gauge", "Videos that wait or run.", (_MODEL, _LIVE), ("api",))
QUEUE_AGE: Final = Metric(
    "queue_oldest_age_seconds",
    "gauge",
    "How long the video that has been due the longest waits; 0 when none does.",
    (_MODEL,),
    ("api",),
)
INTAKE_PAUSED: Final = Metric(
    "intake_paused", "gauge", "1 while new videos are refused.", by=("api",)
)
DISPATCH_PAUSED: Final = Metric(
    "dispatch_paused", "gauge", "1 while no video is started.", by=("api",)
)
SUBMITTED: Final = Metric(
    "jobs_submitted_total", "counter", "Videos taken in by this process.", (_MODEL,), ("api",)
)
FINISHED: Final = Metric(
    "jobs_finished_total",
    "counter",
    "Videos that this process brought to their end.",
    (_MODEL, _FINAL, _CODE),
)
ATTEMPTS: Final = Metric(
    "job_attempts_total", "counter", "Attempts that this process ended.", (_MODEL, _OUTCOME)
)
QUEUE_SECONDS: Final = Metric(
    "job_queue_seconds",
    "histogram",
    "What a video waited for its claim, since it was due.",
    (_MODEL, _SIZE),
    ("worker",),
    _JOB_S,
)
RUN_SECONDS: Final = Metric(
    "job_run_seconds",
    "histogram",
    "What completed videos took from the claim to the end.",
    (_MODEL, _SIZE),
    ("worker",),
    _JOB_S,
)
ETA_WITHIN: Final = Metric(
    "eta_within_range_ratio",
    "gauge",
    "Latest runs that ended between the 10 % and the 90 % of what was expected; 0.8 is meant.",
    by=("api",),
)
ETA_ERROR: Final = Metric(
    "eta_median_error_ratio",
    "gauge",
    "How far they ended from the likely time, as its part.",
    by=("api",),
)

PHASE_SECONDS: Final = Metric(
    "phase_seconds",
    "histogram",
    "What a phase of an attempt took, to the next one.",
    (_MODEL, _PHASE),
    ("worker",),
    _PHASE_S,
)
STEP_SECONDS: Final = Metric(
    "step_seconds",
    "histogram",
    "What a denoising step took on rank 0.",
    (_MODEL, _SIZE, _EXPERT, _CACHED),
    ("worker",),
    _STEP_S,
)
CACHE_RATIO: Final = Metric(
    "cache_skipped_ratio",
    "histogram",
    "Part of an expert's calls that the cache stood in for, per rendered video with a cache.",
    (_MODEL, _EXPERT),
    ("worker",),
    _RATIO,
)

GROUP_STATE: Final = Metric(
    "group_state", "gauge", "1 for the state that a group is in.", (_GROUP, _CONDITION), ("api",)
)
GROUP_AGE: Final = Metric(
    "group_heartbeat_age_seconds", "gauge", "Since a group was heard of.", (_GROUP,), ("api",)
)
GROUP_RESTARTS: Final = Metric(
    "group_restarts_total",
    "counter",
    "Times that a fault ended the ranks of a group, which are then started anew.",
    (_GROUP, _REASON),
    ("worker",),
)
GPU_MEMORY: Final = Metric(
    "gpu_memory_used_bytes", "gauge", "Device memory that a rank holds.", _GPU, ("worker",)
)
GPU_MEMORY_SIZE: Final = Metric(
    "gpu_memory_size_bytes", "gauge", "Device memory in all.", _GPU, ("worker",)
)
GPU_UTILIZATION: Final = Metric(
    "gpu_utilization_ratio", "gauge", "Part of the time that the GPU computed.", _GPU, ("worker",)
)
GPU_POWER: Final = Metric("gpu_power_watts", "gauge", "What it draws.", _GPU, ("worker",))
GPU_TEMPERATURE: Final = Metric("gpu_temperature_celsius", "gauge", "Its heat.", _GPU, ("worker",))

RESCUED: Final = Metric(
    "leases_rescued_total", "counter", "Attempts that this process found lost, and ended."
)
DOORBELLS: Final = Metric(
    "doorbells_total",
    "counter",
    "Rings for idle workers; many by `tick` mean that others are lost.",
    (Label("source", _closed("submit", "requeue", "tick")),),
)
DOORBELLS_LOST: Final = Metric(
    "doorbells_lost_total", "counter", "Rings that Redis did not take; `tick` makes up for them."
)

STORAGE_SECONDS: Final = Metric(
    "storage_seconds",
    "histogram",
    "What the result store took for one file, or to delete a video's.",
    (Label("op", _closed("put", "delete")),),
    buckets=_STORE_S,
)
STORAGE_FREE: Final = Metric(
    "storage_free_bytes", "gauge", "What may still be written.", (_VOLUME,)
)
STORAGE_SIZE: Final = Metric("storage_size_bytes", "gauge", "Room in all.", (_VOLUME,))

DELIVERIES: Final = Metric(
    "webhook_deliveries_total",
    "counter",
    "Tries to deliver a webhook: taken, to be tried again, or given up.",
    (Label("outcome", _closed("delivered", "failed", "dead")),),
    ("upkeep",),
)
DELIVERIES_PENDING: Final = Metric(
    "webhooks_pending", "gauge", "Webhooks neither delivered nor given up.", by=("api",)
)
UPKEEP_AT: Final = Metric(
    "upkeep_last_round_timestamp_seconds",
    "gauge",
    "When this process last did all duties; 0 while another one does them.",
    by=("upkeep",),
)

# How a video can end: the state and the code.
ENDS: Final = (
    (VideoState.COMPLETED, NO_CODE),
    (VideoState.CANCELLED, "cancelled"),
    (VideoState.CANCELLED, "deadline_missed"),
    *((VideoState.FAILED, code) for code in sorted({*JOB_CODES.values()})),
)
METRICS: Final = (
    BUILD,
    JOBS,
    QUEUE_AGE,
    INTAKE_PAUSED,
    DISPATCH_PAUSED,
    SUBMITTED,
    FINISHED,
    ATTEMPTS,
    QUEUE_SECONDS,
    RUN_SECONDS,
    ETA_WITHIN,
    ETA_ERROR,
    PHASE_SECONDS,
    STEP_SECONDS,
    CACHE_RATIO,
    GROUP_STATE,
    GROUP_AGE,
    GROUP_RESTARTS,
    GPU_MEMORY,
    GPU_MEMORY_SIZE,
    GPU_UTILIZATION,
    GPU_POWER,
    GPU_TEMPERATURE,
    HTTP_SECONDS,
    STREAMS,
    STREAMS_REFUSED,
    RESCUED,
    DOORBELLS,
    DOORBELLS_LOST,
    STORAGE_SECONDS,
    STORAGE_FREE,
    STORAGE_SIZE,
    DELIVERIES,
    DELIVERIES_PENDING,
    UPKEEP_AT,
)

_480P: Final = 480 * 832
_720P: Final = frozenset({720 * 1280, 704 * 1280})


def size_of(model: str, width: int | None, height: int | None) -> str:
    """Name the size of a video; a spec that another version has stored may lack it."""
    if model in BUNDLED:
        return "mini"
    area = (width or 0) * (height or 0)
    return "480p" if area == _480P else "720p" if area in _720P else OTHER
