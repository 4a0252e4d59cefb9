"""Everything that the pages of GPU groups show beside their cards."""

from dataclasses import dataclass
from datetime import UTC, datetime

from api.dashboard.bars import Chart, draw
from api.dashboard.rows import jobs_of, tenant_of
from api.dashboard.views import GroupCard, group_card
from api.dashboard.words import DASH, duration, size
from shared.jobs import group_history
from shared.jobs.group_history import Lately, Runs
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.vocabulary.errors import JOB_CODES
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt of a group that went wrong; of another tenant's video only that and when."""

    at: datetime
    code: str
    message: str | None
    video_id: str | None
    attempt: int


@dataclass(frozen=True, slots=True)
class GroupPage:
    """A group with what it did in the last day, ready to show."""

    row: Values
    card: GroupCard
    standing: str | None  # what became of a drain
    is_only: bool  # no other group is up
    heard: str  # how long its last heartbeat lies back
    parallel: str | None
    completed_1h: int
    runs: Runs
    chart: Chart
    failures: list[Failure]

    @property
    def cache(self) -> str | None:
        """What the block cache spared in the last runs; None before there are any."""
        if not self.runs.count:
            return None
        last = f"the last {self.runs.count} job{'s'[: self.runs.count > 1]}"
        if self.runs.cached_ratio is None:
            return f"not used in {last}"
        return f"{self.runs.cached_ratio:.0%} of calls in {self.runs.cached} of {last}"

    @property
    def report(self) -> str:
        """Its facts as text for a bug report; without prompts."""
        return "\n".join(_report(self))


def group_page(farm: Farm, row: Values, known: list[Values], caller: Caller) -> GroupPage:
    """Gather what belongs to a group; `known` are all of them."""
    card = group_card(row, jobs_of([row], caller))
    lately = group_history.lately(farm, [row["name"]])[row["name"]]
    failures = group_history.failures(farm, row["name"])
    return GroupPage(
        row=row,
        card=card,
        standing=_standing(row, card),
        is_only=all(one["state"] is GroupState.DOWN or one is row for one in known),
        heard="less than 10 s" if row["silent_s"] < 10 else duration(row["silent_s"]),
        parallel=parallel_words(row, lately),
        completed_1h=lately.completed_1h,
        runs=group_history.runs(farm, row["name"]),
        chart=draw(group_history.hours(farm, row["name"]), group_history.HOURS),
        failures=[_failure(one, tenant_of(caller)) for one in failures],
    )


def parallel_words(row: Values, lately: Lately) -> str | None:
    """Say how the group's ranks share a video."""
    degrees = lately.degrees(row["ranks"]) or {}
    parts = [f"{name} {degree}" for name, degree in degrees.items() if degree > 1]
    return " × ".join(parts) or None  # noqa: RUF001 - the sign of multiplication is meant


def _standing(row: Values, card: GroupCard) -> str | None:
    """Say what a drain does at this moment; None while the group takes jobs."""
    name, state = row["name"], row["state"]
    until = "until it is resumed"
    if row["drain"] is None:
        leaving = state in {GroupState.DRAINING, GroupState.DRAINED}
        return f"{name} is stopping. It takes no other job." if leaving else None
    if state is GroupState.DOWN:
        said = f"{name} is down. When it comes back, it takes no job {until}."
    elif state is GroupState.DRAINED:
        said = f"{name} is drained. It takes no job {until}."
    elif state is not GroupState.DRAINING:
        said = f"{name} was asked to take no other job. It has not answered yet."
    elif row["drain"] == "requeue":
        said = f"{name} is draining. It puts its job back at the next step, takes none {until}."
    else:
        left = f" ({card.job.note})" if card.job else ""
        said = f"{name} is draining. It finishes its job{left}, then takes none {until}."
    return f"{said} Reason: {row['drain_reason']}" if row["drain_reason"] else said


def _failure(one: Values, tenant: str | None) -> Failure:
    seen = tenant in {None, one["tenant"]}
    return Failure(
        at=one["ended_at"],
        code=JOB_CODES[FailureKind(one["kind"])],
        message=one["message"] if seen else None,
        video_id=one["video_id"] if seen else None,
        attempt=one["number"],
    )


def _report(page: GroupPage) -> list[str]:
    row = page.row
    drain = f"{row['drain']} ({row['drain_reason'] or 'no reason given'})" if row["drain"] else "no"
    facts = {
        "group": f"{row['name']}, {row['state']}, {page.card.layout} on {row['host']}",
        "since": _exact(row["started_at"]),
        "models": ", ".join(row["models"]),
        "loaded": row["warm_model"] or "none",
        "warm since": _exact(row["warm_since"]),
        "parallel": page.parallel or "none known",
        "last run": ", ".join(f"{k} {v}" for k, v in page.runs.build.items()) or "none today",
        "software": ", ".join(f"{k} {v}" for k, v in row["software"].items()) or "not told",
        "drain": drain,
        "problem": row["problem"] or "none",
        "jobs": f"{page.chart.summary}, {page.completed_1h} completed in the last hour",
        "failures in a row": str(row["failure_streak"]),
    }
    ranks = [
        f"{one.name:<18} {one.model}, {size(one.used_bytes)} of {size(one.total_bytes)}"
        for one in page.card.devices
    ]
    failed = [
        f"{_exact(one.at)} {one.code} {one.video_id or 'of another tenant'} {one.message or ''}"
        for one in page.failures
    ]
    return [*(f"{name:<18} {said}" for name, said in facts.items()), *ranks, *failed]


def _exact(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if at else DASH
