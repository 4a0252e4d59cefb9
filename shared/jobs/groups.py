"""GPU groups as their parents tell them: register, heartbeat, and what others read."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from sqlalchemy import ColumnElement, case, func, null, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.jobs import audit
from shared.jobs.audit import Actor, Deed
from shared.jobs.ledger import Values, in_seconds
from shared.machinery.farm import Farm
from shared.machinery.feed import NUDGES
from shared.machinery.tables import GpuGroup
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.states import GroupState

DrainMode = Literal["finish", "requeue"]

SILENT_S: Final = 30  # a group is down when its heartbeat is older
_FORGOTTEN_S: Final = 86_400  # a group that is down is shown for a day


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same in one life of a parent."""

    name: str
    incarnation: str
    host: str
    ranks: int
    device: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a heartbeat brings."""

    condition: GroupState
    warm_model: str | None = None
    video_id: str | None = None
    devices: list[Values] = field(default_factory=list[dict[str, Any]])
    software: Values = field(default_factory=dict[str, Any])
    problem: str | None = None
    failure_streak: int = 0  # failures in a row that may be the group's own


def register(farm: Farm, identity: Identity) -> None:
    """Announce a parent's new life; the row of an earlier one is taken over."""
    values: Values = {
        "incarnation": identity.incarnation,
        "host": identity.host,
        "ranks": identity.ranks,
        "device": identity.device,
        "models": list(identity.models),
        "condition": GroupState.STARTING.value,
        "warm_model": None,
        "warm_since": None,
        "video_id": None,
        "devices": [],
        "software": {},
        "problem": None,
        "failure_streak": 0,
        "started_at": func.now(),
        "heartbeat_at": func.now(),
    }
    statement = insert(GpuGroup).values(name=identity.name, **values)
    with farm.db.connect() as db:
        db.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


@dataclass(frozen=True, slots=True)
class Wish:
    """What people want of a group."""

    drain: DrainMode | None


def beat(farm: Farm, identity: Identity, reading: Reading) -> Wish | None:
    """Say that a parent lives and what it does; None when another life has taken its name."""
    mine = (GpuGroup.name == identity.name, GpuGroup.incarnation == identity.incarnation)
    statement = (
        update(GpuGroup)
        .where(*mine)
        .values(
            condition=reading.condition.value,
            warm_model=reading.warm_model,
            warm_since=_warm_since(reading.warm_model),
            video_id=reading.video_id,
            devices=reading.devices,
            software=reading.software,
            problem=reading.problem,
            failure_streak=reading.failure_streak,
            heartbeat_at=func.now(),
        )
        .returning(GpuGroup.drain)
    )
    with farm.db.connect() as db:
        row = db.execute(statement).first()
    return Wish(cast(DrainMode | None, row[0])) if row else None


def _warm_since(model: str | None) -> ColumnElement[Any]:
    """Keep the moment for as long as the same model is told of."""
    if model is None:
        return null()
    known = case((GpuGroup.warm_model == model, GpuGroup.warm_since), else_=null())
    return func.coalesce(known, func.now())


def drain(
    farm: Farm,
    name: str,
    mode: DrainMode,
    reason: str | None = None,
    *,
    actor: Actor | None = None,
) -> bool:
    """Ask a group to take no other job, across its restarts; tells whether there is one.

    Args:
        farm: the handles.
        name: of the group.
        mode: `finish` the job it has, or `requeue` it at its next step, with its latents saved.
        reason: for people.
        actor: who asks for it.
    """
    deed = Deed("group.drain", name, {"mode": mode, "reason": reason})
    return _wish(farm, deed, actor, drain=mode, drain_reason=reason)


def resume(farm: Farm, name: str, *, actor: Actor | None = None) -> bool:
    """Let a drained group take jobs again; tells whether there is one."""
    return _wish(farm, Deed("group.resume", name), actor, drain=None, drain_reason=None)


def _wish(farm: Farm, deed: Deed, actor: Actor | None, **values: str | None) -> bool:
    name = deed.object_id
    wanted = update(GpuGroup).where(GpuGroup.name == name).values(**values)
    known = audit.carry_out(farm, wanted.returning(GpuGroup.name), deed, actor)
    farm.feed.publish(NUDGES, {"group": name})
    return bool(known)


def leave(farm: Farm, identity: Identity) -> None:
    """Say goodbye: a group that left politely is down at once."""
    mine = (GpuGroup.name == identity.name, GpuGroup.incarnation == identity.incarnation)
    gone: Values = {"condition": GroupState.DOWN.value, "video_id": None, "problem": "stopped"}
    with farm.db.connect() as db:
        db.execute(update(GpuGroup).where(*mine).values(gone))


def all_groups(farm: Farm) -> list[Values]:
    """List the groups of the last day; `state` is down when the heartbeat stopped."""
    with farm.db.connect() as db:
        return [judged(dict(row)) for row in db.execute(_GROUPS).mappings()]


def find(known: list[Values], name: str) -> Values:
    """Pick a group by its name.

    Raises:
        WanfarmError: `group_not_found`.
    """
    found = next((row for row in known if row["name"] == name), None)
    if found is None:
        raise WanfarmError(
            "group_not_found",
            f"There is no group '{name[:60]}'. Groups are shown for a day after their last "
            "heartbeat. See the list of groups.",
        )
    return found


def judged(row: Values) -> Values:
    """Add a group's `state`, from what its parent last said and how long ago."""
    silent = row["silent_s"] > SILENT_S
    row["state"] = GroupState.DOWN if silent else GroupState(row["condition"])
    if silent and row["condition"] != GroupState.DOWN:
        row["problem"] = f"no heartbeat for {row['silent_s']:.0f} s"
    return row


_SILENT_S: Final = func.extract("epoch", func.now() - GpuGroup.heartbeat_at).label("silent_s")
NOT_FORGOTTEN: Final = GpuGroup.heartbeat_at > in_seconds(-_FORGOTTEN_S)
OFFER: Final = (  # what a group is to a waiting video
    GpuGroup.name,
    GpuGroup.models,
    GpuGroup.ranks,
    GpuGroup.devices,
    GpuGroup.condition,
    _SILENT_S,
)
_GROUPS: Final = (
    select(*GpuGroup.__table__.c, _SILENT_S).where(NOT_FORGOTTEN).order_by(GpuGroup.name)
)


def served_models(known: list[Values]) -> dict[str, list[str]]:
    """Tell which of these groups take which model; those that are down take none."""
    served: dict[str, list[str]] = {}
    for row in known:
        if row["state"] is not GroupState.DOWN:
            for model in row["models"]:
                served.setdefault(model, []).append(row["name"])
    return served
