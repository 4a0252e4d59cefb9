"""Who moves a video, when, and what becomes of the attempt: every story over `ledger.move`."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import ColumnElement, func, literal, select

from shared.jobs import scheduling
from shared.jobs.ledger import (
    AttemptWrite,
    Fence,
    Values,
    Write,
    Written,
    in_seconds,
    move,
    note,
)
from shared.machinery.farm import Farm
from shared.machinery.feed import NUDGES
from shared.machinery.tables import Attempt, Video
from shared.vocabulary.errors import JobFailure, StaleAttempt, WanfarmError
from shared.vocabulary.metrics import DOORBELLS, RESCUED
from shared.vocabulary.retry import next_try
from shared.vocabulary.spec import FailureKind, GenerationSpec
from shared.vocabulary.states import VideoState

QUEUED, IN_PROGRESS = VideoState.QUEUED, VideoState.IN_PROGRESS
_OUT_OF_MEMORY = FailureKind.OUT_OF_MEMORY
_TRIES = 3  # a row that moves under our hands is looked at again this often
_ENDED: Values = {"lease_until": None, "completed_at": func.now()}


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to render one video: its fence and what to render."""

    fence: Fence
    spec: GenerationSpec
    attempts_left: int
    out_of_memory: int  # earlier attempts that ran out of the device's memory
    checkpoint: Values | None  # the latents an earlier attempt saved, as `keep` wrote it
    finish_in_s: float | None  # until its deadline, by the database's clock
    created_ago_s: float


def claim(farm: Farm, offer: scheduling.Offer) -> Claim | None:
    """Take the best waiting video for a group, or None when nothing is due."""
    while written := _take(farm, offer):
        try:
            row = written.row
            before = row["attempt"] > 1 and _ended_before(farm, row["id"], _OUT_OF_MEMORY)
            return _claim_of(row, int(before))
        except ValidationError:
            message = "This version cannot read the stored request. Submit it again."
            fence = Fence(written.row["id"], written.row["attempt"])
            _fail(farm, fence, JobFailure(FailureKind.BAD_INPUT, message))
    return None


def _take(farm: Farm, offer: scheduling.Offer) -> Written | None:
    return move(
        farm,
        scheduling.best(offer),
        QUEUED,
        IN_PROGRESS,
        Write(
            values={
                "attempt": Video.attempt + 1,
                "attempts_left": Video.attempts_left - 1,
                "lease_until": in_seconds(farm.settings.lease_s),
                "started_at": func.now(),
                "group_name": offer.group,
                "progress": func.coalesce(Video.checkpoint["progress"].as_integer(), 0),
                "detail": None,
            },
            data={"group": offer.group},
            attempt=AttemptWrite(
                {
                    "group_name": offer.group,
                    "incarnation": offer.incarnation,
                    "ranks": offer.ranks,
                },
                opens=True,
            ),
        ),
    )


def _claim_of(row: Values, out_of_memory: int) -> Claim:
    finish_by = row["finish_by"]
    return Claim(
        fence=Fence(row["id"], row["attempt"]),
        spec=GenerationSpec.model_validate(row["spec"]),
        attempts_left=row["attempts_left"],
        out_of_memory=out_of_memory,
        checkpoint=row["checkpoint"],
        finish_in_s=(finish_by - row["at"]).total_seconds() if finish_by else None,
        created_ago_s=(row["at"] - row["created_at"]).total_seconds(),
    )


def complete(
    farm: Farm,
    fence: Fence,
    result: Values,
    attempt_report: Values,
    warnings: Sequence[Values] = (),
) -> None:
    """End a video well; true as well when this attempt's commit had lost its answer.

    Args:
        farm: the handles.
        fence: the attempt that rendered it.
        result: the files, and the attempt that stored them.
        attempt_report: what it cost.
        warnings: what its sender should know, beside the warnings that the request got.

    Raises:
        StaleAttempt: when another attempt holds the row; the files are then upkeep's.
    """
    ended: Values = {"outcome": "completed", "report": attempt_report}
    if (stored_by := result.get("attempt", fence.attempt)) != fence.attempt:
        ended["message"] = f"Completed with the files that attempt {stored_by} had stored."
    write = Write(
        _ENDED
        | {
            "progress": 100,
            "result": result,
            "warnings": Video.warnings.concat(literal(list(warnings), Video.warnings.type)),
            "expires_at": func.now() + func.make_interval(0, 0, 0, 0, 0, 0, Video.expires_in_s),
        },
        attempt=AttemptWrite(ended),
    )
    if _end(farm, fence, VideoState.COMPLETED, write) is None:
        row = _look(farm, fence.video_id)
        if row is None or (row["state"], row["attempt"]) != ("completed", fence.attempt):
            raise StaleAttempt(fence)


