"""Batches over HTTP: made, listed, looked at, stopped and deleted as one, and seen on a sheet."""

import hashlib
import json
import math
from typing import Annotated, Any, Final, Literal

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing import batching
from api.plumbing.batching import BatchRequest
from api.plumbing.contact_sheet import Shot, draw
from api.plumbing.links import base_url
from api.plumbing.registry import Call, NoQuery, Route, endpoint, small_body
from api.plumbing.runtime import farm
from api.plumbing.schemas import BatchDeleted
from api.plumbing.wire import json_response
from api.routes.videos import TAKING, CancelBody
from shared.jobs import batches, presenters, queries
from shared.jobs.ledger import Values
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import is_id
from shared.vocabulary.states import VideoState
from shared.vocabulary.video import BatchObject, BatchPage

_MOST_COLUMNS: Final = 8


class PageQuery(BaseModel):
    """Which page of the batches."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The last id of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=100)] = Field(default=20, description="Batches per page.")
    order: Literal["asc", "desc"] = Field(default="desc", description="By creation.")


def find(call: Call[Any]) -> Values:
    """Read the batch that the path names, if the caller may see it.

    Raises:
        WanfarmError: `batch_not_found`, also for another tenant's or a malformed id.
    """
    batch_id = call.path["batch_id"]
    row = batches.one(farm(), batch_id, call.tenant) if is_id(batch_id, "batch") else None
    if row is None:
        raise not_found(batch_id)
    return row


def not_found(batch_id: str) -> WanfarmError:
    """The one answer to ids of nobody, of others, and to nonsense."""
    return WanfarmError(
        "batch_not_found",
        f"There is no batch '{batch_id[:60]}'. Its videos may have been deleted, or belong to "
        "another tenant. Check the id.",
    )


@endpoint(
    Route(
        method="POST",
        path="/v1/batches",
        scope="submit",
        rate="submits",
        summary="Make videos that differ in seed or settings: all, or none.",
        query=NoQuery,
        body=BatchRequest,
        returns=BatchObject,
        errors=(*TAKING, "unsupported_feature", "does_not_fit"),
        headers=("Idempotency-Key",),
    )
)
def create(call: Call[NoQuery]) -> Response:
    """Store a video for every seed with every combination of the grid."""
    accepted = batching.submit(farm(), call.caller)
    batch = batches.one(farm(), accepted.batch_id, call.caller.tenant)
    if batch is None:  # it was made before, and its videos were deleted since
        raise not_found(accepted.batch_id)
    headers = {"Location": f"/v1/batches/{accepted.batch_id}"}
    headers |= {"Idempotency-Replayed": "true"} if accepted.replayed else {}
    return json_response(batches.show(batch, base_url()), headers=headers)


@endpoint(
    Route(
        method="GET",
        path="/v1/batches",
        scope="read",
        summary="List batches, newest first.",
        query=PageQuery,
        returns=BatchPage,
        errors=("invalid_cursor",),
    )
)
def list_batches(call: Call[PageQuery]) -> Response:
    """Page through batches by a cursor that survives deletions."""
    query = call.query
    if query.after is not None and not is_id(query.after, "batch"):
        raise WanfarmError(
            "invalid_cursor",
            f"after is '{query.after}'. It must be the last id of a page. Start without it.",
            param="after",
        )
    up = query.order == "asc"
    page = batches.page(farm(), call.tenant, limit=query.limit, after=query.after, ascending=up)
    shown = [batches.show(row, base_url()) for row in page.rows]
    return json_response(
        BatchPage(
            data=shown,
            first_id=shown[0].id if shown else None,
            last_id=shown[-1].id if shown else None,
            has_more=page.has_more,
        )
    )


@endpoint(
    Route(
        method="GET",
        path="/v1/batches/{batch_id}",
        scope="read",
        summary="Look at a batch.",
        query=NoQuery,
        returns=BatchObject,
        errors=("batch_not_found",),
    )
)
def retrieve(call: Call[NoQuery]) -> Response:
    """Show a batch: what is left of it, and where that stands."""
    return json_response(batches.show(find(call), base_url()))


@endpoint(
    Route(
        method="POST",
        path="/v1/batches/{batch_id}/cancel",
        scope="submit",
        summary="Stop every video of a batch that is not over.",
        query=NoQuery,
        body=CancelBody,
        returns=BatchObject,
        errors=("batch_not_found", "not_ready"),
    )
)
def cancel(call: Call[NoQuery]) -> Response:
    """End waiting videos at once, running ones at their next step."""
    row = find(call)
    reason = small_body(CancelBody).reason
    batches.cancel(farm(), row, by=call.caller.key_name, reason=reason)
    return json_response(batches.show(find(call), base_url()))


@endpoint(
    Route(
        method="DELETE",
        path="/v1/batches/{batch_id}",
        scope="submit",
        summary="Delete every video of a batch with its files.",
        query=NoQuery,
        returns=BatchDeleted,
        errors=("batch_not_found",),
    )
)
def delete(call: Call[NoQuery]) -> Response:
    """Hide a batch at once and remove what is left of its videos."""
    row = find(call)
    batches.delete(farm(), row, by=call.caller.key_name, actor=call.actor)
    return json_response(BatchDeleted(id=row["id"]))


@endpoint(
    Route(
        method="GET",
        path="/v1/batches/{batch_id}/sheet",
        scope="read",
        summary="Fetch the posters of a batch on one sheet.",
        query=NoQuery,
        media=("image/jpeg",),
        errors=("batch_not_found", "sheet_not_ready", "content_gone"),
        headers=("If-None-Match",),
    )
)
def sheet(call: Call[NoQuery]) -> Response:
    """Draw a sheet; who has this one already gets none."""
    row = find(call)
    which = queries.Filter(tenant=call.tenant, batch=row["id"])
    videos = {one["id"]: one for one in queries.page(farm(), which, limit=batches.MOST).rows}
    _refuse_without_posters(videos)
    answer = Response(mimetype="image/jpeg")
    answer.headers["Cache-Control"] = "private, no-cache"
    answer.headers["Content-Disposition"] = f'inline; filename="{row["id"]}.jpg"'
    answer.set_etag(_fingerprint(row, videos))
    answer.make_conditional(request)
    if answer.status_code == 200:
        shots = [_shot(item, videos.get(item["video_id"])) for item in row["items"]]
        answer.data = draw(shots, _columns(row))
    return answer


def _refuse_without_posters(videos: dict[str, Values]) -> None:
    done = [video for video in videos.values() if video["state"] == VideoState.COMPLETED]
    if not done:
        raise WanfarmError(
            "sheet_not_ready",
            f"None of the {len(videos)} videos is completed. The sheet is made of their posters. "
            "Wait for the first.",
        )
    if not any(presenters.has_files(video) for video in done):
        raise WanfarmError(
            "content_gone",
            "The files of all videos of this batch have expired. The sheet is made of them. "
            "Remix a video to render it again.",
        )


def _fingerprint(row: Values, videos: dict[str, Values]) -> str:
    """Hash what decides how a sheet looks."""
    drawn = [(key, one["state"], presenters.has_files(one)) for key, one in sorted(videos.items())]
    return hashlib.sha256(json.dumps([row["items"], drawn]).encode()).hexdigest()[:32]


def _columns(row: Values) -> int:
    """Have the seeds of one setting side by side, where they fit."""
    seeds = len(row["axes"].get("seed", ()))
    if len(row["axes"]) > 1 and 1 < seeds <= _MOST_COLUMNS:
        return seeds
    return math.ceil(math.sqrt(len(row["items"])))


def _shot(item: Values, video: Values | None) -> Shot:
    note = batches.differs_words(item["set"])
    if video is None:
        return Shot(None, "deleted", note)
    title = f"seed {video['spec']['seed']}"
    if not presenters.has_files(video):
        return Shot(None, f"{title}, {_absence(video)}", note)
    return Shot(farm().storage.read(video["result"]["files"]["thumbnail"]["key"]), title, note)


def _absence(video: Values) -> str:
    state = VideoState(video["state"])
    return "expired" if state is VideoState.COMPLETED else state.word


ENDPOINTS: Final = (create, list_batches, retrieve, cancel, delete, sheet)
