"""Server-sent events: what a stream tells, and how it may end."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a video's stream."""

    id: int | None
    type: str
    data: dict[str, Any]


OPENED: Final = Event(None, "opened", {})  # not from the farm: it has let us in


class Lost(Exception):
    """A stream broke off; the next one goes on where it stopped."""


class Over(Exception):
    """A stream has nothing left to tell."""


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """Read server-sent events: comments and unknown fields are passed over."""
    number: int | None = None
    kind, parts = "message", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if parts:
                yield Event(number, kind, json.loads("\n".join(parts)))
            number, kind, parts = None, "message", []
        elif name == "id":
            number = int(value) if value.isdecimal() else None
        elif name == "event":
            kind = value
        elif name == "data":
            parts.append(value)
