"""What an attempt costs its tenant, in GPU-seconds: by estimate at its claim, settled at its end.

A tenant's share is what it was charged over its weight; the smallest share goes first. That is
start-time fair queueing: whoever comes back after a pause begins level with those who are there,
and neither owns the past nor owes it (Goyal et al., "Start-time fair queueing", 1996).
"""

from typing import Any, Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    Date,
    Double,
    Select,
    Update,
    case,
    cast,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from shared.machinery.tables import ApiKey, Attempt, Cost, Tenant, Video
from shared.vocabulary.states import VideoState

_TODAY: Final = cast(func.timezone("UTC", func.now()), Date)
USED_TODAY: Final = case((ApiKey.used_day == _TODAY, ApiKey.used_s), else_=0.0)  # by a key
_LEARNT: Final = 0.2  # how much of a rate is its newest sample


def estimate(moved: CTE) -> ColumnElement[float]:
    """What a claimed video will cost, by what its model has taken per token and step so far."""
    rate = select(Cost.rate).where(Cost.model == moved.c.model).scalar_subquery()
    return func.coalesce(rate * _work(moved), 0.0)


def charge(moved: CTE, of: CTE, seconds: ColumnElement[float]) -> list[CTE]:
    """Add to what a tenant has used, and its key today; `of` has a row where there is something."""
    charged = (
        update(Tenant)
        .where(Tenant.name == moved.c.tenant, of.c.video_id == moved.c.id)
        .values(share=Tenant.share + seconds / Tenant.weight, used_s=Tenant.used_s + seconds)
        .returning(Tenant.name)
        .cte("charged")
    )
    noted = (  # after the tenant's row, everywhere: two that wait for each other would for ever
        update(ApiKey)
        .where(ApiKey.id == moved.c.key_id, of.c.video_id == moved.c.id)
        .where(charged.c.name == moved.c.tenant)
        .values(used_s=USED_TODAY + seconds, used_day=_TODAY)
        .cte("noted")
    )
    return [charged, noted]


def settled(moved: CTE, *, free: bool) -> CTE:
    """The attempt that ends: what it was charged, and what it cost.

    Args:
        moved: the video's row.
        free: it costs nothing, as it was lost; its time was the farm's fault.
    """
    took = Attempt.ranks * func.extract("epoch", func.now() - Attempt.claimed_at)
    cost = literal(0.0) if free else took
    return (
        select(Attempt.video_id, Attempt.number, Attempt.charged_s, cost.label("cost_s"))
        .where(Attempt.video_id == moved.c.id, Attempt.number == moved.c.attempt)
        .cte("settled")
    )


def learn(moved: CTE, paid: CTE) -> CTE:
    """Learn a model's rate from a video that was rendered in one attempt."""
    newest = select(moved.c.model, paid.c.cost_s / _work(moved)).where(
        moved.c.attempt == 1, paid.c.video_id == moved.c.id, _work(moved) > 0
    )
    sample = insert(Cost).from_select(["model", "rate"], newest)
    rate = Cost.rate + _LEARNT * (sample.excluded.rate - Cost.rate)
    return sample.on_conflict_do_update(index_elements=["model"], set_={"rate": rate}).cte("learnt")


def wake(tenants: list[str]) -> Update:
    """Level tenants that have nothing waiting or running with the least of those that have."""
    other = aliased(Tenant)
    least = select(func.min(other.share)).where(_busy(other.name)).scalar_subquery()
    return (
        update(Tenant)
        .where(Tenant.name.in_(_locked(tenants)), ~_busy(Tenant.name))
        .values(share=func.greatest(Tenant.share, least))
    )


def _locked(tenants: list[str]) -> Select[str]:
    """Their rows, locked in one order: two that wait for each other would wait for ever."""
    named = select(Tenant.name).where(Tenant.name.in_(tenants))
    return named.order_by(Tenant.name).with_for_update()


def _busy(tenant: Any) -> ColumnElement[bool]:  # noqa: ANN401 - a column
    """Tell whether a tenant has something waiting or running, each by an index of its own."""
    waits = exists().where(Video.tenant == tenant, Video.state == VideoState.QUEUED)
    runs = exists().where(Video.tenant == tenant, Video.state == VideoState.IN_PROGRESS)
    return waits | runs


def _work(moved: CTE) -> ColumnElement[float]:
    """Tokens times steps; NULL where the stored request makes no sense."""
    steps = moved.c.spec["steps"]
    is_number = func.jsonb_typeof(steps) == "number"
    return moved.c.tokens * case((is_number, cast(steps, Double)))
