"""The outbox at work: which delivery is due, what it carries, what came of a try."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import exists, func, null, or_, select, update

from shared.jobs import webhooks
from shared.jobs.ledger import Values, in_seconds
from shared.machinery.farm import Farm
from shared.machinery.tables import Video, WebhookDelivery, WebhookEndpoint

LEASE_S: Final = 60.0  # longer than a try: a name that does not resolve, and the time to answer
# After a failed try, until the next; after the last there is none.
WAITS_S: Final = (5.0, 60.0, 300.0, 1800.0, 7200.0, 21_600.0, 43_200.0)
_SPREAD: Final = 0.1
_GONE: Final = 410
_LANE = func.coalesce(WebhookDelivery.endpoint_id, WebhookDelivery.tenant)


@dataclass(frozen=True, slots=True)
class Due:
    """The right to make one try, until its lease is over."""

    id: str
    type: str
    tenant: str
    lane: str  # whose slowness holds it up: its endpoint's, or its tenant's own addresses
    url: str
    endpoint_id: str | None
    video_id: str | None
    batch_id: str | None
    at: datetime  # of the event
    tries: int  # with this one: the fence
    tried_at: datetime
    body: str | None  # None until it was rendered


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a try: a status, or why there is none."""

    status: int | None
    latency_ms: int
    head: str = ""  # of the body
    problem: str | None = None

    @property
    def is_good(self) -> bool:
        """Tell whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300


def claim(farm: Farm, busy: Collection[str] = ()) -> Due | None:
    """Take the delivery that is due longest, of none of the busy lanes; None when nothing is."""
    hidden = exists().where(
        Video.id == WebhookDelivery.video_id, Video.delete_requested_at.isnot(None)
    )
    left = exists().where(
        Video.batch_id == WebhookDelivery.batch_id, Video.delete_requested_at.is_(None)
    )
    due = (
        select(WebhookDelivery.id)
        .where(*webhooks.PENDING, WebhookDelivery.next_at <= func.now(), ~hidden)
        .where(or_(WebhookDelivery.batch_id.is_(None), left), _LANE.not_in(busy))
        .order_by(WebhookDelivery.next_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    begun = {"tries": WebhookDelivery.tries + 1, "tried_at": func.now()}
    unknown = dict.fromkeys(("status_code", "latency_ms", "response_head", "problem"), null())
    taken = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == due)
        .values(begun | unknown | {"next_at": in_seconds(LEASE_S)})
        .returning(*WebhookDelivery.__table__.c, _LANE.label("lane"))
        .cte("taken")
    )
    url = func.coalesce(WebhookEndpoint.url, Video.webhook_url).label("url")
    names = [name for name in Due.__slots__ if name != "url"]
    statement = (
        select(*(taken.c[name] for name in names), url)
        .outerjoin(WebhookEndpoint, WebhookEndpoint.id == taken.c.endpoint_id)
        .outerjoin(Video, Video.id == taken.c.video_id)
    )
    with farm.db.connect() as db:
        row = db.execute(statement).mappings().first()
    return Due(**row) if row else None


def keep_body(farm: Farm, due: Due, body: str) -> str:
    """Keep what a delivery carries; gives what was kept first, which every try sends."""
    kept = func.coalesce(WebhookDelivery.body, body)
    statement = update(WebhookDelivery).where(WebhookDelivery.id == due.id).values(body=kept)
    with farm.db.connect() as db:
        return db.scalar(statement.returning(WebhookDelivery.body)) or body


def record(farm: Farm, due: Due, answer: Answer) -> bool:
    """Write down what came of a try; False when its lease had run out and another was begun."""
    told: Values = {
        "status_code": answer.status,
        "latency_ms": answer.latency_ms,
        "response_head": answer.head,
        "problem": answer.problem,
    }
    mine = (WebhookDelivery.id == due.id, WebhookDelivery.tries == due.tries, *webhooks.PENDING)
    statement = update(WebhookDelivery).where(*mine).values(told | _after(due, answer))
    with farm.db.connect() as db:
        recorded = db.execute(statement).rowcount == 1
        if recorded and answer.status == _GONE and due.endpoint_id:
            db.execute(webhooks.switched_off(due.endpoint_id))
    return recorded


def is_last(due: Due, answer: Answer) -> bool:
    """Tell whether no other try follows one that was not taken."""
    return answer.status == _GONE or due.tries > len(WAITS_S)


def _after(due: Due, answer: Answer) -> Values:
    """What a try leaves behind: the end, or the time of the next one."""
    if answer.is_good:
        return {"delivered_at": func.now()}
    if is_last(due, answer):
        return {"dead_at": func.now()}
    spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - so that they do not march in step
    return {"next_at": in_seconds(WAITS_S[due.tries - 1] * spread)}
