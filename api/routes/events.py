"""A video's ledger: as JSON pages, and as a stream that resumes without a gap."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing.hub import Hub, Slot
from api.plumbing.links import base_url
from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm, runtime
from api.plumbing.schemas import EventPage
from api.plumbing.wire import json_response, to_json
from api.routes.videos import find
from shared.jobs import presenters, queries
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.vocabulary.errors import WanfarmError

_EVENT_ID: Final = re.compile(r"[0-9]{1,9}")
_HEARTBEAT_S: Final = 15.0
_LONGEST_S: Final = 900.0
_BATCH: Final = 500
_RETRY: Final = "retry: 2000\n\n"
_STILL_HERE: Final = ": still here\n\n"


class EventQuery(BaseModel):
    """Which part of the ledger."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=0, description="Events past this id."
    )
    limit: Annotated[int, Field(ge=1, le=500)] = Field(default=200, description="Events per page.")


def _wants_stream() -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


def _refuse_at_once() -> None:
    """Refuse a stream that has no place before its key and its video are looked up."""
    if _wants_stream():
        runtime().hub.refuse_when_full()


@endpoint(
    Route(
        method="GET",
        path="/v1/videos/{video_id}/events",
        scope="read",
        summary="Follow a video: a JSON page, or a stream with `Accept: text/event-stream`.",
        query=EventQuery,
        returns=EventPage,
        media=("application/json", "text/event-stream"),
        errors=("invalid_header", "stream_limit", "too_many_streams"),
        headers=("Last-Event-ID",),
        at_once=_refuse_at_once,
    )
)
def events(call: Call[EventQuery]) -> Response:
    """Show what happened to a video, or tell it as it happens."""
    row = find(call)
    if _wants_stream():
        return _stream(row, call.caller.key_id)
    query = call.query
    lines = queries.events(farm(), row["id"], after=query.after, limit=query.limit + 1)
    shown = lines[: query.limit]
    last = shown[-1]["id"] if shown else None
    return json_response(EventPage(data=shown, last_id=last, has_more=len(lines) > query.limit))


def _stream(row: Values, key_id: str) -> Response:
    seen = _last_event_id()
    if seen is not None and queries.is_over(row["state"]) and seen >= row["seq"]:
        return Response(status=204)  # stops an EventSource for good
    slot = runtime().hub.hold(key_id)
    first: list[str] = [_RETRY]
    if seen is None:
        first.append(_message("snapshot", presenters.video(farm(), row, base_url()), row["seq"]))
    story = _Story(farm(), runtime().hub, row["id"], row["seq"] if seen is None else seen)
    return _streamed(_chain(first, story), slot)


def _streamed(lines: Iterator[str], slot: Slot) -> Response:
    response = Response(lines, mimetype="text/event-stream")
    response.call_on_close(slot.release)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _chain(first: list[str], story: "_Story") -> Iterator[str]:
    yield from first
    yield from story.tell()


def _last_event_id() -> int | None:
    sent = request.headers.get("Last-Event-ID")
    if sent is None:
        return None
    if not _EVENT_ID.fullmatch(sent):
        raise WanfarmError(
            "invalid_header",
            f"Last-Event-ID is '{sent[:40]}'. It must be the id of an event. Leave it out to start "
            "with a snapshot.",
            param="Last-Event-ID",
        )
    return int(sent)


@dataclass(slots=True)
class _Story:
    """One client's walk along a ledger; holds no connection between two looks."""

    farm: Farm
    hub: Hub
    video_id: str
    told: int  # the newest event that the client has

    def tell(self) -> Iterator[str]:
        """Give every event once, in order, until the video ends or the time is over."""
        until = time.monotonic() + _LONGEST_S
        with self.hub.watching(self.video_id) as watch:
            while time.monotonic() < until and not watch.over:
                standing = queries.standing(self.farm, self.video_id)
                if standing is None:
                    return
                yield from self._news()
                if standing.is_over and self.told >= standing.seq:
                    yield _message("end", {"status": standing.state.value}, None)
                    return
                if self.told >= standing.seq and not watch.wait(_HEARTBEAT_S):
                    yield _STILL_HERE

    def _news(self) -> Iterator[str]:
        lines = queries.events(self.farm, self.video_id, after=self.told, limit=_BATCH)
        for line in lines:
            self.told = line["id"]
            yield _message(line["type"], line, line["id"])


def _message(event: str, data: Any, number: int | None) -> str:  # noqa: ANN401 - any JSON
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {event}\ndata: {to_json(data)}\n\n"


@endpoint(
    Route(
        method="GET",
        path="/v1/events",
        scope="read",
        summary="Follow all videos: a stream of their moves from now on.",
        query=NoQuery,
        media=("text/event-stream",),
        errors=("invalid_header", "stream_limit", "too_many_streams"),
        at_once=_refuse_at_once,
    )
)
def live(call: Call[NoQuery]) -> Response:
    """Tell when a video of the tenant changes its state; nothing is told again."""
    if not _wants_stream():
        raise WanfarmError(
            "invalid_header",
            "Accept has no text/event-stream. This is a live feed and has no pages. Ask for the "
            "stream, or list /v1/videos.",
            param="Accept",
        )
    hub = runtime().hub
    slot = hub.hold(call.caller.key_id)
    return _streamed(_feed(hub, call.tenant), slot)


def _feed(hub: Hub, tenant: str | None) -> Iterator[str]:
    yield _RETRY
    until = time.monotonic() + _LONGEST_S
    with hub.following(tenant) as follower:
        yield ": listening\n\n"
        while time.monotonic() < until and not follower.over:
            lines = follower.wait(_HEARTBEAT_S)
            yield from (_message("state", line, None) for line in lines)
            if not lines:
                yield _STILL_HERE


ENDPOINTS: Final = (events, live)
