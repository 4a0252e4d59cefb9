"""One statement per write: the row moves; its numbered event and webhooks are born with it."""

from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    String,
    TextClause,
    Update,
    cast,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.jobs import charges, outbox, tally
from shared.machinery.farm import Farm
from shared.machinery.feed import EVENTS
from shared.machinery.tables import Attempt, Event, Video
from shared.vocabulary.states import MOVES, VideoState

Values = dict[str, Any]
STEPS_KEPT_S: Final = 86_400.0  # after a video's end; then upkeep forgets its step events


@dataclass(frozen=True, slots=True)
class Written:
    """What a write left behind; `row` has the columns of `videos` after it."""

    seq: int
    row: Values


@dataclass(frozen=True, slots=True)
class Fence:
    """A video in one of its attempts: every write of a worker carries it."""

    video_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Write:
    """What a write does beside moving the state.

    `values` are columns of the row, `data` is what the event tells, `attempt` is what the same
    statement does to `attempts`.
    """

    values: Values = field(default_factory=dict[str, Any])
    data: Values = field(default_factory=dict[str, Any])
    attempt: "AttemptWrite | None" = None


def move(
    farm: Farm,
    video_id: TextClause | str,
    old: VideoState,
    new: VideoState,
    write: Write,
    *where: ColumnElement[bool],
) -> Written | None:
    """Compare and set a video's state: the only function that does.

    Args:
        farm: the handles.
        video_id: which video; may be a subquery that finds and locks it.
        old: the state it must be in.
        new: the state it gets.
        write: the other columns, the event's data, the attempt's row.
        where: further conditions, such as the fence.

    Returns:
        The row as written, or None when someone was first; then nothing was written.
    """
    assert new in MOVES[old], f"{old} -> {new}"
    change = (
        update(Video)
        .where(Video.id == video_id, Video.state == old, *where)
        .values(state=new, **write.values)
    )
    told = {"from": old.value, "to": new.value} | write.data
    written = _write(farm, change, "state", told, write.attempt, new)
    if written is not None:
        tally.moved(farm.meters, written.row, new, write.attempt and write.attempt.outcome)
        tally.ended(farm.traces, written.row, new)
    return written


def note(farm: Farm, event: str, write: Write, *where: ColumnElement[bool]) -> Written | None:
    """Write to a row without moving it, with its event; None when no row fits the conditions."""
    return _write(farm, update(Video).where(*where).values(**write.values), event, write.data, None)


def held_by(fence: Fence) -> tuple[ColumnElement[bool], ...]:
    """The condition that an attempt still holds its row."""
    return (
        Video.id == fence.video_id,
        Video.state == VideoState.IN_PROGRESS,
        Video.attempt == fence.attempt,
    )


@dataclass(frozen=True, slots=True)
class AttemptWrite:
    """What a move does to `attempts`: a new row (`opens`), or the end of the current one."""

    values: Values
    opens: bool = False
    free: bool = False  # it is not charged

    @property
    def outcome(self) -> str | None:
        """How it ended; None of one that opens."""
        return None if self.opens else self.values["outcome"]

    def statements(self, moved: CTE) -> list[CTE]:
        """Phrase it over the moved row, with what it costs the tenant."""
        return self._opened(moved) if self.opens else self._ended(moved)

    def _opened(self, moved: CTE) -> list[CTE]:
        names = ["video_id", "number", "charged_s", *self.values]
        guess = charges.estimate(moved)
        source = select(moved.c.id, moved.c.attempt, guess, *_literals(self.values))
        opened = insert(Attempt).from_select(names, source)
        made = opened.returning(Attempt.video_id, Attempt.charged_s).cte("opened")
        return [made, *charges.charge(moved, made, made.c.charged_s)]

    def _ended(self, moved: CTE) -> list[CTE]:
        paid = charges.settled(moved, free=self.free)
        ended = (
            update(Attempt)
            .where(Attempt.video_id == paid.c.video_id, Attempt.number == paid.c.number)
            .values(ended_at=func.now(), charged_s=paid.c.cost_s, **self.values)
            .cte("ended")
        )
        charged = charges.charge(moved, paid, paid.c.cost_s - paid.c.charged_s)
        learnt = [charges.learn(moved, paid)] if self.outcome == "completed" else []
        return [ended, *charged, *learnt]


def _write(
    farm: Farm,
    change: Update,
    event: str,
    data: Values,
    attempt: AttemptWrite | None,
    new: VideoState | None = None,
) -> Written | None:
    moved = change.values(seq=Video.seq + 1).returning(*Video.__table__.c).cte("moved")
    recorded = (
        insert(Event)
        .from_select(
            ["video_id", "seq", "at", "type", "attempt", "data"],
            select(
                moved.c.id,
                moved.c.seq,
                func.now(),
                literal(event, String),
                moved.c.attempt,
                literal(data, JSONB),
            ),
        )
        .cte("recorded")
    )
    statement = select(moved, func.now().label("at")).add_cte(recorded)
    besides = attempt.statements(moved) if attempt else []
    if new is not None:
        besides += outbox.told(moved, new)
    statement = statement.add_cte(*besides)
    with farm.db.connect() as connection:
        row = connection.execute(statement).mappings().first()
    if row is None:
        return None
    publish(farm, dict(row), event, data)
    return Written(seq=row["seq"], row=dict(row))


def publish(farm: Farm, row: Values, event: str, data: Values) -> None:
    """Tell the listeners of a committed event; they read Postgres if this is lost."""
    line = event_line(row, event, data)
    farm.feed.publish(EVENTS, {"tenant": row["tenant"], "event": line})


def event_line(row: Values, event: str, data: Values) -> Values:
    """Phrase an event as the wire has it; `row` has id, seq, at and attempt."""
    return {
        "id": row["seq"],
        "type": event,
        "video_id": row["id"],
        "at": round(row["at"].timestamp(), 3),
        "attempt": row["attempt"],
        **data,
    }


def in_seconds(seconds: float | ColumnElement[float]) -> ColumnElement[Any]:
    """A moment from now, by the database's clock."""
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _literals(values: Values) -> list[ColumnElement[Any]]:
    columns = Attempt.__table__.c
    return [
        cast(literal(value, columns[name].type), columns[name].type)
        for name, value in values.items()
    ]
