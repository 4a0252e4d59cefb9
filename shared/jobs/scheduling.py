"""The choice of the next job for a group: one SELECT whose cost does not grow with history."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, case, func, lateral, or_, select, true, values
from sqlalchemy import String as SqlString
from sqlalchemy import column as sql_column
from sqlalchemy.orm import aliased

from shared.machinery.tables import Tenant, Video
from shared.vocabulary.states import VideoState

# More than one per tenant and model, so that parents claiming at once do not fight for one row.
_CANDIDATES: Final = 16


@dataclass(frozen=True, slots=True)
class Offer:
    """What a group can take now."""

    group: str
    incarnation: str
    ranks: int
    models: tuple[str, ...]
    warm_model: str | None = None


def best(offer: Offer) -> Select[str]:
    """Find and lock the id of the job to run next.

    For each tenant and each model of the offer the first rows of the claim index that are due;
    among these: priority, the tenant that has used least, the warm model, the oldest.
    """
    models = values(sql_column("model", SqlString), name="offered").data(
        [(m,) for m in offer.models]
    )
    waiting, chosen = aliased(Video), aliased(Video)
    head = lateral(
        select(waiting.id)
        .where(
            waiting.tenant == Tenant.name,
            waiting.model == models.c.model,
            waiting.state == VideoState.QUEUED,
            *is_due(waiting),
            or_(waiting.group_wanted.is_(None), waiting.group_wanted == offer.group),
        )
        .order_by(waiting.priority.desc(), waiting.id)
        .limit(_CANDIDATES)
        .correlate(Tenant, models)
    )
    warm: ColumnElement[Any] = case((chosen.model == offer.warm_model, 0), else_=1)
    return (
        select(chosen.id)
        .select_from(Tenant)
        .join(models, onclause=true())
        .join(head, onclause=true())
        .join(chosen, chosen.id == head.c.id)
        .where(chosen.state == VideoState.QUEUED)
        .order_by(chosen.priority.desc(), Tenant.share, warm, chosen.id)
        .limit(1)
        .with_for_update(of=chosen, skip_locked=True)
    )


def is_due(video: type[Video]) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a waiting row may start now."""
    return (
        video.run_after <= func.now(),
        or_(video.start_by.is_(None), video.start_by > func.now()),
        or_(video.finish_by.is_(None), video.finish_by > func.now()),
    )
