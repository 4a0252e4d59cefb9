"""From a checked request to a waiting row: idempotency, caps, the row, the ring."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Executable,
    String,
    bindparam,
    cast,
    literal,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from shared.jobs import charges, groups, pauses
from shared.jobs.ledger import Values, in_seconds, publish
from shared.jobs.presenters import Outlook
from shared.jobs.queries import place_of
from shared.machinery.farm import Farm
from shared.machinery.tables import Event, GpuGroup, Idempotency, Video
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import new_id
from shared.vocabulary.memory import DoesNotFit, Room, fit
from shared.vocabulary.plan import Build
from shared.vocabulary.planning import plan
from shared.vocabulary.spec import Delivery, GenerationSpec
from shared.vocabulary.states import GroupState, VideoState


@dataclass(frozen=True, slots=True)
class Order:
    """A request that has passed every check, and who sent it."""

    tenant: str
    key_id: str
    key_name: str
    spec: GenerationSpec
    delivery: Delivery
    asked: tuple[str, ...]  # the fields that the caller sent
    warnings: tuple[Values, ...] = ()
    remixed_from: str | None = None
    batch_id: str | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""  # of the parsed request before defaults; goes with the key


@dataclass(frozen=True, slots=True)
class Accepted:
    """The video of an order; `replayed` when an earlier request with the same key made it."""

    video_id: str
    replayed: bool = False
    row: Values | None = None  # of a new one, as `queries.one` reads it
    outlook: Outlook | None = None  # with the row


def fingerprint(route: str, fields: Values) -> str:
    """Hash a parsed request, so that the same key with another request is noticed."""
    said = json.dumps([route, fields], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def submit(farm: Farm, order: Order) -> Accepted:
    """Store a video as queued and ring for it.

    Raises:
        WanfarmError: `intake_paused`; `storage_full`; `queue_full`; `does_not_fit`, when it is too
            large for every group; or `idempotency_key_reused` for another request.
    """
    video_id = new_id("video")
    with farm.db.connect() as db:
        seen = look(db, order)
        if seen.object_id is not None:
            return Accepted(replayed(order, seen), replayed=True)
        refuse_when_closed(farm, db, order, seen)
        refuse_when_too_large(order, seen.groups)
        row = insert_video(db, order, video_id, wakes=not seen.busy)
        if row is None:  # a twin with the same key was first, in the meantime
            return Accepted(replayed(order, look(db, order)), replayed=True)
    announce(farm, row)
    outlook = Outlook(seen.groups, row.pop("place"))
    return Accepted(video_id, row=row | {"attempts": []}, outlook=outlook)


def announce(farm: Farm, row: Values) -> None:
    """Tell listeners and workers of a new video, once it is committed."""
    publish(farm, row, "state", _FIRST)
    farm.doorbell.ring_soon(row["model"])


_FRUGAL: Final = Build(precision="bf16")
_FIRST: Values = {"from": None, "to": VideoState.QUEUED.value}


def insert_video(db: Connection, order: Order, video_id: str, *, wakes: bool) -> Values | None:
    """Write the rows of a new video; None when the key is taken.

    Args:
        db: a connection.
        order: what is asked for; its key, if it has one, stands for its batch, if it has one.
        video_id: what the video will be called.
        wakes: the tenant has had nothing to do.
    """
    # what is null is not sent: half of the columns, of most videos
    columns = {
        name: value for name, value in _columns(order, video_id).items() if value is not None
    }
    statement = _statement(tuple(columns), keyed=order.idempotency_key is not None, wakes=wakes)
    sent = {f"new_{name}": value for name, value in columns.items()}
    taken = {"taken_key": order.idempotency_key, "taken_for": order.fingerprint}
    row = db.execute(statement, sent | taken).mappings().first()
    return _UNSET | columns | dict(row) if row else None


_UNSET: Final[Values] = dict.fromkeys(column.name for column in Video.__table__.c)


@cache  # to build it takes longer than to run it
def _statement(columns: tuple[str, ...], *, keyed: bool, wakes: bool) -> Executable:
    """Write video, first event and idempotency row in one statement; nothing when the key is taken.

    Args:
        columns: of the video; its parameters are `new_<column>`.
        keyed: there is a key: `taken_key`, and `taken_for`, its fingerprint.
        wakes: the tenant has had nothing to do.
    """
    tenant = _new("tenant")
    free = select(true().label("free")).cte("free")
    if keyed:
        ours = select(
            tenant,
            bindparam("taken_key", type_=String),
            bindparam("taken_for", type_=String),
            _new("batch_id" if "batch_id" in columns else "id"),
        )
        free = (
            insert(Idempotency)
            .from_select(["tenant", "key", "fingerprint", "object_id"], ours)
            .on_conflict_do_nothing()
            .returning(Idempotency.object_id)
            .cte("free")
        )
    video = insert(Video).from_select(columns, select(*map(_new, columns)).select_from(free))
    moments = (Video.created_at, Video.run_after, Video.start_by, Video.finish_by)
    made = video.returning(Video.id, Video.seq, *moments).cte("made")
    first = select(
        made.c.id, made.c.seq, literal("state", String), literal(0), literal(_FIRST, JSONB)
    )
    names = ["video_id", "seq", "type", "attempt", "data"]
    recorded = insert(Event).from_select(names, first).cte("recorded")
    place = place_of(_new("model"), _new("priority"), _new("id")).label("place")
    statement = select(made, made.c.created_at.label("at"), place).add_cte(recorded)
    return statement.add_cte(charges.wake(tenant).cte("woken")) if wakes else statement


_FROM_NOW: Final = frozenset({"start_by", "finish_by"})  # given in seconds


def _new(column: str) -> ColumnElement[Any]:
    """The parameter for a column of the new video."""
    name, kind = f"new_{column}", Video.__table__.c[column].type
    if column in _FROM_NOW:
        return in_seconds(bindparam(name, type_=Double))
    return cast(bindparam(name, type_=kind), kind)


def _columns(order: Order, video_id: str) -> Values:
    spec, delivery = order.spec, order.delivery
    return {
        "id": video_id,
        "tenant": order.tenant,
        "key_id": order.key_id,
        "key_name": order.key_name,
        "state": VideoState.QUEUED.value,
        "attempt": 0,
        "seq": 1,
        "attempts_left": delivery.max_attempts,
        "model": spec.model,
        "spec": spec.model_dump(mode="json"),
        "asked": list(order.asked),
        "tokens": spec.tokens,
        "image_sha256": spec.image.sha256 if spec.image else None,
        "priority": delivery.priority,
        "group_wanted": delivery.group,
        "user": delivery.user,
        "metadata": delivery.metadata,
        "warnings": list(order.warnings),
        "remixed_from": order.remixed_from,
        "batch_id": order.batch_id,
        "webhook_url": delivery.webhook_url,
        "start_by": delivery.start_within_s,
        "finish_by": delivery.finish_within_s,
        "expires_in_s": delivery.expires_in_s,
        "progress": 0,
    }


@dataclass(frozen=True, slots=True)
class Seen:
    """What decides about an order, as of one moment."""

    fingerprint: str | None  # of the request that came with its key before
    object_id: str | None  # what that made
    paused: bool
    reason: str | None
    busy: bool  # the tenant has something waiting or running
    written: int  # the number of the next transaction
    groups: list[Values]  # what each offers


_ABOUT: Final = text("""
SELECT fingerprint, object_id, what IS NOT NULL AS paused, reason,
       EXISTS (SELECT FROM videos
                WHERE tenant = :tenant AND state IN ('queued', 'in_progress')) AS busy,
       CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS written
  FROM (SELECT) AS here
  LEFT JOIN idempotency ON idempotency.tenant = :tenant AND key = CAST(:key AS text)
  LEFT JOIN pauses ON what = 'intake'
