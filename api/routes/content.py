"""The bytes of a finished video: variants, single ranges, and signed links."""

import re
from typing import Annotated, Any, Final, Literal

from flask import Response, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.plumbing.auth import require
from api.plumbing.files import send_stored
from api.plumbing.links import check_link
from api.plumbing.registry import Call, Route, endpoint
from api.plumbing.runtime import farm
from api.routes.videos import not_found
from shared.jobs import presenters, queries
from shared.jobs.ledger import Values
from shared.machinery.storage import Served
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import is_id

_TYPES: Final = {
    "video": ("video/mp4", "mp4"),
    "thumbnail": ("image/webp", "webp"),
    "spritesheet": ("image/jpeg", "jpg"),
}
_SINGLE_RANGE: Final = re.compile(r"bytes=(?:[0-9]+-[0-9]*|-[0-9]+)")


def _zero_is_video(value: object) -> object:
    return "video" if value == "0" else value


class ContentQuery(BaseModel):
    """Which file, and the parts of a signed link."""

    model_config = ConfigDict(extra="forbid")

    variant: Annotated[
        Literal["video", "thumbnail", "spritesheet"], BeforeValidator(_zero_is_video)
    ] = Field(default="video", description="`0` is the video too.")
    download: bool = Field(default=False, description="Ask browsers to save the file.")
    exp: Annotated[int, Field(ge=0, le=2**40)] | None = Field(
        default=None, description="Of a signed link: when it ends."
    )
    sig: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Of a signed link: its signature."
    )


@endpoint(
    Route(
        method="GET",
        path="/v1/videos/{video_id}/content",
        scope=None,
        summary="Fetch the video, its thumbnail or its sheet of frames.",
        query=ContentQuery,
        media=("video/mp4", "image/webp", "image/jpeg"),
        errors=(
            "missing_key", "scope_missing", "video_not_ready", "content_gone",
            "range_not_satisfiable",
        ),
        headers=("Range", "If-Range", "If-None-Match"),
    )
)  # fmt: skip
def content(call: Call[ContentQuery]) -> Response:
    """Send a file, whole or in one range."""
    row = _allowed(call)
    if row["state"] in {"queued", "in_progress"}:
        raise WanfarmError(
            "video_not_ready",
            f"The video is {row['state'].replace('_', ' ')} ({row['progress']} %). Its files exist "
            "once it is completed. Wait for that state.",
        )
    stored: Values | None = None
    if presenters.has_files(row):
        stored = row["result"]["files"].get(call.query.variant)
    if stored is None or not farm().storage.exists(stored["key"]):
        raise WanfarmError(
            "content_gone",
            f"The video is {row['state']} and has no files. They expire, and failed or cancelled "
            "videos never have any. Remix it to render it again.",
        )
    return _send(stored, call.query)


def _allowed(call: Call[ContentQuery]) -> Values:
    """Let a signed link or a key in."""
    video_id, query = call.path["video_id"], call.query
    signed = query.sig is not None and query.exp is not None
    tenant: str | None = None
    if not signed:
        caller = require(request, "read")
        tenant = None if caller.may("admin") else caller.tenant
    row = queries.one(farm(), video_id, tenant) if is_id(video_id, "video") else None
    if row is None:
        raise not_found(video_id)
    if query.sig is not None and query.exp is not None:
        check_link(video_id, query.variant, row["tenant"], expires=query.exp, signature=query.sig)
    return row


def _send(stored: Values, query: ContentQuery) -> Response:
    # Several ranges, other units and nonsense are ignored, as HTTP allows: the whole file follows.
    environ: dict[str, Any] = request.environ
    if not _SINGLE_RANGE.fullmatch(environ.get("HTTP_RANGE", "")):
        environ.pop("HTTP_RANGE", None)
    kind, ending = _TYPES[query.variant]
    name = f"{stored['key'].split('/')[1]}.{ending}"
    served = Served(kind, name, attached=query.download)
    response = send_stored(stored["key"], stored["sha256"], served)
    response.headers["Accept-Ranges"] = "bytes"
    return response


ENDPOINTS: Final = (content,)
