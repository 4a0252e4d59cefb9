"""What a running attempt tells: that it lives, how far it is, what it saved; never a state."""

from sqlalchemy import select, update

from shared.jobs import estimates
from shared.jobs.ledger import Fence, Values, Write, held_by, in_seconds, note
from shared.machinery.farm import Farm
from shared.machinery.tables import Attempt, Video
from shared.vocabulary.errors import StaleAttempt


def report(farm: Farm, fence: Fence, event: str, data: Values, progress: Values) -> bool:
    """Tell how far an attempt is, and renew its lease by the way.

    Args:
        farm: the handles.
        fence: the attempt that reports.
        event: `phase`, `step` or `warning`.
        data: what the event tells.
        progress: columns to set: `progress`, `detail`, `warnings`.

    Returns:
        Whether a cancel is asked for.

    Raises:
        StaleAttempt: when this attempt no longer holds the row.
    """
    lease = in_seconds(farm.settings.lease_s)
    written = note(farm, event, Write({"lease_until": lease} | progress, data), *held_by(fence))
    if written is None:
        raise StaleAttempt(fence)
    return written.row["cancel_requested_at"] is not None


def renew(farm: Farm, fence: Fence) -> bool:
    """Renew a lease in silence; returns whether a cancel is asked for.

    Raises:
        StaleAttempt: when this attempt no longer holds the row.
    """
    return _renew(farm, fence, {})


def keep(farm: Farm, fence: Fence, checkpoint: Values) -> bool:
    """Remember where an attempt saved its latents, and renew its lease by the way.

    Args:
        farm: the handles.
        fence: the attempt that saved.
        checkpoint: `key` in the storage, `step`, and `progress` at that step.

    Returns:
        Whether a cancel is asked for.

    Raises:
        StaleAttempt: when this attempt no longer holds the row.
    """
    return _renew(farm, fence, {"checkpoint": checkpoint})


def _renew(farm: Farm, fence: Fence, values: Values) -> bool:
    statement = (
        update(Video)
        .where(*held_by(fence))
        .values(lease_until=in_seconds(farm.settings.lease_s), **values)
        .returning(Video.cancel_requested_at)
    )
    with farm.db.connect() as db:
        row = db.execute(statement).first()
    if row is None:
        raise StaleAttempt(fence)
    return row[0] is not None


def carry_plan(farm: Farm, fence: Fence, earlier: int) -> None:
    """Keep the plan of the earlier attempt whose files an attempt adopts."""
    of = select(Attempt.plan, Attempt.cache).where(
        Attempt.video_id == fence.video_id, Attempt.number == earlier
    )
    with farm.db.connect() as db:
        row = db.execute(of).one()
    record_plan(farm, fence, row.plan, row.cache)


def record_plan(farm: Farm, fence: Fence, plan: Values, cache: Values) -> None:
    """Keep how an attempt uses its group and the block cache, and how long it should take."""
    expected = estimates.of_attempt(farm, fence, cache)
    with farm.db.connect() as db:
        db.execute(
            update(Attempt)
            .where(Attempt.video_id == fence.video_id, Attempt.number == fence.attempt)
            .values(plan=plan, cache=cache, expected=expected)
        )
