"""Answers that are held until a video ends: `?wait=` and `Prefer: wait`."""

import re
import time
from typing import Annotated, Final

from flask import request
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing.runtime import runtime
from shared.jobs import queries
from shared.jobs.keys import Caller
from shared.vocabulary.errors import WanfarmError

_PREFER: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*([0-9]{1,4})\s*(?:,|;|$)", re.IGNORECASE)
_LONGEST_S: Final = 60
_LOOK_S: Final = 5.0  # a ring may be lost; the row is looked at this often anyway


class WaitQuery(BaseModel):
    """Hold the answer until the video's state is final."""

    model_config = ConfigDict(extra="forbid")

    wait: Annotated[int, Field(ge=0, le=_LONGEST_S)] | None = Field(
        default=None, description="Seconds to hold the answer until the video ends."
    )


def wait_until_over(video_id: str, caller: Caller, query: WaitQuery) -> dict[str, str]:
    """Hold the request as long as it asks, if a place is free.

    Returns:
        The header that tells the client so; empty when nothing was held.
    """
    seconds = _asked(query)
    if not seconds:
        return {}
    hub = runtime().hub
    try:
        slot = hub.hold(caller.key_id)
    except WanfarmError:
        return {}
    try:
        _wait(video_id, time.monotonic() + seconds)
    finally:
        slot.release()
    return {"Preference-Applied": f"wait={seconds}"}


def _wait(video_id: str, deadline: float) -> None:
    farm, hub = runtime().farm, runtime().hub
    with hub.watching(video_id) as watch:
        while True:
            standing = queries.standing(farm, video_id)
            left = deadline - time.monotonic()
            if standing is None or standing.is_over or left <= 0 or watch.over:
                return
            watch.wait(min(left, _LOOK_S))


def _asked(query: WaitQuery) -> int:
    if query.wait is not None:
        return query.wait
    preferred = _PREFER.search(request.headers.get("Prefer", ""))
    return min(_LONGEST_S, int(preferred[1])) if preferred else 0
