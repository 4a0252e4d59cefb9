"""Retries by clients that name none: the openai client repeats a request that got no answer.

It sends no Idempotency-Key, and counts: 0 at first, then 1, 2. A repeated request is answered with
the video of the one before it.
"""

from typing import Final

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert

from shared.jobs.ledger import in_seconds
from shared.jobs.orders import Order
from shared.machinery.farm import Farm
from shared.machinery.tables import Idempotency

_WITHIN_S: Final = 120
_OURS: Final = "\x01"  # no client's key begins so


def remember(farm: Farm, order: Order, video_id: str) -> None:
    """Note which video an order without a key has made, for a retry that may come."""
    row = insert(Idempotency).values(
        tenant=order.tenant, key=_key(order), fingerprint="0", object_id=video_id
    )
    newest = {name: row.excluded[name] for name in ("fingerprint", "object_id", "at")}
    with farm.db.connect() as db:
        db.execute(row.on_conflict_do_update(index_elements=["tenant", "key"], set_=newest))


def made_before(farm: Farm, order: Order, count: int) -> str | None:
    """Find the video that an equal order has just made, once for each further try.

    Args:
        farm: the handles.
        order: what is asked again.
        count: how often it was asked before, from 1. Another request that is equal by intent
            counts from 1 as well, and so finds nothing.
    """
    mine = (Idempotency.tenant == order.tenant, Idempotency.key == _key(order))
    lately = (Idempotency.at > in_seconds(-_WITHIN_S), Idempotency.fingerprint < str(count))
    found = update(Idempotency).where(*mine, *lately).values(fingerprint=str(count))
    with farm.db.connect() as db:
        return db.scalar(found.returning(Idempotency.object_id))


def _key(order: Order) -> str:
    return f"{_OURS}{order.key_id}:{order.fingerprint}"
