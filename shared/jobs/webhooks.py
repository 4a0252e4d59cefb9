"""Webhooks as people see them: endpoints, the secret that signs, the log of deliveries."""

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import (
    Connection,
    Select,
    Update,
    and_,
    delete,
    func,
    insert,
    not_,
    select,
    update,
)

from shared.jobs import audit
from shared.jobs.audit import Actor, Deed
from shared.jobs.ledger import Values, in_seconds
from shared.machinery.farm import Farm
from shared.machinery.tables import Tenant, Video, WebhookDelivery, WebhookEndpoint
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import new_id

MOST_ENDPOINTS: Final = 20
TEST: Final = "webhook.test"
_OVERLAP_S: Final = 86_400.0
LOG_S: Final = 30 * 86_400.0  # so long a delivery that is over stays in the log
PENDING: Final = (WebhookDelivery.delivered_at.is_(None), WebhookDelivery.dead_at.is_(None))
_STATES: Final = {
    "pending": PENDING,
    "delivered": (WebhookDelivery.delivered_at.isnot(None),),
    "dead": (WebhookDelivery.dead_at.isnot(None),),
}


def add(farm: Farm, tenant: str, given: Values, *, actor: Actor | None = None) -> Values:
    """Store an endpoint; `given` has its columns `url`, `events`, `description`, `enabled`.

    Raises:
        WanfarmError: `invalid_value`, when the tenant has as many as it may.
    """
    if len(endpoints(farm, tenant)) >= MOST_ENDPOINTS:
        raise WanfarmError(
            "invalid_value",
            f"There are {MOST_ENDPOINTS} webhooks already. A tenant has no more, so that the end "
            "of a video stays cheap to tell. Remove one first.",
            param="url",
        )
    columns = given | {"id": new_id("hook"), "tenant": tenant}
    statement = insert(WebhookEndpoint).values(columns).returning(*WebhookEndpoint.__table__.c)
    deed = Deed("webhook.create", columns["id"], {"host": urlsplit(str(given["url"])).hostname})
    (made,) = audit.carry_out(farm, statement, deed, actor)
    return made


def endpoints(farm: Farm, tenant: str | None) -> list[Values]:
    """List endpoints, newest first; of all tenants with None."""
    statement = select(*WebhookEndpoint.__table__.c).order_by(WebhookEndpoint.id.desc())
    if tenant is not None:
        statement = statement.where(WebhookEndpoint.tenant == tenant)
    with farm.db.connect() as db:
        return [dict(row) for row in db.execute(statement).mappings()]


def endpoint(farm: Farm, endpoint_id: str, tenant: str | None) -> Values:
    """Read one endpoint.

    Raises:
        WanfarmError: `webhook_not_found`, also when it is another tenant's.
    """
    for row in endpoints(farm, tenant):
        if row["id"] == endpoint_id:
            return row
    raise WanfarmError(
        "webhook_not_found",
        f"There is no webhook '{endpoint_id[:40]}'. It may have been removed. "
        "See /v1/webhooks for those there are.",
    )


def change(farm: Farm, endpoint_id: str, values: Values, *, actor: Actor | None = None) -> None:
    """Change columns of an endpoint; one that is switched off is owed nothing more."""
    if values:
        changed = update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(values)
        deed = Deed("webhook.change", endpoint_id, {"fields": sorted(values)})
        audit.carry_out(farm, changed.returning(WebhookEndpoint.id), deed, actor)
    if values.get("enabled") is False:
        with farm.db.connect() as db:
            db.execute(switched_off(endpoint_id))


def switched_off(endpoint_id: str) -> Update:
    """Phrase that an endpoint is off, and that what waits for it is dead."""
    mine = WebhookEndpoint.id == endpoint_id
    off = update(WebhookEndpoint).where(mine).values(enabled=False)
    return (
        update(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == endpoint_id, *PENDING)
        .values(dead_at=func.now(), problem="The webhook was switched off.")
        .add_cte(off.cte("off"))
    )


def remove(farm: Farm, endpoint_id: str, *, actor: Actor | None = None) -> None:
    """Forget an endpoint and its part of the log."""
    gone = delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id)
    deed = Deed("webhook.delete", endpoint_id)
    audit.carry_out(farm, gone.returning(WebhookEndpoint.id), deed, actor)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What signs a tenant's webhooks: the secret, and for a day after a rotation the former."""

    current: str
    former: str | None
    former_until: datetime | None

    @property
    def all(self) -> tuple[str, ...]:
        """Every secret that signs now, the newest first."""
        return (self.current, self.former) if self.former else (self.current,)


