"""The farm in numbers: what waits and runs, what ended lately."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select, text

from shared.jobs.ledger import in_seconds
from shared.machinery.farm import Farm
from shared.machinery.tables import Video
from shared.vocabulary.states import VideoState

SPANS: Final = 48
SPAN_S: Final = 300
_RUNS: Final = 1000  # the latest, whose times are summed up


@dataclass(frozen=True, slots=True)
class Live:
    """The videos of one model in one state that is not final."""

    model: str
    state: str
    count: int
    oldest_s: float  # since the one that has been due the longest is
    since: datetime  # when the oldest was made
    age_s: float  # of that one


def live(farm: Farm, tenant: str | None = None) -> list[Live]:
    """Count what waits and runs, of one tenant or (None) all; reads no history."""
    mine = [Video.tenant == tenant] if tenant is not None else []
    oldest = func.min(Video.created_at)
    due_s, age_s = (
        func.extract("epoch", func.now() - moment) for moment in (func.min(Video.run_after), oldest)
    )
    statement = (
        select(Video.model, Video.state, func.count(), due_s, oldest, age_s)
        .where(Video.state.in_([VideoState.QUEUED, VideoState.IN_PROGRESS]), *mine)
        .group_by(Video.model, Video.state)
    )
    with farm.db.connect() as db:
        rows = db.execute(statement).all()
    return [
        Live(model, state, count, max(0.0, float(due)), since, float(age))
        for model, state, count, due, since, age in rows
    ]


@dataclass(frozen=True, slots=True)
class Board:
    """The farm in numbers, for one tenant or (None) all."""

    live: list[Live]
    completed_1h: int
    failed_24h: int
    run_p50_s: float | None
    run_p95_s: float | None

    @property
    def queued(self) -> int:
        """Videos that wait."""
        return sum(one.count for one in self._in(VideoState.QUEUED))

    @property
    def in_progress(self) -> int:
        """Videos that run."""
        return sum(one.count for one in self._in(VideoState.IN_PROGRESS))

    @property
    def oldest_queued_at(self) -> datetime | None:
        """When the video that waits the longest was made."""
        return min((one.since for one in self._in(VideoState.QUEUED)), default=None)

    @property
    def oldest_queued_s(self) -> float | None:
        """How long that is ago, by the database's clock."""
        return max((one.age_s for one in self._in(VideoState.QUEUED)), default=None)

    def _in(self, state: VideoState) -> list[Live]:
        return [one for one in self.live if one.state == state]


def read(farm: Farm, tenant: str | None) -> Board:
    """Count what is live and what ended lately; each count by an index of its own.

    The run times are those of the latest thousand of a day.
    """
    mine = [Video.tenant == tenant] if tenant is not None else []
    took = func.extract("epoch", Video.completed_at - Video.started_at)
    hour, day = (Video.completed_at > in_seconds(-seconds) for seconds in (3600, 86_400))
    is_done, is_failed = Video.state == VideoState.COMPLETED, Video.state == VideoState.FAILED
    newest = Video.completed_at.desc()
    runs = select(took.label("took")).where(is_done, day, *mine).order_by(newest).limit(_RUNS)
    latest = runs.subquery()
    lately = select(
        select(func.count()).select_from(Video).where(is_done, hour, *mine).scalar_subquery(),
        select(func.count()).select_from(Video).where(is_failed, day, *mine).scalar_subquery(),
        func.percentile_cont(0.5).within_group(latest.c.took),
        func.percentile_cont(0.95).within_group(latest.c.took),
    )
    with farm.db.connect() as db:
        completed, failed, p50, p95 = db.execute(lately).one()
    return Board(live(farm, tenant), completed, failed, _number(p50), _number(p95))


@dataclass(frozen=True, slots=True)
class Span:
    """What ended in one span of the clock (UTC)."""

    began: datetime
    completed: int
    failed: int


def throughput(farm: Farm, tenant: str | None) -> list[Span]:
    """Count what ended in each five minutes of the last four hours, oldest first."""
    asked = {"tenant": tenant, "span_s": SPAN_S, "spans": SPANS}
    with farm.db.connect() as db:
        return [Span(*row) for row in db.execute(_THROUGHPUT, asked).all()]


_THROUGHPUT: Final = text(
    """
WITH widths AS (SELECT make_interval(secs => :span_s) AS width),
newest AS (SELECT width, date_bin(width, now(), 'epoch') AS began FROM widths),
ended AS (
  SELECT date_bin(width, completed_at, 'epoch') AS began,
         count(*) FILTER (WHERE state = 'completed') AS completed,
         count(*) FILTER (WHERE state = 'failed') AS failed
    FROM newest JOIN videos ON completed_at >= newest.began - (:spans - 1) * width
   WHERE tenant = coalesce(:tenant, tenant)
   GROUP BY 1)
SELECT span, coalesce(completed, 0), coalesce(failed, 0)
  FROM newest
 CROSS JOIN generate_series(newest.began - (:spans - 1) * width, newest.began, width) AS span
  LEFT JOIN ended ON ended.began = span
 ORDER BY span"""
)


def _number(value: Any) -> float | None:  # noqa: ANN401 - numeric or None, as the driver gives it
    return None if value is None else float(value)
