"""The audit log over HTTP: who did what to the farm, newest first."""

from typing import Annotated, Final

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing.registry import Call, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.schemas import AuditEntry, AuditList
from api.plumbing.wire import json_response
from shared.jobs import audit
from shared.jobs.ledger import Values
from shared.jobs.presenters import unix
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import is_id


class AuditQuery(BaseModel):
    """Which page of the log."""

    model_config = ConfigDict(extra="forbid")

    action: audit.Action | None = Field(default=None, description="Only deeds of this kind.")
    after: str | None = Field(default=None, description="The last id of the page before.")
    limit: Annotated[int, Field(ge=1, le=100)] = Field(default=20, description="At most so many.")


@endpoint(
    Route(
        method="GET",
        path="/v1/audit",
        scope="admin",
        summary="List who did what to the farm, newest first.",
        query=AuditQuery,
        returns=AuditList,
        errors=("invalid_cursor",),
    )
)
def list_deeds(call: Call[AuditQuery]) -> Response:
    """Page through the deeds of all tenants' keys."""
    query = call.query
    if query.after is not None and not is_id(query.after, "audit"):
        raise WanfarmError(
            "invalid_cursor",
            f"after is '{query.after[:40]}'. It must be the last id of a page. Start without it.",
            param="after",
        )
    log = audit.deeds(farm(), action=query.action, after=query.after, limit=query.limit)
    data = [_entry(row) for row in log.rows]
    last = data[-1].id if data else None
    return json_response(AuditList(data=data, last_id=last, has_more=log.has_more))


def _entry(row: Values) -> AuditEntry:
    return AuditEntry.model_validate(row | {"at": unix(row["at"])})


ENDPOINTS: Final = (list_deeds,)
