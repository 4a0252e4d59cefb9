"""From rows to what the admin pages show: doors, keys, deliveries, deeds, how long things last."""

from dataclasses import dataclass
from typing import Final

from api.dashboard.views import Badge
from api.dashboard.words import DASH, duration, now
from shared.jobs import pauses, webhooks
from shared.jobs.ledger import STEPS_KEPT_S, Values
from shared.machinery.settings import Settings, variable_of
from shared.vocabulary.spec import Delivery

_DAY_S: Final = 86_400
LIFETIMES: Final = (
    ("", "never"),
    (str(_DAY_S), "in a day"),
    (str(7 * _DAY_S), "in a week"),
    (str(30 * _DAY_S), "in 30 days"),
    (str(90 * _DAY_S), "in 90 days"),
    (str(365 * _DAY_S), "in a year"),
)
PHRASES: Final[dict[str, str]] = {
    "key.create": "made the key",
    "key.change": "changed the key",
    "key.revoke": "revoked the key",
    "group.drain": "drained the group",
    "group.resume": "resumed the group",
    "queue.pause": "paused",
    "queue.resume": "resumed",
    "video.delete": "deleted the video",
    "webhook.create": "added the webhook",
    "webhook.change": "changed the webhook",
    "webhook.delete": "removed the webhook",
    "webhook.redeliver": "sent again the delivery",
    "webhook.rotate": "rotated the webhook secret of",
}
_LIMITS: Final = {
    "max_queued": "{} waiting",
    "submit_per_min": "{} submits a minute",
    "gpu_seconds_per_day": "{:g} GPU-seconds a day",
    "max_priority": "priority up to {}",
}
_OPEN: Final = {
    "intake": "New videos are taken.",
    "dispatch": "Waiting videos are started as groups become free.",
}
_CLOSED: Final = {"intake": "New videos are refused.", "dispatch": "No video is started."}
_EFFECTS: Final = {
    "intake": "New videos are refused (503) and their senders read the reason. "
    "What waits or runs goes on.",
    "dispatch": "No waiting video is started. What runs goes on, and new videos are taken.",
}


@dataclass(frozen=True, slots=True)
class Door:
    """One of the two doors of the queue."""

    name: str
    badge: Badge
    says: str
    effect: str  # of pausing it
    pause: Values | None  # who, when, why; None while it is open


def doors(closed: list[Values]) -> list[Door]:
    """Show both doors, the intake first."""
    rows = {row["what"]: row for row in closed}
    return [_door(name, rows.get(name)) for name in pauses.DOORS]


def _door(name: pauses.Door, row: Values | None) -> Door:
    badge = Badge("paused", "■", "warn") if row else Badge("open", "○", "ok")
    says = _CLOSED[name] if row else _OPEN[name]
    return Door(name, badge, says, _EFFECTS[name], row)


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key in the list."""

    row: Values
    badge: Badge
    is_own: bool  # of this session

    @property
    def limits(self) -> str:
        """What it may do less, or more, than others."""
        words = {name: words for name, words in _LIMITS.items() if name in self.row["limits"]}
        return " · ".join(text.format(self.row["limits"][name]) for name, text in words.items())

    @property
    def lives(self) -> bool:
        """Whether it still opens anything."""
        return self.badge.tone == "ok"


def key_line(row: Values, own_id: str) -> KeyLine:
    """Dress a key."""
    badge = Badge("works", "✓", "ok")
    if row["revoked_at"]:
        badge = Badge("revoked", "⊘", "cancel")
    elif row["expires_at"] and row["expires_at"] <= now():
        badge = Badge("expired", "⊘", "cancel")
    return KeyLine(row, badge, row["id"] == own_id)


@dataclass(frozen=True, slots=True)
class DeliveryLine:
    """A delivery in the log, with what its newest try brought."""

    row: Values
    badge: Badge
    answer: str


def delivery_line(row: Values) -> DeliveryLine:
    """Dress a delivery."""
    if row["delivered_at"]:
        badge = Badge("delivered", "✓", "ok")
    elif row["dead_at"]:
        badge = Badge("dead", "✕", "bad")
    else:
        badge = Badge("pending", "○", "queued")
    return DeliveryLine(row, badge, _answer(row))


def _answer(row: Values) -> str:
    if row["status_code"]:
        return f"{row['status_code']} in {row['latency_ms']} ms"
    return row["problem"] or ("under way" if row["tries"] else "not tried yet")


@dataclass(frozen=True, slots=True)
class DeedLine:
    """A deed as a sentence: who, did what, to which object, how."""

    row: Values
    did: str
    to: str
    how: str


def deed_line(row: Values, key_names: dict[str, str]) -> DeedLine:
    """Phrase a deed; an action of another version of wanfarm stays a word of its own."""
    to = row["object_id"]
    if row["action"].startswith("queue."):
        to = " and ".join(to.split())
    elif to in key_names:
        to = f"{to} ({key_names[to]})"
    detail: Values = row["detail"]
    said = {n: value for n, value in detail.items() if n != "name" and value is not None}
    how = [f"{_name(name)} {_said(name, value)}" for name, value in said.items()]
    return DeedLine(row, PHRASES.get(row["action"]) or str(row["action"]), to, ", ".join(how))


def _name(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")


def _said(name: str, value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return _length(value) if name.endswith("_s") and isinstance(value, int | float) else str(value)


@dataclass(frozen=True, slots=True)
class Kept:
    """How long something lasts, and what decides that."""

    what: str
    how_long: str
    by: str


def retention(settings: Settings) -> list[Kept]:
    """Tell how long things last on this farm."""
    result_s = Delivery.model_fields["expires_in_s"].default
    return [
        Kept("files of a finished video", _length(result_s), "each request's expires_in_s"),
        Kept("a video, its prompt and history", "until it is deleted", DASH),
        Kept("step events of a finished video", _length(STEPS_KEPT_S), "fixed"),
        Kept("deliveries of webhooks", _length(webhooks.LOG_S), "fixed"),
        Kept("the audit log", _length(settings.audit_days * _DAY_S), variable_of("audit_days")),
    ]


def _length(seconds: float) -> str:
    """Phrase a length of time, in days where it is whole days."""
    days, rest = divmod(seconds, _DAY_S)
    if rest or not days:
        return duration(seconds)
    return f"{days:g} day{'s'[: days > 1]}"