def give_back(farm: Farm, claimed: Claim, failure: JobFailure) -> VideoState:
    """End an attempt that went wrong: cancelled if that was asked for, else queued or failed.

    Raises:
        StaleAttempt: when this attempt no longer holds the row.
    """
    fence = claimed.fence
    if cancelled(farm, fence, asked=True):
        return VideoState.CANCELLED
    before = _ended_before(farm, fence.video_id, failure.kind)
    wait = next_try(failure.kind, attempts_left=claimed.attempts_left, same_before=before)
    if wait is None:
        return _fail(farm, fence, failure)
    charge = failure.kind is not FailureKind.LOST
    return _requeue(farm, fence, _after(failure, fence, wait), charge=charge)


def requeue_uncharged(farm: Farm, fence: Fence, message: str) -> VideoState:
    """Put a job back that its group may not finish, as at a drain; costs no attempt.

    Raises:
        StaleAttempt: when this attempt no longer holds the row.
    """
    ended = AttemptWrite({"outcome": "drained", "message": message})
    return _requeue(farm, fence, Write({"run_after": func.now()}, {}, ended), charge=False)


def cancelled(farm: Farm, fence: Fence, *, step: int | None = None, asked: bool = False) -> bool:
    """End a running video as cancelled.

    Args:
        farm: the handles.
        fence: the attempt that stopped.
        step: the denoising step at which it stopped.
        asked: only if a cancel was asked for.
    """
    conditions = [Video.cancel_requested_at.isnot(None)] if asked else []
    at = f" at step {step}" if step else ""
    error = _error("cancelled", f"The video was cancelled{at}.", fence.attempt)
    write = Write(
        _ENDED | {"error": error}, {"error": error}, AttemptWrite({"outcome": "cancelled"})
    )
    return _end(farm, fence, VideoState.CANCELLED, write, *conditions) is not None


def cancel(farm: Farm, video_id: str, *, by: str, reason: str | None = None) -> VideoState:
    """Ask for the end of a video: queued, at once; running, at the next step boundary.

    Raises:
        WanfarmError: `not_cancellable` when it has completed or failed, `video_not_found`.
    """
    who = f"{by}: {reason}" if reason else by
    for _ in range(_TRIES):
        if _cancel_queued(farm, video_id, who):
            return VideoState.CANCELLED
        if _ask_to_cancel(farm, video_id, who):
            farm.feed.publish(NUDGES, {"cancel": video_id})
            return VideoState.IN_PROGRESS
        row = _look(farm, video_id)
        if row is None:
            raise WanfarmError("video_not_found", f"There is no video '{video_id}'.")
        state = VideoState(row["state"])
        if state is VideoState.CANCELLED:
            return state
        if state.is_final:
            raise WanfarmError(
                "not_cancellable",
                f"The video is {state.word}. Only waiting or running videos can be cancelled.",
            )
    raise WanfarmError(
        "not_ready", "The video keeps moving between states. Retry.", retry_after_s=1
    )


def _cancel_queued(farm: Farm, video_id: str, who: str) -> bool:
    error = _error("cancelled", f"Cancelled by {who} before it started.", None)
    write = Write(
        {"completed_at": func.now(), "cancel_requested_at": func.now(), "cancelled_by": who[:300]}
        | {"error": error},
        {"error": error},
    )
    return move(farm, video_id, QUEUED, VideoState.CANCELLED, write) is not None


def _ask_to_cancel(farm: Farm, video_id: str, who: str) -> bool:
    values = {
        "cancel_requested_at": func.coalesce(Video.cancel_requested_at, func.now()),
        "cancelled_by": func.coalesce(Video.cancelled_by, who[:300]),
    }
    running = (Video.id == video_id, Video.state == IN_PROGRESS)
    return note(farm, "cancel", Write(values, {"by": who}), *running) is not None


def rescue(farm: Farm, *where: ColumnElement[bool]) -> int:
    """End the attempts whose lease ran out; returns how many.

    A database that has just come back counts nobody as lost: for one lease after its start no
    parent has had a fair chance to renew.
    """
    settled = func.now() - func.pg_postmaster_start_time() > func.make_interval(
        0, 0, 0, 0, 0, 0, farm.settings.lease_s
    )
    expired = (Video.lease_until < func.now(), settled)
    taken_back = _take_back(farm, "The worker went silent.", *(where or expired))
    farm.meters.count(RESCUED, taken_back)
    return taken_back


def take_over(farm: Farm, group: str) -> int:
    """Put back what a predecessor left: for a parent that holds its group's file lock."""
    return _take_back(farm, "The worker was restarted.", Video.group_name == group)


