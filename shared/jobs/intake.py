"""From an order to a waiting row: idempotency, caps, the row, the ring."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection, String, bindparam, text
from sqlalchemy.exc import DataError, IntegrityError

from shared.jobs import arrivals, keys, offers, pauses
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
    rooms = Rooms(farm, db, seen.written)
    ids = [new_id("video") for _ in orders]
    answers = [_decide(farm, order, seen, rooms) for order in orders]
    new = {id_: order for id_, order, no in zip(ids, orders, answers, strict=True) if no is None}
    made = arrivals.store(db, new, seen) if new else {}
    late = [order for id_, order in new.items() if id_ not in made]
    if late:  # a twin with the same key was first, in the meantime
        seen = arrivals.look(db, late)
    return [
        answer or (_accepted(farm, made[id_], seen) if id_ in made else _twin(order, seen))
        for id_, order, answer in zip(ids, orders, answers, strict=True)
    ]


def _twin(order: Order, seen: Seen) -> Accepted | WanfarmError:
    """Answer an order whose key somebody else has just used."""
    try:
        made = made_before(order, seen)
    except WanfarmError as err:
        return err
    assert made is not None
    return Accepted(made, replayed=True)


def _decide(farm: Farm, order: Order, seen: Seen, rooms: "Rooms") -> Accepted | Exception | None:
    """Answer an order that makes no new video; None for one that may."""
    try:
        if made := made_before(order, seen):
            return Accepted(made, replayed=True)
        refuse_when_closed(farm, seen)
        next(offers.fitting(order.spec, order.delivery.group, seen.groups), None)
        rooms.take(order)
    except WanfarmError as err:
        return err
    return None


def made_before(order: Order, seen: Seen) -> str | None:
    """Give the id of what the key of an order has made before, if it has.

    Raises:
        WanfarmError: `idempotency_key_reused`, when that was another request.
    """
    made = seen.made_before.get((order.tenant, order.idempotency_key))
    if made is None:
        return None
    fingerprint, object_id = made
    if fingerprint != order.fingerprint:
        raise key_reused()
    return object_id


def key_reused() -> WanfarmError:
    """Say that a key has made something else."""
    return WanfarmError(
        "idempotency_key_reused",
        "The Idempotency-Key was used for another request. Keys name one request. Send a new key.",
    )


def refuse_when_closed(farm: Farm, seen: Seen) -> None:
    """Raise while nothing is taken in.

    Raises:
        WanfarmError: `storage_full` or `intake_paused`.
    """
    pauses.refuse_full_store(farm)
    if seen.paused:
        raise pauses.intake_paused(seen.reason)


def announce(farm: Farm, row: Values) -> None:
    """Tell listeners and workers of a new video, once it is committed."""
    farm.meters.count(SUBMITTED, model=row["model"])
    farm.meters.count(DOORBELLS, source="submit")
    publish(farm, row, "state", arrivals.FIRST)
    farm.doorbell.ring_soon(row["model"])


def _accepted(farm: Farm, row: Values, seen: Seen) -> Accepted:
    announce(farm, row)
    outlook = Outlook(seen.groups, row.pop("place"), seen.dispatches)
    return Accepted(row["id"], row=row | {"attempts": []}, outlook=outlook)


class Rooms:
    """How many videos more may wait: of each key, and of the farm."""

    def __init__(self, farm: Farm, db: Connection, written: int) -> None:
        """Take the number of the next transaction; counts only what is not known already."""
        self._farm = farm
        self._db = db
        self._written = written
        self._left: dict[str | None, int] = {}

    def take(self, order: Order, count: int = 1) -> None:
        """Take a place for a video, or for so many like it.

        Raises:
            WanfarmError: `queue_full` or `quota_exceeded`.
        """
        self._refuse_spent(order)
        settings = self._farm.settings
        most_of_key = order.limits.max_queued or settings.max_queued_per_key
        most = settings.max_queued
        of_key = self._of(order.key_id, most_of_key, order, count)
        if of_key < count:
            raise _full(f"for key '{order.key_name}'", most_of_key, count)
        of_farm = self._of(None, most, order, count)
        if of_farm < count:
            raise _full("of this farm", most, count)
        self._left |= {order.key_id: of_key - count, None: of_farm - count}

    def _refuse_spent(self, order: Order) -> None:
        """Raise when a key's videos have taken all of the day's GPU time that it has."""
        most = order.limits.gpu_seconds_per_day
        if most is not None and (used := keys.used_today(self._db, order.key_id)) >= most:
            raise WanfarmError(
                "quota_exceeded",
                f"Key '{order.key_name}' has used {used:.0f} of its {most:.0f} GPU-seconds of "
                "today. The day ends at 0:00 UTC. Wait for it, or ask your administrator for more.",
                retry_after_s=600,
            )

    def _of(self, key: str | None, most: int, order: Order, count: int) -> int:
        if key not in self._left:
            self._left[key] = self._known(key, most, count) or self._counted(key, most, order)
        return self._left[key]

    def _known(self, key: str | None, most: int, count: int) -> int | None:
        """What is left at least: no transaction makes more videos wait than come together.

        A larger batch writes them in parts, each of which has a number of its own.
        """
        since, left = self._farm.room.get((key, most), (0, 0))
        left -= MOST_TOGETHER * (self._written - since)
        return left if left >= max(count, MOST_TOGETHER) else None

    def _counted(self, key: str | None, most: int, order: Order) -> int:
        asked = {"tenant": order.tenant, "key": key, "most": most}
        found = self._db.execute(_COUNT, asked).one()
        left = most - found.waiting
        self._farm.room[key, most] = (found.since, left)
        return left


_COUNT: Final = text("""
SELECT count(*) AS waiting,
       CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS since
  FROM (SELECT FROM videos
         WHERE state = 'queued'
           AND (CAST(:key AS text) IS NULL OR tenant = :tenant AND key_id = :key)
         LIMIT :most) AS those
""").bindparams(bindparam("tenant", type_=String))


def _full(whose: str, limit: int, count: int) -> WanfarmError:
    full = f"is full {whose} ({limit} of {limit} waiting)"
    if count > 1:
        full = f"has too little room {whose} (for {limit} in all, and these are {count})"
    return WanfarmError(
        "queue_full",
        f"The queue {full}. New work is refused rather than delayed without bound. "
        "Retry in about 30 s, or cancel waiting videos.",
        retry_after_s=30,
    )
