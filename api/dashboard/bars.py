"""A small chart of counts over time: geometry as plain numbers, for SVG without any style."""

from dataclasses import dataclass
from typing import Final

from shared.jobs.board import Span

_WIDTH: Final = 10
_GAP: Final = 2
_HEIGHT: Final = 48
_LEAST: Final = 3  # one job beside many is still seen


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of one span's column, from the top down."""

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


def draw(spans: list[Span], hours: int) -> Chart:
    """Stack what failed on what was completed; a span without either is a line."""
    most = max((span.completed + span.failed for span in spans), default=0)
    completed = sum(span.completed for span in spans)
    failed = sum(span.failed for span in spans)
    return Chart(
        bars=[bar for place, span in enumerate(spans) for bar in _column(place, span, most)],
        width=len(spans) * (_WIDTH + _GAP) - _GAP,
        summary=f"{completed} completed, {failed} failed in {hours} hours",
    )


def _column(place: int, span: Span, most: int) -> list[Bar]:
    title = f"{span.began:%H:%M} UTC: {span.completed} completed, {span.failed} failed"
    bars: list[Bar] = []
    floor = _HEIGHT
    for tone, count in (("ok", span.completed), ("bad", span.failed)):
        if count:
            height = max(_LEAST, round((_HEIGHT - _LEAST) * count / most))
            floor -= height
            bars.append(Bar(tone, place * (_WIDTH + _GAP), floor, height, title))
    return bars or [Bar("none", place * (_WIDTH + _GAP), _HEIGHT - 1, 1, title)]