def secrets_of(farm: Farm, tenant: str) -> Secrets:
    """Read what signs a tenant's webhooks, and make it if it was never needed before."""
    with farm.db.connect() as db:
        found = _read_secrets(db, tenant)
        if found is not None:
            return found
        none = (Tenant.name == tenant, Tenant.webhook_secret.is_(None))
        db.execute(update(Tenant).where(*none).values(webhook_secret=_new_secret()))
        made = _read_secrets(db, tenant)
    assert made is not None
    return made


def _read_secrets(db: Connection, tenant: str) -> Secrets | None:
    former = func.now() < Tenant.former_until
    statement = select(
        Tenant.webhook_secret, Tenant.former_secret, Tenant.former_until, former
    ).where(Tenant.name == tenant)
    current, before, until, still = db.execute(statement).one()
    if current is None:
        return None
    return Secrets(current, before, until) if still else Secrets(current, None, None)


def rotate(farm: Farm, tenant: str, *, actor: Actor | None = None) -> Secrets:
    """Make a new secret; the one before it signs too for a day."""
    secrets_of(farm, tenant)
    new = {
        "former_secret": Tenant.webhook_secret,
        "former_until": in_seconds(_OVERLAP_S),
        "webhook_secret": _new_secret(),
    }
    rotated = update(Tenant).where(Tenant.name == tenant).values(new).returning(Tenant.name)
    audit.carry_out(farm, rotated, Deed("webhook.rotate", tenant), actor)
    return secrets_of(farm, tenant)


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def test(farm: Farm, receiver: Values) -> Values:
    """Send an endpoint an event of no video, at once, even when it is switched off."""
    columns = {"id": new_id("evt"), "tenant": receiver["tenant"], "type": TEST}
    with farm.db.connect() as db:
        db.execute(insert(WebhookDelivery).values(columns | {"endpoint_id": receiver["id"]}))
    return delivery(farm, columns["id"], None)


@dataclass(frozen=True, slots=True)
class Log:
    """Deliveries, newest first, and whether more follow."""

    rows: list[Values]
    has_more: bool


def deliveries(
    farm: Farm, tenant: str | None, *, state: str | None, after: str | None, limit: int
) -> Log:
    """Read the log; each row has the `url` that it goes to."""
    statement = _log(tenant).order_by(WebhookDelivery.id.desc()).limit(limit + 1)
    if state is not None:
        statement = statement.where(*_STATES[state])
    if after is not None:
        statement = statement.where(WebhookDelivery.id < after)
    with farm.db.connect() as db:
        rows = [dict(row) for row in db.execute(statement).mappings()]
    return Log(rows[:limit], has_more=len(rows) > limit)


def _log(tenant: str | None) -> Select[Any]:
    url = func.coalesce(WebhookEndpoint.url, Video.webhook_url).label("url")
    told = [column for column in WebhookDelivery.__table__.c if column.name != "body"]
    statement = select(*told, url).outerjoin(WebhookEndpoint).outerjoin(Video)
    return statement if tenant is None else statement.where(WebhookDelivery.tenant == tenant)


def delivery(farm: Farm, event_id: str, tenant: str | None) -> Values:
    """Read one delivery.

    Raises:
        WanfarmError: `webhook_not_found`, also when it is another tenant's.
    """
    with farm.db.connect() as db:
        row = db.execute(_log(tenant).where(WebhookDelivery.id == event_id)).mappings().first()
    if row is None:
        raise WanfarmError(
            "webhook_not_found",
            f"There is no delivery '{event_id[:40]}'. They are kept for 30 days, and go with "
            "their video or webhook. See /v1/webhooks/deliveries.",
        )
    return dict(row)


def redeliver(
    farm: Farm, event_id: str, tenant: str | None, *, actor: Actor | None = None
) -> Values:
    """Have one more try made at once, whatever came of those before; the body is the same.

    Raises:
        WanfarmError: `webhook_not_found`.
    """
    delivery(farm, event_id, tenant)
    again = {"delivered_at": None, "dead_at": None, "next_at": func.now()}
    due = update(WebhookDelivery).where(WebhookDelivery.id == event_id).values(again)
    deed = Deed("webhook.redeliver", event_id)
    audit.carry_out(farm, due.returning(WebhookDelivery.id), deed, actor)
    return delivery(farm, event_id, tenant)


def prune(farm: Farm) -> int:
    """Forget deliveries of more than 30 days ago that are over; returns how many."""
    over = not_(and_(*PENDING))
    old = delete(WebhookDelivery).where(WebhookDelivery.at < in_seconds(-LOG_S), over)
    with farm.db.connect() as db:
        return db.execute(old).rowcount


def pending(farm: Farm) -> int:
    """Count the deliveries that are not over."""
    with farm.db.connect() as db:
        return db.scalar(select(func.count()).select_from(WebhookDelivery).where(*PENDING)) or 0