""").columns(
    fingerprint=String,
    object_id=String,
    paused=Boolean,
    reason=String,
    busy=Boolean,
    written=BigInteger,
)
_LOOK: Final = (
    select(about := _ABOUT.subquery(), *groups.OFFER)
    .select_from(about.outerjoin(GpuGroup, groups.NOT_FORGOTTEN))
    .order_by(GpuGroup.name)
)


def look(db: Connection, order: Order) -> Seen:
    """Read what decides about an order: its key, the doors, the groups."""
    asked = {"tenant": order.tenant, "key": order.idempotency_key}
    rows = db.execute(_LOOK, asked).mappings().all()
    about = {column.name: rows[0][column.name] for column in _ABOUT.selected_columns}
    offers = [column.name for column in groups.OFFER]
    known = [{name: row[name] for name in offers} for row in rows if row["name"] is not None]
    return Seen(**about, groups=[groups.judged(one) for one in known])


def replayed(order: Order, seen: Seen) -> str:
    """Give what the key of an order has made before.

    Raises:
        WanfarmError: `idempotency_key_reused`, when that was another request.
    """
    if seen.object_id is None or seen.fingerprint != order.fingerprint:
        raise key_reused()
    return seen.object_id


def key_reused() -> WanfarmError:
    """Say that a key has made something else."""
    return WanfarmError(
        "idempotency_key_reused",
        "The Idempotency-Key was used for another request. Keys name one request. Send a new key.",
    )


def refuse_when_closed(
    farm: Farm, db: Connection, order: Order, seen: Seen, count: int = 1
) -> None:
    """Raise when the farm does not take so many videos now.

    Raises:
        WanfarmError: `storage_full`, `intake_paused` or `queue_full`.
    """
    pauses.refuse_full_store(farm)
    if seen.paused:
        raise pauses.intake_paused(seen.reason)
    places = range(seen.written, seen.written + count)
    most = farm.settings.max_queued_per_key
    if not _has_room(farm, db, places, most, tenant=order.tenant, key=order.key_id):
        _refuse(f"for key '{order.key_name}'", most, count)
    if not _has_room(farm, db, places, farm.settings.max_queued):
        _refuse("of this farm", farm.settings.max_queued, count)


_COUNT: Final = text("""
SELECT count(*) AS waiting,
       CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS since
  FROM (SELECT FROM videos
         WHERE state = 'queued'
           AND (CAST(:key AS text) IS NULL OR tenant = :tenant AND key_id = :key)
         LIMIT :most) AS those
