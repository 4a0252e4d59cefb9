"""The read side: one video, a page of them, its history, its place."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from psycopg.errors import QueryCanceled
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    String,
    Text,
    asc,
    bindparam,
    desc,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError

from shared.jobs.ledger import Values, event_line
from shared.machinery.farm import Farm
from shared.machinery.tables import Attempt, Event, Pause, Video
from shared.vocabulary.errors import JobCode, WanfarmError
from shared.vocabulary.ids import least_id
from shared.vocabulary.states import MOVES, VideoState

_WITH_ERROR = [VideoState.CANCELLED.value, VideoState.FAILED.value]
_CLOCKS_DIFFER: Final = timedelta(days=1)  # at most, the clock of an API and the database's
PLACE_LIMIT: Final = 1000  # a place in the queue is counted no further
_ALIVE = Video.delete_requested_at.is_(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which videos a list shows; None does not narrow. `tenant` None means all (admins)."""

    tenant: str | None
    states: Sequence[VideoState] = ()
    error: JobCode | None = None
    model: str | None = None
    batch: str | None = None
    group: str | None = None
    key_name: str | None = None
    text: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Values | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and whether more follow."""

    rows: list[Values]
    has_more: bool


def one(farm: Farm, video_id: str, tenant: str | None) -> Values | None:
    """Read a video with its attempts; None when there is none for this tenant."""
    with farm.db.connect() as db:
        row = db.execute(_ONE, {"video_id": video_id, "tenant": tenant}).mappings().first()
    if row is None:
        return None
    return dict(row) | {"attempts": attempts(farm, video_id)}


# What is asked at every request is built once: to write it takes longer than to run it.
_OF_VIDEO: Final = bindparam("video_id", type_=String)
_ONE: Final = select(*Video.__table__.c).where(
    Video.id == _OF_VIDEO,
    Video.tenant == func.coalesce(bindparam("tenant", type_=String), Video.tenant),
    _ALIVE,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """The least that tells whether a video moved on."""

    seq: int
    state: VideoState

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more will happen."""
        return self.state.is_final


def standing(farm: Farm, video_id: str) -> Standing | None:
    """Read where a video stands; None when it is gone."""
    with farm.db.connect() as db:
        row = db.execute(_STANDING, {"video_id": video_id}).first()
    return Standing(row.seq, VideoState(row.state)) if row else None


_STANDING: Final = select(Video.seq, Video.state).where(Video.id == _OF_VIDEO, _ALIVE)


def attempts(farm: Farm, video_id: str) -> list[Values]:
    """Read all tries at a video, first to last."""
    with farm.db.connect() as db:
        return [dict(row) for row in db.execute(_ATTEMPTS, {"video_id": video_id}).mappings()]


_ATTEMPTS: Final = (
    select(*Attempt.__table__.c).where(Attempt.video_id == _OF_VIDEO).order_by(Attempt.number)
)


def page(
    farm: Farm, which: Filter, *, limit: int, after: str | None = None, ascending: bool = False
) -> Page:
    """Read a page by its cursor; the row that the cursor names may be gone.

    Raises:
        WanfarmError: `search_too_wide`, when no index serves a filter and the database gave up.
    """
    states = sorted({state.value for state in which.states})
    if which.error and not states:  # so that nobody looks through what was completed
        states = _WITH_ERROR
    statement = select(*Video.__table__.c).where(_ALIVE, *_conditions(which))
    if after is not None:
        statement = statement.where(Video.id > after if ascending else Video.id < after)
    order, other = (asc, desc) if ascending else (desc, asc)
    if states:
        each = statement.where(Video.state.between(_STATES.c.state, _STATES.c.state))
        each = each.order_by(other(Video.state), order(Video.id)).limit(limit + 1).lateral()
        statement = select(*each.c).select_from(_STATES, each).order_by(order(each.c.id))
    else:
        statement = statement.order_by(order(Video.id))
    with farm.db.connect() as db, _saying_what_took_long(which):
        found = db.execute(statement.limit(limit + 1), {"states": states} if states else {})
        rows = [dict(row) for row in found.mappings()]
    return Page(rows[:limit], has_more=len(rows) > limit)


@contextmanager
def _saying_what_took_long(which: Filter) -> Generator[None]:
    """Name the filter that no index serves, when the database has given the search up."""
    wide = {"q": which.text, "metadata": which.metadata, "error": which.error, "model": which.model}
    searched = [name for name, value in wide.items() if value]
    try:
        yield
    except OperationalError as err:
        if not (searched and isinstance(err.orig, QueryCanceled)):
            raise
        message = (
            "The search took too long. It looks into every video that the other filters leave. "
            "Narrow it by created_after, status, key or group."
        )
        raise WanfarmError("search_too_wide", message, param=searched[0]) from err


