"""What is written down of a video: how it was made, and its log."""

from typing import Annotated, Final

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.schemas import VideoProvenance
from api.plumbing.wire import json_response
from api.routes.videos import find
from shared.jobs import presenters, queries
from shared.vocabulary import chronicle
from shared.vocabulary.errors import WanfarmError


@endpoint(
    Route(
        method="GET",
        path="/v1/videos/{video_id}/provenance",
        scope="read",
        summary="Look at how a video was made.",
        query=NoQuery,
        returns=VideoProvenance,
        errors=("video_not_ready", "content_gone"),
    )
)
def provenance(call: Call[NoQuery]) -> Response:
    """Show the whole recipe of a completed video, also when its files have expired."""
    row = find(call)
    manifest, result = presenters.provenance(row), presenters.result(row)
    if manifest is None or result is None:
        raise _nothing_made(row["state"])
    made = VideoProvenance(
        id=row["id"],
        model=row["model"],
        prompt=row["spec"]["prompt"],
        spec={name: value for name, value in row["spec"].items() if name != "prompt"},
        image_sha256=row["image_sha256"],
        attempts=[presenters.attempt(one) for one in row["attempts"]],
        result=result,
        manifest=manifest,
    )
    return json_response(made)


def _nothing_made(state: str) -> WanfarmError:
    if state in {"failed", "cancelled"}:
        return WanfarmError(
            "content_gone",
            f"The video is {state}. Provenance tells how a finished video was made. "
            "Its attempts and its log tell what went wrong.",
        )
    return WanfarmError(
        "video_not_ready",
        f"The video is {state.replace('_', ' ')}. Provenance is written at the end. "
        "Wait for completed.",
    )


class LogQuery(BaseModel):
    """How much of the log."""

    model_config = ConfigDict(extra="forbid")

    tail: Annotated[int, Field(ge=1, le=5000)] = Field(default=200, description="Newest lines.")


@endpoint(
    Route(
        method="GET",
        path="/v1/videos/{video_id}/log",
        scope="read",
        summary="Read a video's log.",
        query=LogQuery,
        media=("text/plain",),
    )
)
def log(call: Call[LogQuery]) -> Response:
    """Write the newest events of a video as text, a line each."""
    row = find(call)
    newest = queries.newest_events(farm(), row["id"], call.query.tail)
    text = "".join(f"{line}\n" for line in chronicle.lines(newest))
    return Response(text, mimetype="text/plain", headers={"Cache-Control": "no-store"})


ENDPOINTS: Final = (provenance, log)
