"""What a move of a video adds to the figures of the process that made it.

Each process counts what it did itself. Totals in the database would have to be written by the
statements that move videos, and each of them would wait for the same row.
"""

from typing import Any

from shared.machinery.meters import Meters
from shared.machinery.traces import Span, Traces
from shared.vocabulary.metrics import (
    ATTEMPTS,
    FINISHED,
    NO_CODE,
    QUEUE_SECONDS,
    RUN_SECONDS,
    size_of,
)
from shared.vocabulary.states import VideoState


def moved(meters: Meters, row: dict[str, Any], new: VideoState, outcome: str | None) -> None:
    """Count a move that was written.

    Args:
        meters: of this process.
        row: the video's columns after it, and `at`.
        new: the state it has now.
        outcome: of the attempt that it ended, if any.
    """
    model = row["model"]
    size = size_of(model, row["spec"].get("width"), row["spec"].get("height"))
    if outcome is not None:
        meters.count(ATTEMPTS, model=model, outcome=outcome)
    if new is VideoState.IN_PROGRESS:
        waited = (row["at"] - row["run_after"]).total_seconds()
        meters.observe(QUEUE_SECONDS, max(0.0, waited), model=model, size=size)
    if new is VideoState.COMPLETED:
        took = (row["at"] - row["started_at"]).total_seconds()
        meters.observe(RUN_SECONDS, took, model=model, size=size)
    if new.is_final:
        code: str = row["error"]["code"] if row["error"] else NO_CODE
        meters.count(FINISHED, model=model, state=new.value, code=code)


def ended(traces: Traces, row: dict[str, Any], new: VideoState) -> None:
    """Leave the span of a whole video, once it is over; those of its attempts are below it."""
    if not new.is_final:
        return
    error: dict[str, Any] = row["error"] or {}
    traces.add(
        Span(
            name="video",
            began=row["created_at"].timestamp(),
            ended=row["at"].timestamp(),
            video_id=row["id"],
            own=row["id"],
            fault=error.get("code"),
            attributes={"video.model": row["model"], "video.state": new.value},
        )
    )
