"""The webhooks of a move, written by the statement that moves: no crash loses one."""

from types import MappingProxyType
from typing import Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    SelectBase,
    String,
    func,
    insert,
    literal,
    null,
    select,
    true,
    union_all,
    update,
)

from shared.machinery.tables import Batch, WebhookDelivery, WebhookEndpoint
from shared.vocabulary.ids import new_id
from shared.vocabulary.states import MOVES, VideoState

EVENTS: Final = MappingProxyType(
    {state: f"video.{state.value}" for state in MOVES if state is not VideoState.QUEUED}
)
FINAL_EVENTS: Final = tuple(name for state, name in EVENTS.items() if state.is_final)


BATCH_COMPLETED: Final = "batch.completed"


def told(moved: CTE, new: VideoState) -> list[CTE]:
    """Phrase a delivery for each receiver of a move, over the moved row."""
    if new not in EVENTS:
        return []
    receivers = select(moved.c.id, moved.c.tenant, WebhookEndpoint.id.label("to"))
    receivers = receivers.where(*_wanted(moved, EVENTS[new]))
    if new.is_final:
        own = select(moved.c.id, moved.c.tenant, null()).where(moved.c.webhook_url.isnot(None))
        found = union_all(receivers, own).subquery()
    else:
        found = receivers.subquery()
    kind = literal(EVENTS[new], String)
    rows = select(_event_ids(), found.c.tenant, kind, found.c.to, found.c.id)
    video = _deliveries(rows, "video_id")
    return [video, *_told_of_batch(moved)] if new.is_final else [video]


def _told_of_batch(moved: CTE) -> list[CTE]:
    """Phrase that a batch has one video less to wait for, and deliveries if it was the last.

    Of two that end at once the second waits for the row of the batch and reads it anew: one of
    them finds that none is left.
    """
    counted = (
        update(Batch)
        .where(Batch.id == moved.c.batch_id)
        .values(unfinished=Batch.unfinished - 1)
        .returning(Batch.id, Batch.tenant, Batch.unfinished)
        .cte("counted")
    )
    kind = literal(BATCH_COMPLETED, String)
    rows = select(_event_ids(), counted.c.tenant, kind, WebhookEndpoint.id, counted.c.id).where(
        counted.c.unfinished == 0, *_wanted(counted, BATCH_COMPLETED)
    )
    return [counted, _deliveries(rows, "batch_id")]


def _deliveries(rows: SelectBase, of: str) -> CTE:
    names = ["id", "tenant", "type", "endpoint_id", of]
    made = insert(WebhookDelivery).from_select(names, rows, include_defaults=False)
    return made.cte(f"told_{of}")


def _wanted(of: CTE, event: str) -> tuple[ColumnElement[bool], ...]:
    """The condition that an endpoint wants to be told of what happened to a row."""
    return (
        WebhookEndpoint.tenant == of.c.tenant,
        WebhookEndpoint.enabled.is_(true()),
        WebhookEndpoint.events.contains([event]),
    )


def _event_ids() -> ColumnElement[str]:
    """One id for each receiver: its last two letters count them."""
    number = func.to_char(func.row_number().over(), "FM00")
    return literal(new_id("evt")[:-2], String).concat(number)
