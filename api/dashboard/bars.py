"""A small chart of counts per hour: geometry as plain numbers, for SVG without any style."""

from dataclasses import dataclass
from typing import Final

from shared.jobs.group_history import Hour

_WIDTH: Final = 10
_GAP: Final = 2
_HEIGHT: Final = 48
_LEAST: Final = 3  # one job beside many is still seen


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of one hour's column, from the top down."""

    tone: str
    x: int
    y: int
    height: int
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Columns side by side, oldest first."""

    bars: list[Bar]
    width: int
    summary: str
    bar_width: int = _WIDTH
    height: int = _HEIGHT


def draw(hours: list[Hour]) -> Chart:
    """Stack what failed on what was completed; an hour without either is a line."""
    most = max((hour.completed + hour.failed for hour in hours), default=0)
    completed = sum(hour.completed for hour in hours)
    failed = sum(hour.failed for hour in hours)
    return Chart(
        bars=[bar for place, hour in enumerate(hours) for bar in _column(place, hour, most)],
        width=len(hours) * (_WIDTH + _GAP) - _GAP,
        summary=f"{completed} completed, {failed} failed in {len(hours)} hours",
    )


def _column(place: int, hour: Hour, most: int) -> list[Bar]:
    title = f"{hour.began:%H}:00 UTC: {hour.completed} completed, {hour.failed} failed"
    bars: list[Bar] = []
    floor = _HEIGHT
    for tone, count in (("ok", hour.completed), ("bad", hour.failed)):
        if count:
            height = max(_LEAST, round((_HEIGHT - _LEAST) * count / most))
            floor -= height
            bars.append(Bar(tone, place * (_WIDTH + _GAP), floor, height, title))
    return bars or [Bar("none", place * (_WIDTH + _GAP), _HEIGHT - 1, 1, title)]
