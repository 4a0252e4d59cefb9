"""New videos after earlier ones: the same again with changes, and a draft in full quality."""

from dataclasses import replace
from typing import Final

from flask import Response

from api.plumbing import asking, recipes
from api.plumbing.registry import Call, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.waiting import WaitQuery
from api.routes.videos import TAKING, find, show_new
from shared.jobs.orders import Source
from shared.vocabulary.request import Overrides
from shared.vocabulary.video import VideoObject


@endpoint(
    Route(
        method="POST",
        path="/v1/videos/{video_id}/remix",
        scope="submit",
        rate="submits",
        summary="Make a video again, with changes.",
        query=WaitQuery,
        body=Overrides,
        returns=VideoObject,
        errors=TAKING,
        headers=("Idempotency-Key", "Prefer"),
    )
)
def remix(call: Call[WaitQuery]) -> Response:
    """Queue a new video from another's recipe; without changes it is the same one again."""
    row = find(call)
    sent = asking.read_sent(farm(), Overrides, call.caller)
    fields, image = recipes.remixed(row, sent)
    resolved = asking.settle(farm(), fields, image)
    source = Source(row["id"], "remixed")
    return show_new(call, asking.submit(farm(), call.caller, sent, resolved, source))


@endpoint(
    Route(
        method="POST",
        path="/v1/videos/{video_id}/promote",
        scope="submit",
        rate="submits",
        summary="Make a draft again in full quality.",
        query=WaitQuery,
        body=Overrides,
        returns=VideoObject,
        errors=TAKING,
        headers=("Idempotency-Key", "Prefer"),
    )
)
def promote(call: Call[WaitQuery]) -> Response:
    """Queue a new video with a draft's seed, shape, image and adapters, and the model's steps."""
    row = find(call)
    sent = asking.read_sent(farm(), Overrides, call.caller)
    fields, image = recipes.promoted(row, sent)
    resolved = asking.settle(farm(), fields, image)
    changed = recipes.composition_warnings(row, resolved.spec)
    resolved = replace(resolved, warnings=resolved.warnings + changed)
    source = Source(row["id"], "promoted")
    return show_new(call, asking.submit(farm(), call.caller, sent, resolved, source))


ENDPOINTS: Final = (remix, promote)
