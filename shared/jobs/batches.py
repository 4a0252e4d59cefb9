"""Videos that are asked for together: stored all or none, then read, stopped, deleted as one."""

import json
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection, Select, exists, insert, select, text
from sqlalchemy import delete as sql_delete

from shared.jobs import arrivals, intake, lifecycle, offers, removal
from shared.jobs.arrivals import Seen
from shared.jobs.audit import Actor
from shared.jobs.ledger import Values
from shared.jobs.orders import Order
from shared.jobs.presenters import unix
from shared.jobs.queries import Page, is_over
from shared.machinery.database import transaction
from shared.machinery.farm import MOST_TOGETHER, Farm
from shared.machinery.tables import Batch, Video
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import new_id
from shared.vocabulary.states import VideoState
from shared.vocabulary.video import BatchItem, BatchObject, BatchUrls, State

MOST: Final = 64  # videos
_TURNS: Final = 7_221_903
_ENDS: Final[tuple[State, ...]] = ("completed", "failed", "cancelled")  # the first there is counts
_ALIVE: Final = Video.delete_requested_at.is_(None)


@dataclass(frozen=True, slots=True)
class Member:
    """One video of a batch that is asked for."""

    order: Order
    differs: Values  # in which fields from the others, and how
    places: Mapping[str, str] = field(default_factory=dict[str, str])  # of these in the request


def placed(param: str, places: Mapping[str, str]) -> str:
    """Say where the request of a batch has what a field of one of its videos is made from."""
    name, dot, inner = param.partition(".")
    return places.get(name, f"request.{name}") + dot + inner


@contextmanager
def telling_where(member: Member) -> Generator[None]:
    """Name the field at fault as the request of the batch has it."""
    try:
        yield
    except WanfarmError as err:
        param = placed(err.param or "", member.places)
        raise WanfarmError(err.code, err.message, param=param) from err


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """Videos of one sender; each has passed every check."""

    members: Sequence[Member]
    axes: Values = field(default_factory=dict[str, Any])  # fields with the values they take
    name: str | None = None
    metadata: Values = field(default_factory=dict[str, Any])
    idempotency_key: str | None = None
    fingerprint: str = ""  # of the parsed request before defaults; goes with the key


@dataclass(frozen=True, slots=True)
class Accepted:
    """The batch of an order; `replayed` when an earlier request with the same key made it."""

    batch_id: str
    replayed: bool = False


def submit(farm: Farm, asked: BatchOrder) -> Accepted:
    """Store all videos of a batch as queued, or none, and ring for them.

    Raises:
        WanfarmError: what `intake.submit` raises, for all of them or for any.
    """
    batch_id = new_id("batch")
    ids = sorted(new_id("video") for _ in asked.members)  # they wait in the order of the batch
    orders = [replace(member.order, batch_id=batch_id) for member in asked.members]
    key = {"idempotency_key": asked.idempotency_key, "fingerprint": asked.fingerprint}
    orders[0] = first = replace(orders[0], **key)
    with transaction(farm.db) as db:
        # batches of a tenant take turns: each finds the key and the videos of the one before
        db.execute(_TURN, {"turns": _TURNS, "tenant": first.tenant})
        seen = arrivals.look(db, [first])
        if made := intake.made_before(first, seen):
            return Accepted(made, replayed=True)
        intake.refuse_when_closed(farm, seen)
        intake.Rooms(farm, db, seen.written).take(first, len(ids))
        for member in asked.members:
            _refuse_when_too_large(member, seen.groups)
        db.execute(insert(Batch).values(_columns(asked, batch_id, ids)))
        rows = _store(db, dict(zip(ids, orders, strict=True)), seen)
    for row in rows:
        intake.announce(farm, row)
    return Accepted(batch_id)


_TURN: Final = text("SELECT pg_advisory_xact_lock(:turns, hashtext(:tenant))")


def _refuse_when_too_large(member: Member, known: list[Values]) -> None:
    with telling_where(member):
        order = member.order
        next(offers.fitting(order.spec, order.delivery.group, known), None)


def _columns(asked: BatchOrder, batch_id: str, ids: Sequence[str]) -> Values:
    first = asked.members[0].order
    items = [
        {"video_id": video_id, "set": member.differs}
        for video_id, member in zip(ids, asked.members, strict=True)
    ]
    return {
        "id": batch_id,
        "tenant": first.tenant,
        "key_name": first.key_name,
        "name": asked.name,
        "metadata": asked.metadata,
        "axes": asked.axes,
        "items": items,
        "unfinished": len(items),
    }


def _store(db: Connection, new: Mapping[str, Order], seen: Seen) -> list[Values]:
    """Write the videos in parts, each with a number of its own: intake counts by these."""
    rows: list[Values] = []
    left = list(new.items())
    while left:
        part, left = dict(left[:MOST_TOGETHER]), left[MOST_TOGETHER:]
        with db.begin_nested():
            stored = arrivals.store(db, part, seen)
        if len(stored) < len(part):  # the key of the first has made a video in the meantime
            raise intake.key_reused()
        rows += stored.values()
    return rows