def _take_back(farm: Farm, message: str, *where: ColumnElement[bool]) -> int:
    statement = (
        select(Video.id, Video.attempt, Video.attempts_left)
        .where(Video.state == IN_PROGRESS, *where)
        .order_by(Video.id)
        .limit(64)
    )
    with farm.db.connect() as db:
        rows = db.execute(statement).all()
    ended = 0
    for video_id, attempt, left in rows:
        ended += _take_back_one(farm, Fence(video_id, attempt), left, message, where)
    return ended


def _take_back_one(
    farm: Farm,
    fence: Fence,
    attempts_left: int,
    message: str,
    where: Sequence[ColumnElement[bool]],
) -> bool:
    failure = JobFailure(FailureKind.LOST, message)
    if cancelled(farm, fence, asked=True):
        return True
    before = _ended_before(farm, fence.video_id, FailureKind.LOST)
    try:
        if next_try(FailureKind.LOST, attempts_left=attempts_left, same_before=before) is None:
            _fail(farm, fence, failure, *where)
        else:
            _requeue(farm, fence, _after(failure, fence, 0), charge=False, where=where)
    except StaleAttempt:
        return False
    return True


def expire_deadlines(farm: Farm) -> int:
    """Cancel waiting videos whose deadline has passed; returns how many."""
    due = func.least(Video.start_by, Video.finish_by)
    with farm.db.connect() as db:
        statement = (
            select(Video.id).where(Video.state == QUEUED, due.isnot(None), due <= func.now())
        ).limit(64)
        ids = db.scalars(statement).all()
    error = _error("deadline_missed", "The deadline passed before a group was free.", None)
    write = Write({"completed_at": func.now(), "error": error}, {"error": error})
    moved = [move(farm, one, QUEUED, VideoState.CANCELLED, write, due <= func.now()) for one in ids]
    return sum(written is not None for written in moved)


def _end(
    farm: Farm, fence: Fence, new: VideoState, write: Write, *where: ColumnElement[bool]
) -> Written | None:
    return move(
        farm, fence.video_id, IN_PROGRESS, new, write, Video.attempt == fence.attempt, *where
    )


def _fail(farm: Farm, fence: Fence, failure: JobFailure, *where: ColumnElement[bool]) -> VideoState:
    error = _error(failure.code, failure.message, fence.attempt)
    ended = AttemptWrite(
        {"outcome": "failed", "kind": failure.kind, "message": failure.message},
        free=failure.kind is FailureKind.LOST,
    )
    write = Write(_ENDED | {"error": error}, {"error": error}, ended)
    if _end(farm, fence, VideoState.FAILED, write, *where) is None:
        raise StaleAttempt(fence)
    return VideoState.FAILED


def _after(failure: JobFailure, fence: Fence, wait_s: float) -> Write:
    ended: Values = {"outcome": "requeued", "kind": failure.kind, "message": failure.message}
    return Write(
        # jittered, so that what failed together does not come back together
        {"run_after": in_seconds(wait_s * random.uniform(0.5, 1))},  # noqa: S311
        {"error": _error(failure.code, failure.message, fence.attempt)},
        AttemptWrite(ended, free=failure.kind is FailureKind.LOST),
    )


def _requeue(
    farm: Farm,
    fence: Fence,
    write: Write,
    *,
    charge: bool,
    where: Sequence[ColumnElement[bool]] = (),
) -> VideoState:
    values: Values = {
        "lease_until": None,
        "group_name": None,
        "attempts_left": Video.attempts_left + (0 if charge else 1),
        "progress": 0,
        "detail": None,
    }
    write = Write(values | write.values, write.data, write.attempt)
    unasked = Video.cancel_requested_at.is_(None)  # a cancel may have come since we looked
    written = _end(farm, fence, QUEUED, write, unasked, *where)
    if written is None:
        if cancelled(farm, fence, asked=True):
            return VideoState.CANCELLED
        raise StaleAttempt(fence)
    farm.meters.count(DOORBELLS, source="requeue")
    farm.doorbell.ring_soon(written.row["model"])
    return QUEUED


def _error(code: str, message: str, attempt: int | None) -> Values:
    return {"code": code, "message": message, "attempt": attempt}


def _ended_before(farm: Farm, video_id: str, kind: FailureKind) -> int:
    statement = select(func.count()).where(Attempt.video_id == video_id, Attempt.kind == kind)
    with farm.db.connect() as db:
        return db.scalar(statement) or 0


def _look(farm: Farm, video_id: str) -> Values | None:
    statement = select(Video.state, Video.attempt).where(Video.id == video_id)
    with farm.db.connect() as db:
        row = db.execute(statement).mappings().first()
    return dict(row) if row else None
