"""What the doctor finds: the shape of one finding."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and what to do if that is not well."""

    group: str
    name: str
    level: Level
    text: str
    fix: str = ""