# Each state is read in the order of the index that begins with it. Asked for the newest of a state
# that is equal to something, Postgres passes over all that are newer in other states: it knows how
# common a state is, and not that 50,000 of another one came last.
_STATES: Final = (
    func.unnest(bindparam("states", type_=ARRAY(Text))).table_valued("state").render_derived()
)


def _conditions(which: Filter) -> list[ColumnElement[bool]]:
    equal = [
        (Video.tenant, which.tenant),
        (Video.model, which.model),
        (Video.batch_id, which.batch),
        (Video.group_name, which.group),
        (Video.key_name, which.key_name),
    ]
    conditions: list[ColumnElement[bool]] = [
        column == value for column, value in equal if value is not None
    ]
    if which.error:
        conditions.append(Video.error["code"].astext == which.error)
    if which.text:
        conditions.append(Video.spec["prompt"].astext.icontains(which.text, autoescape=True))
    if which.created_after:
        conditions += [
            Video.created_at > which.created_after,
            Video.id > _id_at(which.created_after, -1),
        ]
    if which.created_before:
        conditions += [
            Video.created_at < which.created_before,
            Video.id < _id_at(which.created_before, 1),
        ]
    if which.metadata:
        conditions.append(Video.meta.cast(JSONB).contains(which.metadata))
    return conditions


def _id_at(moment: datetime, side: int) -> str:
    """Bound the ids of a moment, so that an index leads there; an API's own clock made them."""
    return least_id("video", (moment + side * _CLOCKS_DIFFER).timestamp())


def user_of_lora(farm: Farm, name: str) -> str | None:
    """Find a video that waits or runs and names an adapter."""
    named = Video.spec["loras"].contains([{"name": name}])
    live = Video.state.in_([VideoState.QUEUED, VideoState.IN_PROGRESS])
    with farm.db.connect() as db:
        return db.scalar(select(Video.id).where(live, named).limit(1))


_PRIORITY: Final = bindparam("priority", type_=Integer)


def place(farm: Farm, row: Values) -> int:
    """Tell how many waiting videos of its model come before this one, plus one."""
    return turn(farm, row)[0]


def turn(farm: Farm, row: Values) -> tuple[int, bool]:
    """Tell the place of a waiting video, and whether anything is started at all."""
    this = {name: row[name] for name in ("model", "priority", "id")}
    with farm.db.connect() as db:
        found = db.execute(_TURN, this).one()
    return found[0], found[1]


_DISPATCHES: Final = ~exists().where(Pause.what == "dispatch")
_TURN: Final = select(func.count() + 1, _DISPATCHES).select_from(
    select(Video.id)
    .where(
        Video.state == VideoState.QUEUED,
        Video.model == bindparam("model", type_=String),
        Video.priority >= _PRIORITY,  # bounds what is read of the index
        or_(Video.priority > _PRIORITY, Video.id < bindparam("id", type_=String)),
    )
    .limit(PLACE_LIMIT)
    .subquery()
)


def events(farm: Farm, video_id: str, *, after: int = 0, limit: int = 500) -> list[Values]:
    """Read ledger lines past a number, in order, as the wire has them."""
    asked = {"video_id": video_id, "after": after, "most": limit}
    with farm.db.connect() as db:
        rows = db.execute(_EVENTS, asked).mappings().all()
    return [event_line(dict(row) | {"id": video_id}, row["type"], row["data"]) for row in rows]


def newest_events(farm: Farm, video_id: str, most: int) -> list[Values]:
    """Read the last ledger lines of a video, in order; see `events`."""
    newest = select(func.max(Event.seq)).where(Event.video_id == video_id)
    with farm.db.connect() as db:
        last = db.scalar(newest) or 0
    return events(farm, video_id, after=max(0, last - most), limit=most)


_EVENTS: Final = (
    select(Event.seq, Event.at, Event.type, Event.attempt, Event.data)
    .where(Event.video_id == _OF_VIDEO, Event.seq > bindparam("after"))
    .order_by(Event.seq)
    .limit(bindparam("most", type_=Integer))
)


def gpu_seconds(attempts: Sequence[Values]) -> float:
    """Sum what the ended attempts of a video cost."""
    return round(
        sum(
            (a["ended_at"] - a["claimed_at"]).total_seconds() * a["ranks"]
            for a in attempts
            if a["ended_at"]
        ),
        1,
    )


def is_over(state: str) -> bool:
    """Tell whether a row's state is final."""
    return not MOVES[VideoState(state)]
