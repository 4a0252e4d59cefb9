"""How values read: durations, sizes, moments. What is unknown is a dash, never 0."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup

DASH: Final = "–"  # noqa: RUF001 - the typographic dash is meant
_TASKS: Final = {"T2V": "text", "I2V": "image", "TI2V": "text or image"}


def now() -> datetime:
    """The moment of the page; only for reading, the database's clock decides."""
    return datetime.now(UTC)


def duration(seconds: float | None) -> str:
    """Phrase a length of time: `0.4s`, `41s`, `3m38s`, `3h12m`, `2d4h`."""
    if seconds is None:
        return DASH
    whole = max(0, round(seconds))
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def size(count: float | None) -> str:
    """Phrase a number of bytes in decimal units."""
    if count is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def number(value: float | None) -> str:
    """Phrase a number without a needless fraction."""
    return DASH if value is None else f"{value:g}"


def short_id(video_id: str) -> str:
    """The end of an id, which is what tells two of them apart."""
    return f"…{video_id[-5:]}"


def moment(value: datetime | None) -> Markup:
    """A moment as people say it, with the exact one as a tooltip."""
    if value is None:
        return Markup(DASH)  # noqa: S704 - a constant
    exact = value.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.isoformat(timespec="seconds"), f"{exact:%Y-%m-%d %H:%M:%S} UTC", ago(value)
    )


def ago(value: datetime) -> str:
    """Phrase how long a moment lies back, coarsely enough to stay true for a while."""
    seconds = (now() - value).total_seconds()
    if seconds < 0:
        return f"in {duration(-seconds)}"
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 2 * 86_400:
        return f"{seconds // 3600:.0f} h ago"
    return f"{seconds // 86_400:.0f} d ago"


def task(value: str) -> str:
    """Say what a model starts from."""
    return _TASKS[value]


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "duration": duration,
    "bytes": size,
    "number": number,
    "short_id": short_id,
    "moment": moment,
    "task": task,
}
