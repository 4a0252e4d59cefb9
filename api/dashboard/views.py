"""From rows to what templates show: badges, lines of lists, cards of groups."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from api.dashboard.words import DASH, duration, now
from shared.jobs.ledger import Values
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.states import GroupState, Phase, VideoState

_STATE_CLASSES: Final = {
    VideoState.QUEUED: "queued",
    VideoState.IN_PROGRESS: "run",
    VideoState.COMPLETED: "ok",
    VideoState.FAILED: "bad",
    VideoState.CANCELLED: "cancel",
}
_GROUP_CLASSES: Final = {
    GroupState.STARTING: "queued",
    GroupState.LOADING: "queued",
    GroupState.IDLE: "quiet",
    GroupState.BUSY: "run",
    GroupState.DRAINING: "warn",
    GroupState.DRAINED: "warn",
    GroupState.DOWN: "bad",
}
PHASE_WORDS: Final = {
    Phase.LOAD: "load model",
    Phase.TEXT_ENCODE: "text encode",
    Phase.IMAGE_ENCODE: "image encode",
    Phase.DENOISE: "denoise",
    Phase.DECODE: "decode",
    Phase.ENCODE: "encode mp4",
    Phase.STORE: "store",
}
_TAIL_RATIO: Final = 0.12  # of the denoising time: decode, encode and store
_SURE_STEPS: Final = 3  # before that a rate is a guess


@dataclass(frozen=True, slots=True)
class Badge:
    """A state as it is shown: colour never stands alone."""

    word: str
    glyph: str
    tone: str


def badge(state: str) -> Badge:
    """Dress a video's state."""
    known = VideoState(state)
    return Badge(known.word, known.glyph, _STATE_CLASSES[known])


def group_badge(state: GroupState) -> Badge:
    """Dress a group's state."""
    return Badge(state.value, state.glyph, _GROUP_CLASSES[state])


@dataclass(frozen=True, slots=True)
class Line:
    """A video in a list."""

    id: str
    prompt: str
    spec: str
    seed: int
    varied: str  # in which settings it differs from the others of its batch, where that is shown
    badge: Badge
    group: str | None
    progress: int | None  # None: nothing to draw
    doing: str  # phase and step while it runs
    note: str  # time left, time taken, or what went wrong
    poster: str | None
    created_at: datetime
    is_live: bool
    is_draft: bool


def line(row: Values, varied: str = "") -> Line:
    """Shorten a row to one line of a list."""
    state = VideoState(row["state"])
    running = state is VideoState.IN_PROGRESS
    return Line(
        id=row["id"],
        prompt=" ".join(row["spec"]["prompt"].split()),
        spec=spec_words(row),
        seed=row["spec"]["seed"],
        varied=varied,
        badge=badge(state),
        group=row["group_name"],
        progress=row["progress"] if running else None,
        doing=doing(row) if running else "",
        note=note(row),
        poster=poster_url(row),
        created_at=row["created_at"],
        is_live=not state.is_final,
        is_draft=is_draft(row),
    )


def is_draft(row: Values) -> bool:
    """Tell whether a video is finished with fewer steps than its model is meant to take."""
    return (
        row["state"] == VideoState.COMPLETED and row["spec"]["steps"] < MODELS[row["model"]].steps
    )


def spec_words(row: Values) -> str:
    """Say in a few words what is rendered."""
    spec = row["spec"]
    kind = MODELS[row["model"]].task.lower()
    return f"{kind} · {spec['width']}×{spec['height']} · {spec['frames']}f · {spec['steps']} steps"  # noqa: RUF001


def detail_of(row: Values) -> Values:
    """What the running attempt last told of itself; empty before it did."""
    detail: Values | None = row["detail"]
    return detail or {}


def doing(row: Values) -> str:
    """Say what a running video is busy with."""
    detail = detail_of(row)
    if "phase" not in detail:
        return "starting"
    phase = Phase(detail["phase"])
    if phase is Phase.DENOISE and "step" in detail:
        return f"denoise {detail['step']}/{detail['steps']}"
    return PHASE_WORDS[phase]


