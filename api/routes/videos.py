"""The one resource: make, look at, list, stop, delete and re-run videos."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from flask import Response, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.plumbing import asking
from api.plumbing.links import base_url
from api.plumbing.registry import Call, NoQuery, Route, endpoint, small_body
from api.plumbing.runtime import farm
from api.plumbing.schemas import VideoDeleted
from api.plumbing.waiting import WaitQuery, wait_until_over
from api.plumbing.wire import json_response
from shared.jobs import changes, lifecycle, presenters, queries, removal
from shared.jobs.intake import Accepted
from shared.jobs.ledger import Values
from shared.jobs.presenters import Outlook
from shared.vocabulary.catalog import find_model
from shared.vocabulary.errors import JobCode, WanfarmError
from shared.vocabulary.ids import is_id
from shared.vocabulary.request import Metadata, Priority, VideoRequest
from shared.vocabulary.states import VideoState
from shared.vocabulary.video import VideoObject, VideoPage

_LAST_MOMENT: Final = 253_402_300_799
TAKING: Final = (
    "invalid_value", "intake_paused", "queue_full", "storage_full", "idempotency_key_reused",
    "image_too_large", "priority_not_allowed",
)  # fmt: skip


def _comma_list(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


Moment = Annotated[int, Field(ge=0, le=_LAST_MOMENT)]
Name = Annotated[str, Field(max_length=200)]
StateList = Annotated[
    list[Literal["queued", "in_progress", "completed", "failed", "cancelled"]],
    BeforeValidator(_comma_list),
]


class ListQuery(BaseModel):
    """Which videos, and which page of them."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The last id of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=100)] = Field(default=20, description="Videos per page.")
    order: Literal["asc", "desc"] = Field(default="desc", description="By creation.")
    status: StateList | None = Field(default=None, description="States, comma-separated.")
    error: JobCode | None = Field(default=None, description="Code of the error it ended with.")
    model: Name | None = Field(default=None, description="An id or alias of /v1/models.")
    batch: Name | None = Field(default=None, description="The batch that it belongs to.")
    group: Name | None = Field(default=None, description="The group that rendered it last.")
    key: Name | None = Field(default=None, description="The name of the key that sent it.")
    q: Name | None = Field(default=None, description="Text within the prompt.")
    created_after: Moment | None = Field(default=None, description="Unix seconds.")
    created_before: Moment | None = Field(default=None, description="Unix seconds.")
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = Field(
        default=None, description="Pairs that it carries: `metadata[key]=value`."
    )
    tenant: Name | None = Field(default=None, description="Whose; scope admin.")


class ChangeBody(BaseModel):
    """What of a video may change; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority | None = Field(
        default=None, description="While it waits: higher starts sooner; above 0 if the key may."
    )
    metadata: Metadata | None = Field(default=None, description="Replaces all pairs.")


class CancelBody(BaseModel):
    """Why, if anybody should know."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Shown with the video."
    )


def find(call: Call[Any]) -> Values:
    """Read the video that the path names, if the caller may see it.

    Raises:
        WanfarmError: `video_not_found`, also for another tenant's or a malformed id.
    """
    video_id = call.path["video_id"]
    row = queries.one(farm(), video_id, call.tenant) if is_id(video_id, "video") else None
    if row is None:
        raise not_found(video_id)
    return row


def not_found(video_id: str) -> WanfarmError:
    """The one answer to ids of nobody, of others, and to nonsense."""
    return WanfarmError(
        "video_not_found",
        f"There is no video '{video_id[:60]}'. It may have been deleted, or belong to another "
        "tenant. Check the id.",
    )


def show(row: Values, headers: dict[str, str], outlook: Outlook | None = None) -> Response:
    """Answer with a video, and advise when to ask again."""
    shown, poll_after_ms = presenters.answer(farm(), row, base_url(), outlook)
    if poll_after_ms is not None:
        headers["openai-poll-after-ms"] = str(poll_after_ms)
    return json_response(shown, headers=headers)


def show_new(call: Call[WaitQuery], accepted: Accepted) -> Response:
    """Answer with the video of an order, waiting for its end as asked."""
    video_id = accepted.video_id
    waited = wait_until_over(video_id, call.caller, call.query)
    row = None if waited else accepted.row
    row = row or queries.one(farm(), video_id, call.caller.tenant)
    if row is None:
        raise not_found(video_id)
    replayed = {"Idempotency-Replayed": "true"} if accepted.replayed else {}
    headers = waited | {"Location": f"/v1/videos/{video_id}"} | replayed
    return show(row, headers, accepted.outlook)


