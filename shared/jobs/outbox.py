"""The webhooks of a move, written by the statement that moves: no crash loses one."""

from types import MappingProxyType
from typing import Final

from sqlalchemy import CTE, String, func, insert, literal, null, select, union_all

from shared.machinery.tables import WebhookDelivery, WebhookEndpoint
from shared.vocabulary.ids import new_id
from shared.vocabulary.states import MOVES, VideoState

EVENTS: Final = MappingProxyType(
    {state: f"video.{state.value}" for state in MOVES if state is not VideoState.QUEUED}
)
FINAL_EVENTS: Final = tuple(name for state, name in EVENTS.items() if state.is_final)


def told(moved: CTE, new: VideoState) -> list[CTE]:
    """Phrase a delivery for each receiver of a move, over the moved row."""
    if new not in EVENTS:
        return []
    wants = (
        WebhookEndpoint.tenant == moved.c.tenant,
        WebhookEndpoint.enabled,
        WebhookEndpoint.events.contains([EVENTS[new]]),
    )
    receivers = select(moved.c.id, moved.c.tenant, WebhookEndpoint.id.label("to")).where(*wants)
    if new.is_final:
        own = select(moved.c.id, moved.c.tenant, null()).where(moved.c.webhook_url.isnot(None))
        found = union_all(receivers, own).subquery()
    else:
        found = receivers.subquery()
    # one id for each receiver: its last two letters count them
    number = func.to_char(func.row_number().over(), "FM00")
    ids = literal(new_id("evt")[:-2], String).concat(number)
    rows = select(ids, found.c.tenant, literal(EVENTS[new], String), found.c.to, found.c.id)
    names = ["id", "tenant", "type", "endpoint_id", "video_id"]
    return [insert(WebhookDelivery).from_select(names, rows).cte("told")]
