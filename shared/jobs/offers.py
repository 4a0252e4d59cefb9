"""Which groups can render a video: by model, by name, by the memory of their cards."""

from collections.abc import Iterator
from typing import Final

from shared.jobs.ledger import Values
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.memory import DoesNotFit, Room, fit, peak_bytes
from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.planning import plan
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.states import GroupState

_FRUGAL: Final = Build(precision="bf16")


def fitting(spec: GenerationSpec, wanted: str | None, known: list[Values]) -> Iterator[Values]:
    """Give the groups that can hold a video in their most frugal way; unknown cards may.

    Args:
        spec: the video.
        wanted: the name of the only group that will do.
        known: all groups, at least with what `groups.OFFER` names.

    Raises:
        WanfarmError: `does_not_fit` after the last one, when it is too large for all that take it.
    """
    misfits: list[DoesNotFit] = []
    fits = False
    for group in known:
        takes = group["state"] is not GroupState.DOWN and spec.model in group["models"]
        if not takes or wanted not in {None, group["name"]}:
            continue
        try:
            _placed(spec, group)
        except DoesNotFit as misfit:
            misfits.append(misfit)
        else:
            fits = True
            yield group
    if misfits and not fits:
        best = max(misfits, key=lambda one: one.nearest.tokens if one.nearest else 0)
        raise WanfarmError("does_not_fit", str(best), param="size")


def peak_of(spec: GenerationSpec, group: Values) -> int | None:
    """Predict the bytes that a video takes on each card of a group; None where nobody knows them.

    Raises:
        DoesNotFit: when it is too large.
    """
    if _room(group).total_bytes is None:
        return None
    return peak_bytes(spec, _placed(spec, group), _FRUGAL)


def _placed(spec: GenerationSpec, group: Values) -> ParallelPlan:
    return fit(spec, plan(spec, group["ranks"]), _FRUGAL, None, _room(group))


def _room(group: Values) -> Room:
    cards = [card.get("memory_total_bytes") for card in group["devices"]]
    return Room(min(cards) if cards and all(cards) else None)