@endpoint(
    Route(
        method="POST",
        path="/v1/videos",
        scope="submit",
        rate="submits",
        summary="Make a video.",
        query=WaitQuery,
        body=VideoRequest,
        returns=VideoObject,
        errors=TAKING,
        headers=("Idempotency-Key", "Prefer"),
    )
)
def create(call: Call[WaitQuery]) -> Response:
    """Store a request as a queued video."""
    sent = asking.read_sent(farm(), VideoRequest, call.caller)
    resolved = asking.settle(farm(), sent.fields, sent.image.ref if sent.image else None)
    accepted = asking.submit(farm(), call.caller, sent, resolved)
    return show_new(call, accepted)


@endpoint(
    Route(
        method="GET",
        path="/v1/videos",
        scope="read",
        summary="List videos, newest first.",
        query=ListQuery,
        returns=VideoPage,
        errors=("invalid_cursor", "scope_missing", "search_too_wide"),
    )
)
def list_videos(call: Call[ListQuery]) -> Response:
    """Page through videos by a cursor that survives deletions."""
    query = call.query
    if query.after is not None and not is_id(query.after, "video"):
        raise WanfarmError(
            "invalid_cursor",
            f"after is '{query.after}'. It must be the last id of a page. Start without it.",
            param="after",
        )
    found = queries.page(
        farm(),
        _filter(call),
        limit=query.limit,
        after=query.after,
        ascending=query.order == "asc",
    )
    return json_response(presenters.page(farm(), found, base_url()))


def _filter(call: Call[ListQuery]) -> queries.Filter:
    query, tenant = call.query, call.tenant
    if query.tenant is not None and query.tenant != call.caller.tenant and tenant is not None:
        raise WanfarmError(
            "scope_missing",
            f"tenant is '{query.tenant}'. Only the scope 'admin' looks at others. Leave it out.",
            param="tenant",
        )
    model = find_model(query.model) if query.model else None
    return queries.Filter(
        tenant=query.tenant or tenant,
        states=[VideoState(one) for one in query.status or ()],
        error=query.error,
        model=model.id if model else query.model,
        batch=query.batch,
        group=query.group,
        key_name=query.key,
        text=query.q,
        created_after=_moment(query.created_after),
        created_before=_moment(query.created_before),
        metadata=dict(query.metadata) if query.metadata else None,
    )


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@endpoint(
    Route(
        method="GET",
        path="/v1/videos/{video_id}",
        scope="read",
        summary="Look at a video.",
        query=WaitQuery,
        returns=VideoObject,
        headers=("If-None-Match", "Prefer"),
    )
)
def retrieve(call: Call[WaitQuery]) -> Response:
    """Show a video; the HTTP status speaks of the request, `status` of the job."""
    row = find(call)
    headers = wait_until_over(row["id"], call.caller, call.query)
    response = show(find(call) if headers else row, headers)
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag(weak=True)
    response.make_conditional(request)
    return response


@endpoint(
    Route(
        method="PATCH",
        path="/v1/videos/{video_id}",
        scope="submit",
        summary="Change a video's priority or metadata.",
        query=NoQuery,
        body=ChangeBody,
        returns=VideoObject,
        errors=("not_queued", "priority_not_allowed"),
    )
)
def change(call: Call[NoQuery]) -> Response:
    """Move a waiting video in its queue, or label any."""
    row = find(call)
    body = small_body(ChangeBody)
    asking.check_priority(body.priority, call.caller)
    changes.change(
        farm(),
        row["id"],
        by=call.caller.key_name,
        priority=body.priority,
        metadata=body.metadata,
    )
    return show(find(call), {})


@endpoint(
    Route(
        method="POST",
        path="/v1/videos/{video_id}/cancel",
        scope="submit",
        summary="Stop a video.",
        query=WaitQuery,
        body=CancelBody,
        returns=VideoObject,
        errors=("not_cancellable",),
        headers=("Prefer",),
    )
)
def cancel(call: Call[WaitQuery]) -> Response:
    """End a waiting video at once, a running one at its next step."""
    row = find(call)
    body = small_body(CancelBody)
    lifecycle.cancel(farm(), row["id"], by=call.caller.key_name, reason=body.reason)
    headers = wait_until_over(row["id"], call.caller, call.query)
    return show(find(call), headers)


@endpoint(
    Route(
        method="DELETE",
        path="/v1/videos/{video_id}",
        scope="submit",
        summary="Delete a video with its files.",
        query=NoQuery,
        returns=VideoDeleted,
    )
)
def delete(call: Call[NoQuery]) -> Response:
    """Hide a video at once and remove what is left of it."""
    row = find(call)
    removal.delete(farm(), row["id"], by=call.caller.key_name, actor=call.actor)
    return json_response(VideoDeleted(id=row["id"]))


ENDPOINTS: Final = (create, list_videos, retrieve, change, cancel, delete)
