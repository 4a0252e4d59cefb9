"""Who did what to the farm: one row for each deed, written by the statement that does it."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from sqlalchemy import Delete, Insert, Select, String, Update, delete, insert, literal, select
from sqlalchemy.dialects.postgresql import JSONB

from shared.jobs.ledger import Values, in_seconds
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.machinery.tables import Audit
from shared.vocabulary.ids import new_id

Action = Literal[
    "key.create", "key.change", "key.revoke", "group.drain", "group.resume", "queue.pause",
    "queue.resume", "video.delete", "webhook.create", "webhook.change", "webhook.delete",
    "webhook.redeliver", "webhook.rotate",
]  # fmt: skip
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for a deed: a key, in one request."""

    tenant: str
    key_id: str
    key_name: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Deed:
    """What is done to which object; `detail` is small, and holds no secret."""

    action: Action
    object_id: str
    detail: Values = field(default_factory=dict[str, Any])


def carry_out(
    farm: Farm, change: Insert | Update | Delete, deed: Deed, actor: Actor | None
) -> list[Values]:
    """Make a change and write down, in the same statement, who asked for it.

    Args:
        farm: the handles.
        change: has a RETURNING, and gives a value to each column whose default is Python's.
        deed: what the change is; when it changes no row, nothing was done and nothing is told.
        actor: None when nobody asked: the farm does it by itself, and it is no deed.

    Returns:
        What the change returns.
    """
    with farm.db.connect() as db:
        statement = _told(change, deed, actor) if actor else change
        rows = [dict(row) for row in db.execute(statement).mappings()]
    if actor and rows:
        about = {"object": deed.object_id, "by": actor.key_id, "request_id": actor.request_id}
        logger().info(deed.action, **about)
    return rows


def _told(change: Insert | Update | Delete, deed: Deed, actor: Actor) -> Select[Any]:
    done = change.cte("done")
    row = {
        "id": literal(new_id("audit"), String),
        "tenant": literal(actor.tenant, String),
        "key_id": literal(actor.key_id, String),
        "key_name": literal(actor.key_name, String),
        "action": literal(deed.action, String),
        "object_id": literal(deed.object_id, String),
        "detail": literal(deed.detail, JSONB),
        "request_id": literal(actor.request_id, String),
    }
    told = insert(Audit).from_select([*row], select(*row.values()).select_from(done).limit(1))
    return select(*done.c).add_cte(told.cte("told"))


@dataclass(frozen=True, slots=True)
class Log:
    """Deeds, newest first, and whether more follow."""

    rows: list[Values]
    has_more: bool


def deeds(
    farm: Farm,
    *,
    limit: int,
    action: Action | None = None,
    after: str | None = None,
    request_id: str | None = None,
) -> Log:
    """Read the log of all tenants; `after` is the last id of the page before."""
    statement = select(*Audit.__table__.c).order_by(Audit.id.desc()).limit(limit + 1)
    if action is not None:
        statement = statement.where(Audit.action == action)
    if after is not None:
        statement = statement.where(Audit.id < after)
    if request_id is not None:
        statement = statement.where(Audit.request_id == request_id)
    with farm.db.connect() as db:
        rows = [dict(row) for row in db.execute(statement).mappings()]
    return Log(rows[:limit], has_more=len(rows) > limit)


def prune(farm: Farm) -> int:
    """Forget deeds of more than WANFARM_AUDIT_DAYS ago; returns how many."""
    old = Audit.at < in_seconds(-_DAY_S * farm.settings.audit_days)
    with farm.db.connect() as db:
        return db.execute(delete(Audit).where(old)).rowcount
