"""A video's ledger as a log: one line an event, to be read by people and cut by tools."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

_HEAD: Final = ("id", "type", "video_id", "at", "attempt")
_PLAIN: Final = (int, float, bool)


def lines(events: Iterable[dict[str, Any]]) -> list[str]:
    """Write each event as moment, attempt, type and `name=value` of all that it tells.

    Args:
        events: as the ledger tells them on the wire.
    """
    return [_line(event) for event in events]


def _line(event: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(event["at"], UTC).isoformat(timespec="milliseconds")
    told = [f"{name}={_value(one)}" for name, one in event.items() if name not in _HEAD]
    moment = at.replace("+00:00", "Z")
    return " ".join([moment, f"attempt={event['attempt']}", event["type"], *told])


def _value(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Write a word as it is, and all else as JSON."""
    if isinstance(value, str) and value and not set(value) & set(' ="\n\r\t'):
        return value
    return str(value) if type(value) in _PLAIN else json.dumps(value, ensure_ascii=False)
