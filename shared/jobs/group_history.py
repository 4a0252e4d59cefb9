"""What GPU groups have done in the last day, from their attempts; reads no history beyond it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ARRAY, String, bindparam, text

from shared.jobs.board import Span
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm

HOURS: Final = 24
_FAILURES: Final = 8
_RUNS: Final = 20


@dataclass(frozen=True, slots=True)
class Lately:
    """What a list of groups says of each one's work."""

    completed_1h: int
    plan: Values | None  # of the newest attempt

    def degrees(self, ranks: int) -> dict[str, int] | None:
        """How its ranks share a video; None when it had another number of ranks then."""
        if self.plan is None or self.plan.get("ranks") != ranks:
            return None
        return {name: self.plan.get(name, 1) for name in ("cfg", "ulysses", "ring")}


@dataclass(frozen=True, slots=True)
class Runs:
    """The newest completed attempts of a group."""

    count: int
    cached: int  # of them had a block cache
    cached_ratio: float | None  # of their transformer calls; None without such a run
    build: Values  # precision and attention of the newest


def lately(farm: Farm, names: Sequence[str]) -> dict[str, Lately]:
    """Read what these groups did last."""
    with farm.db.connect() as db:
        rows = db.execute(_LATELY, _reach(farm) | {"names": list(names)}).all()
    return {row.name: Lately(row.completed, row.plan) for row in rows}


def hours(farm: Farm, name: str) -> list[Span]:
    """Count what a group ended in each of the last 24 hours of the clock, oldest first."""
    with farm.db.connect() as db:
        rows = db.execute(_PER_HOUR, _reach(farm) | {"name": name, "hours": HOURS}).all()
    return [Span(row.hour, row.completed, row.failed) for row in rows]


def failures(farm: Farm, name: str) -> list[Values]:
    """Read a group's newest failures of the last day, with the tenant of each video."""
    with farm.db.connect() as db:
        rows = db.execute(_FAILED, _reach(farm) | {"name": name, "most": _FAILURES}).mappings()
        return [dict(row) for row in rows]


def runs(farm: Farm, name: str) -> Runs:
    """Read what the newest completed attempts of the last day say of cache and precision."""
    with farm.db.connect() as db:
        rows = db.execute(_COMPLETED, _reach(farm) | {"name": name, "most": _RUNS}).all()
    ratios = [float(row.ratio) for row in rows if row.ratio is not None]
    return Runs(
        count=len(rows),
        cached=len(ratios),
        cached_ratio=sum(ratios) / len(ratios) if ratios else None,
        build=(rows[0].build if rows else None) or {},
    )


def _reach(farm: Farm) -> Values:
    """How far back is looked: what ended in a time began less than a whole attempt before it."""
    return {"hour_s": 3600, "day_s": 86_400, "run_s": farm.settings.run_limit_s}


# All of them walk the newest part of one group in the index `attempts_group`.
_LATELY: Final = text(
    """
SELECT name, done.completed, newest.plan
  FROM unnest(:names) AS name
 CROSS JOIN LATERAL (
       SELECT count(*) AS completed
         FROM attempts
        WHERE group_name = name AND outcome = 'completed'
          AND claimed_at > now() - make_interval(secs => :hour_s + :run_s)
          AND ended_at > now() - make_interval(secs => :hour_s)) AS done
  LEFT JOIN LATERAL (
       SELECT plan
         FROM attempts
        WHERE group_name = name AND plan IS NOT NULL
          AND claimed_at > now() - make_interval(secs => :day_s)
        ORDER BY claimed_at DESC
        LIMIT 1) AS newest ON true"""
).bindparams(bindparam("names", type_=ARRAY(String)))
_PER_HOUR: Final = text(
    """
SELECT hour, coalesce(completed, 0) AS completed, coalesce(failed, 0) AS failed
  FROM generate_series(date_trunc('hour', now(), 'UTC') - make_interval(hours => :hours - 1),
                       now(), interval '1 hour') AS hour
  LEFT JOIN (
       SELECT date_trunc('hour', ended_at, 'UTC') AS hour,
              count(*) FILTER (WHERE outcome = 'completed') AS completed,
              count(*) FILTER (WHERE kind IS NOT NULL) AS failed
         FROM attempts
        WHERE group_name = :name
          AND claimed_at > now() - make_interval(secs => :day_s + :run_s)
        GROUP BY 1) AS done USING (hour)
 ORDER BY hour"""
)
_FAILED: Final = text(
    """
SELECT video_id, number, ended_at, kind, message, tenant
  FROM attempts
  JOIN videos ON id = video_id
 WHERE attempts.group_name = :name AND kind IS NOT NULL AND delete_requested_at IS NULL
   AND claimed_at > now() - make_interval(secs => :day_s + :run_s)
   AND ended_at > now() - make_interval(secs => :day_s)
 ORDER BY claimed_at DESC
 LIMIT :most"""
)
_COMPLETED: Final = text(
    """
SELECT report->'cached'->>'cached_ratio' AS ratio, report->'build' AS build
  FROM attempts
 WHERE group_name = :name AND outcome = 'completed'
   AND claimed_at > now() - make_interval(secs => :day_s)
 ORDER BY claimed_at DESC
 LIMIT :most"""
)