def note(row: Values) -> str:
    """Say the one thing about time or trouble that fits a list."""
    state = VideoState(row["state"])
    if state is VideoState.IN_PROGRESS:
        return "cancelling" if row["cancel_requested_at"] else remaining_words(row)
    if state is VideoState.QUEUED:
        return waiting_words(row)
    if state is VideoState.COMPLETED:
        return f"took {duration(took_s(row))}"
    if state is VideoState.CANCELLED:
        return f"by {row['cancelled_by']}" if row["cancelled_by"] else _code(row)
    return _code(row)


def waiting_words(row: Values) -> str:
    """Say why a video waits: its turn, or the pause after a failed attempt."""
    pause = (row["run_after"] - now()).total_seconds()
    if row["attempt"] and pause > 0:
        return f"attempt {row['attempt'] + 1} in {duration(pause)}"
    return f"waits {duration((now() - row['created_at']).total_seconds())}"


def took_s(row: Values) -> float | None:
    """How long the last attempt ran."""
    if row["started_at"] is None:
        return None
    return ((row["completed_at"] or now()) - row["started_at"]).total_seconds()


@dataclass(frozen=True, slots=True)
class Remaining:
    """An estimate of the time left, as a range."""

    least_s: float
    likely_s: float
    most_s: float


def remaining(row: Values) -> Remaining | None:
    """Extrapolate from the steps of this very run; None before there are enough of them."""
    detail = detail_of(row)
    step, steps = detail.get("step", 0), detail.get("steps", 0)
    if row["started_at"] is None or step < _SURE_STEPS:
        return None
    if detail["phase"] != Phase.DENOISE.value:
        return None
    per_step = detail["step_s"]
    likely = per_step * (steps - step) + per_step * steps * _TAIL_RATIO
    return Remaining(0.85 * likely, likely, 1.25 * likely)


def remaining_words(row: Values) -> str:
    """Say how long a running video still takes."""
    left = remaining(row)
    if left is not None:
        return f"~{duration(left.likely_s)} left"
    detail = detail_of(row)
    return "finishing" if is_past_denoising(detail) else "estimating"


def is_past_denoising(detail: Values) -> bool:
    """Tell whether only decoding and what follows is left."""
    return bool(detail.get("step")) and detail["phase"] != Phase.DENOISE.value


def poster_url(row: Values) -> str | None:
    """Where the thumbnail of a finished video is; None without one."""
    result: Values | None = row["result"]
    if not result or result.get("expired"):
        return None
    return f"/v1/videos/{row['id']}/content?variant=thumbnail"


@dataclass(frozen=True, slots=True)
class Device:
    """One rank of a group as its parent last saw it."""

    name: str
    model: str
    pid: int | None
    used_bytes: int | None
    total_bytes: int | None
    load_ratio: float | None
    temperature_c: float | None
    power_w: float | None


@dataclass(frozen=True, slots=True)
class GroupCard:
    """A group among others."""

    name: str
    badge: Badge
    host: str
    layout: str
    warm_model: str | None
    since: datetime
    heard_at: datetime
    devices: list[Device]
    problem: str | None
    job: Line | None


def group_card(group: Values, jobs: dict[str, Values]) -> GroupCard:
    """Dress a group and the job that it runs."""
    kind = "GPU" if group["device"] == "cuda" else "CPU rank"
    plural = "" if group["ranks"] == 1 else "s"
    job = jobs.get(group["video_id"] or "")
    return GroupCard(
        name=group["name"],
        badge=group_badge(group["state"]),
        host=group["host"],
        layout=f"{group['ranks']} {kind}{plural}",
        warm_model=group["warm_model"],
        since=group["started_at"],
        heard_at=group["heartbeat_at"],
        devices=[_device(one, group["device"]) for one in group["devices"]],
        problem=group["problem"],
        job=line(job) if job else None,
    )


def _device(reading: dict[str, Any], kind: str) -> Device:
    prefix = "GPU" if kind == "cuda" else "rank"
    return Device(
        name=f"{prefix}{reading['rank']}",
        model=reading["device"],
        pid=reading.get("pid"),
        used_bytes=reading.get("memory_bytes") or None,
        total_bytes=reading.get("memory_total_bytes"),
        load_ratio=reading.get("utilization_ratio"),
        temperature_c=reading.get("temperature_c"),
        power_w=reading.get("power_w"),
    )


def _code(row: Values) -> str:
    return row["error"]["code"].replace("_", " ") if row["error"] else DASH
