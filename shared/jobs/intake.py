"""From an order to a waiting row: idempotency, caps, the row, the ring."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection, String, bindparam, text
from sqlalchemy.exc import DataError, IntegrityError

from shared.jobs import arrivals, offers, pauses
from shared.jobs.arrivals import Seen
from shared.jobs.ledger import Values, publish
from shared.jobs.orders import Order
from shared.jobs.presenters import Outlook
from shared.machinery.farm import MOST_TOGETHER, Farm
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import new_id
from shared.vocabulary.metrics import DOORBELLS, SUBMITTED


@dataclass(frozen=True, slots=True)
class Accepted:
    """The video of an order; `replayed` when an earlier request with the same key made it."""

    video_id: str
    replayed: bool = False
    row: Values | None = None  # of a new one, as `queries.one` reads it
    outlook: Outlook | None = None  # with the row


def submit(farm: Farm, order: Order) -> Accepted:
    """Store a video as queued and ring for it; orders that come at once share their statements.

    Raises:
        WanfarmError: `intake_paused`; `storage_full`; `queue_full`; `does_not_fit`, when it is too
            large for every group; or `idempotency_key_reused` for another request.
    """
    return farm.submits.ask(order, partial(_submit_all, farm))


def _submit_all(farm: Farm, orders: Sequence[Order]) -> list[Accepted | Exception]:
    """Take each order, or say why not."""
    try:
        with farm.db.connect() as db:
            return _take(farm, db, orders)
    except (DataError, IntegrityError) as err:  # the fault of one must not be that of the others
        if len(orders) == 1:
            return [err]
        return [answer for order in orders for answer in _submit_all(farm, [order])]


def _take(farm: Farm, db: Connection, orders: Sequence[Order]) -> list[Accepted | Exception]:
    seen = arrivals.look(db, orders)
    rooms = _Rooms(farm, db, seen.written)
    ids = [new_id("video") for _ in orders]
    answers = [_decide(farm, order, seen, rooms) for order in orders]
    new = {id_: order for id_, order, no in zip(ids, orders, answers, strict=True) if no is None}
    made = arrivals.store(db, new, seen) if new else {}
    late = [order for id_, order in new.items() if id_ not in made]
    if late:  # a twin with the same key was first, in the meantime
        seen = arrivals.look(db, late)
    return [
        answer or (_accepted(farm, made[id_], seen) if id_ in made else _replay(order, seen))
        for id_, order, answer in zip(ids, orders, answers, strict=True)
    ]


def _decide(farm: Farm, order: Order, seen: Seen, rooms: "_Rooms") -> Accepted | Exception | None:
    """Answer an order that makes no new video; None for one that may."""
    if (order.tenant, order.idempotency_key) in seen.made_before:
        return _replay(order, seen)
    try:
        pauses.refuse_full_store(farm)
        if seen.paused:
            raise pauses.intake_paused(seen.reason)
        next(offers.fitting(order.spec, order.delivery.group, seen.groups), None)
        rooms.take(order)
    except WanfarmError as err:
        return err
    return None


def _replay(order: Order, seen: Seen) -> Accepted | WanfarmError:
    fingerprint, video_id = seen.made_before[order.tenant, order.idempotency_key]
    if fingerprint == order.fingerprint:
        return Accepted(video_id, replayed=True)
    return WanfarmError(
        "idempotency_key_reused",
        "The Idempotency-Key was used for another request. Keys name one request. Send a new key.",
    )


def _accepted(farm: Farm, row: Values, seen: Seen) -> Accepted:
    farm.meters.count(SUBMITTED, model=row["model"])
    farm.meters.count(DOORBELLS, source="submit")
    publish(farm, row, "state", arrivals.FIRST)
    farm.doorbell.ring_soon(row["model"])
    outlook = Outlook(seen.groups, row.pop("place"))
    return Accepted(row["id"], row=row | {"attempts": []}, outlook=outlook)


class _Rooms:
    """How many videos more may wait: of each key, and of the farm."""

    def __init__(self, farm: Farm, db: Connection, written: int) -> None:
        """Take the number of the next transaction; counts only what is not known already."""
        self._farm = farm
        self._db = db
        self._written = written
        self._left: dict[str | None, int] = {}

    def take(self, order: Order) -> None:
        """Take a place for a video.

        Raises:
            WanfarmError: `queue_full`.
        """
        settings = self._farm.settings
        of_key = self._of(order.key_id, settings.max_queued_per_key, order)
        if of_key <= 0:
            raise _full(f"for key '{order.key_name}'", settings.max_queued_per_key)
        of_farm = self._of(None, settings.max_queued, order)
        if of_farm <= 0:
            raise _full("of this farm", settings.max_queued)
        self._left |= {order.key_id: of_key - 1, None: of_farm - 1}

    def _of(self, key: str | None, most: int, order: Order) -> int:
        if key not in self._left:
            self._left[key] = self._known(key) or self._counted(key, most, order)
        return self._left[key]

    def _known(self, key: str | None) -> int | None:
        """What is left at least: no transaction makes more videos wait than come together."""
        since, left = self._farm.room.get(key, (0, 0))
        left -= MOST_TOGETHER * (self._written - since)
        return left if left >= MOST_TOGETHER else None

    def _counted(self, key: str | None, most: int, order: Order) -> int:
        asked = {"tenant": order.tenant, "key": key, "most": most}
        found = self._db.execute(_COUNT, asked).one()
        left = most - found.waiting
        self._farm.room[key] = (found.since, left)
        return left


_COUNT: Final = text("""
SELECT count(*) AS waiting,
       CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS since
  FROM (SELECT FROM videos
         WHERE state = 'queued'
           AND (CAST(:key AS text) IS NULL OR tenant = :tenant AND key_id = :key)
         LIMIT :most) AS those
""").bindparams(bindparam("tenant", type_=String))


def _full(whose: str, limit: int) -> WanfarmError:
    return WanfarmError(
        "queue_full",
        f"The queue is full {whose} ({limit} of {limit} waiting). New work is refused rather than "
        "delayed without bound. Retry in about 30 s, or cancel waiting videos.",
        retry_after_s=30,
    )
