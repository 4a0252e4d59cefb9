"""The chart of a group's hours: what failed stands on what was completed, and nothing is lost."""

from datetime import UTC, datetime, timedelta

from api.dashboard.bars import draw
from shared.jobs.board import Span

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def hours(*counts: tuple[int, int]) -> list[Span]:
    return [Span(NOON + timedelta(hours=n), *both) for n, both in enumerate(counts)]


def test_failures_stand_on_what_was_completed():
    done, bad = draw(hours((3, 1)), 1).bars

    assert (done.tone, bad.tone) == ("ok", "bad")
    assert bad.y + bad.height == done.y
    assert done.y + done.height == 48
    assert done.title == bad.title == "12:00 UTC: 3 completed, 1 failed"


def test_one_job_beside_many_is_seen_and_an_hour_without_any_is_a_line():
    many, one, none = draw(hours((1000, 0), (1, 0), (0, 0)), 3).bars

    assert many.height == 45
    assert one.height == 3
    assert (none.tone, none.height) == ("none", 1)
    assert [bar.x for bar in (many, one, none)] == [0, 12, 24]


def test_a_column_never_leaves_the_chart():
    chart = draw(hours((1000, 1), (1, 1000), (1, 1)), 3)

    assert min(bar.y for bar in chart.bars) >= 0
    assert chart.summary == "1002 completed, 1002 failed in 3 hours"


def test_a_day_without_a_job_is_drawn():
    chart = draw(hours(*[(0, 0)] * 24), 24)

    assert len(chart.bars) == 24
    assert chart.width == 24 * 12 - 2