""").bindparams(bindparam("tenant", type_=String))


def _has_room(
    farm: Farm,
    db: Connection,
    places: range,
    most: int,
    *,
    tenant: str | None = None,
    key: str | None = None,
) -> bool:
    """Tell whether more videos may wait; counts only when that is not known already.

    No video comes to wait without a transaction of its own, or a part of one, and each has a
    number: not more have come since a count than there were numbers.
    """
    known = farm.room.get(key, range(0))
    if places[0] in known and places[-1] in known:
        return True
    found = db.execute(_COUNT, {"tenant": tenant, "key": key, "most": most}).one()
    farm.room[key] = range(found.since, found.since + most - found.waiting)
    return found.waiting + len(places) <= most


def _refuse(whose: str, limit: int, count: int) -> None:
    full = f"is full {whose} ({limit} of {limit} waiting)"
    if count > 1:
        full = f"has too little room {whose} (for {limit} in all, and these are {count})"
    raise WanfarmError(
        "queue_full",
        f"The queue {full}. New work is refused rather than delayed without bound. "
        "Retry in about 30 s, or cancel waiting videos.",
        retry_after_s=30,
    )


def refuse_when_too_large(order: Order, known: list[Values]) -> None:
    """Refuse what no group can hold in its most frugal way; one whose cards are unknown may.

    Raises:
        WanfarmError: `does_not_fit`.
    """
    spec, wanted = order.spec, order.delivery.group
    misfits: list[DoesNotFit] = []
    for group in known:
        takes = group["state"] is not GroupState.DOWN and spec.model in group["models"]
        if not takes or wanted not in {None, group["name"]}:
            continue
        cards = [card["memory_total_bytes"] for card in group["devices"]]
        room = Room(min(cards) if cards and all(cards) else None)
        try:
            fit(spec, plan(spec, group["ranks"]), _FRUGAL, None, room)
        except DoesNotFit as misfit:
            misfits.append(misfit)
        else:
            return
    if misfits:
        best = max(misfits, key=lambda one: one.nearest.tokens if one.nearest else 0)
        raise WanfarmError("does_not_fit", str(best), param="size")
