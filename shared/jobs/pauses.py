"""The two doors of the queue, intake and dispatch: people close them, a full store the first."""

from typing import Final, Literal, get_args

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from shared.jobs import audit
from shared.jobs.audit import Actor, Deed
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.machinery.tables import Pause
from shared.vocabulary.errors import WanfarmError

Door = Literal["intake", "dispatch"]
DOORS: Final[tuple[Door, ...]] = get_args(Door)


def close(
    farm: Farm,
    doors: tuple[Door, ...],
    *,
    by: str,
    reason: str | None = None,
    actor: Actor | None = None,
) -> None:
    """Take nothing in, or start nothing, until it is opened again; what runs goes on."""
    rows = [{"what": door, "by": by, "reason": reason} for door in doors]
    statement = insert(Pause).values(rows)
    newest = {name: statement.excluded[name] for name in ("by", "reason", "at")}
    shut = statement.on_conflict_do_update(index_elements=["what"], set_=newest)
    deed = Deed("queue.pause", " ".join(doors), {"reason": reason})
    audit.carry_out(farm, shut.returning(Pause.what), deed, actor)


def reopen(farm: Farm, doors: tuple[Door, ...], *, actor: Actor | None = None) -> None:
    """Let videos pass again; what waits is rung for by the next tick."""
    opened = delete(Pause).where(Pause.what.in_(doors)).returning(Pause.what)
    audit.carry_out(farm, opened, Deed("queue.resume", " ".join(doors)), actor)


def closed(farm: Farm) -> list[Values]:
    """What is closed: `what`, `by`, `reason`, `at`."""
    with farm.db.connect() as db:
        rows = db.execute(select(*Pause.__table__.c).order_by(Pause.what)).mappings()
        return [dict(row) for row in rows]


def intake_paused(reason: str | None) -> WanfarmError:
    """Say that nothing is taken in, and why."""
    why = f": {reason}" if reason else ""
    return WanfarmError(
        "intake_paused",
        f"The farm takes no new videos at the moment{why}. Videos that it has taken are "
        "kept. Retry in about a minute.",
        retry_after_s=60,
    )


def refuse_full_store(farm: Farm) -> None:
    """Raise when what is taken in might not be stored in the end.

    Raises:
        WanfarmError: `storage_full`.
    """
    if said := lack_of_room(farm):
        raise WanfarmError("storage_full", said, retry_after_s=60)


def lack_of_room(farm: Farm) -> str | None:
    """Say that the store has too little room for new videos, if so."""
    free, least = farm.storage.free_bytes(), farm.settings.min_free_mb
    if free is None or free >= least * 2**20:
        return None
    return (
        f"The result store has {free >> 20} MiB left. New videos are refused below {least} MiB "
        "(WANFARM_MIN_FREE_MB), so that those taken can be stored. Delete some, or free space."
    )