def one(farm: Farm, batch_id: str, tenant: str | None) -> Values | None:
    """Read a batch with its `members`; None when there is none for this tenant, or none is left."""
    found = _read(farm, _visible(tenant).where(Batch.id == batch_id))
    return found[0] if found else None


def page(
    farm: Farm,
    tenant: str | None,
    *,
    limit: int,
    after: str | None = None,
    ascending: bool = False,
) -> Page:
    """Read a page of batches by its cursor; the batch that the cursor names may be gone."""
    statement = _visible(tenant).order_by(Batch.id if ascending else Batch.id.desc())
    if after is not None:
        statement = statement.where(Batch.id > after if ascending else Batch.id < after)
    found = _read(farm, statement.limit(limit + 1))
    return Page(found[:limit], has_more=len(found) > limit)


def newest(farm: Farm, tenant: str | None, most: int) -> list[Values]:
    """Read the id and the name of the newest batches."""
    statement = _visible(tenant).with_only_columns(Batch.id, Batch.name)
    with farm.db.connect() as db:
        found = db.execute(statement.order_by(Batch.id.desc()).limit(most)).mappings()
        return [dict(row) for row in found]


def _visible(tenant: str | None) -> Select[Any]:
    """Phrase the batches of a tenant that have a video left; of all tenants with None."""
    statement = select(*Batch.__table__.c).where(exists().where(Video.batch_id == Batch.id, _ALIVE))
    return statement if tenant is None else statement.where(Batch.tenant == tenant)


def _read(farm: Farm, statement: Select[Any]) -> list[Values]:
    """Read batches; each gets `members`: id, state and end of the videos that it has left."""
    with farm.db.connect() as db:
        rows = db.execute(statement).mappings()
        found: dict[str, Values] = {row["id"]: dict(row) | {"members": []} for row in rows}
        members = select(Video.batch_id, Video.id, Video.state, Video.completed_at)
        for row in db.execute(members.where(Video.batch_id.in_(found), _ALIVE)).mappings():
            found[row["batch_id"]]["members"].append(dict(row))
    # one whose last video was deleted between the two looks is gone
    return [row for row in found.values() if row["members"]]


def cancel(farm: Farm, batch: Values, *, by: str, reason: str | None = None) -> None:
    """Ask for the end of every video of a batch that is not over."""
    for member in batch["members"]:
        if not is_over(member["state"]):
            _cancel_one(farm, member["id"], by, reason)


def _cancel_one(farm: Farm, video_id: str, by: str, reason: str | None) -> None:
    try:
        lifecycle.cancel(farm, video_id, by=by, reason=reason)
    except WanfarmError as err:
        if err.code not in {"not_cancellable", "video_not_found"}:  # it has just ended, or is gone
            raise


def delete(farm: Farm, batch: Values, *, by: str, actor: Actor | None = None) -> None:
    """Delete every video of a batch, with which it is gone; upkeep removes its row."""
    removal.delete(farm, *(member["id"] for member in batch["members"]), by=by, actor=actor)


def drop_empty(farm: Farm) -> int:
    """Remove the rows of batches that have no video; returns how many."""
    empty = ~exists().where(Video.batch_id == Batch.id)
    with farm.db.connect() as db:
        return db.execute(sql_delete(Batch).where(empty)).rowcount


def show(row: Values, base_url: str) -> BatchObject:
    """Show a batch as the world sees it: what is left of it, and where that stands."""
    states = {member["id"]: member["state"] for member in row["members"]}
    counts = Counter(states.values())
    ends = [member["completed_at"] for member in row["members"]]
    own = f"{base_url}/v1/batches/{row['id']}"
    return BatchObject(
        id=row["id"],
        name=row["name"],
        status=_status(counts),
        total=len(states),
        counts={state.value: counts[state.value] for state in VideoState},
        axes=row["axes"],
        items=[
            BatchItem(**item, status=states[item["video_id"]])
            for item in row["items"]
            if item["video_id"] in states
        ],
        created_at=int(row["created_at"].timestamp()),
        completed_at=unix(max(ends)) if all(ends) else None,
        key=row["key_name"],
        tenant=row["tenant"],
        metadata=row["metadata"],
        urls=BatchUrls(
            self=own,
            cancel=f"{own}/cancel",
            videos=f"{base_url}/v1/videos?batch={row['id']}",
            sheet=f"{own}/sheet" if counts["completed"] else None,
        ),
    )


def differs_words(differs: Values) -> str:
    """Say in a few words in which settings a video differs from the others; its seed apart."""
    told = ((name, value) for name, value in differs.items() if name != "seed")
    return " · ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in told
    )


def _status(counts: Counter[str]) -> State:
    """Sum up states: as long as one is not over it is under way, and one completed is enough."""
    if counts["queued"] == counts.total():
        return "queued"
    if counts["queued"] or counts["in_progress"]:
        return "in_progress"
    return next(state for state in _ENDS if counts[state])
