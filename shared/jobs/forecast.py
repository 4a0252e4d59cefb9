"""What would become of a request if it were sent now; nothing is stored."""

import statistics
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from shared.jobs import estimates, groups, offers, queries
from shared.jobs.board import Live
from shared.jobs.estimates import Past, Running
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.vocabulary.ids import new_id
from shared.vocabulary.runtime import Expected, work_of
from shared.vocabulary.spec import Delivery, GenerationSpec
from shared.vocabulary.states import VideoState


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where a video would run, when, and what it would cost; None is unknown."""

    fits: list[str]  # names of groups
    place: int  # in the queue of its model, from 1
    starts_at: float | None  # unix seconds
    run: Expected | None
    gpu_seconds: float | None
    peak_bytes: int | None  # of one card
    gain: float | None  # of the block cache


def forecast(farm: Farm, spec: GenerationSpec, delivery: Delivery) -> Forecast:
    """Look ahead for one video.

    Raises:
        WanfarmError: `does_not_fit`, as for the request itself.
    """
    return next(forecasts(farm, [(spec, delivery)]))


def forecasts(farm: Farm, wanted: Iterable[tuple[GenerationSpec, Delivery]]) -> Generator[Forecast]:
    """Look ahead for videos that would be sent together, one behind the other.

    Raises:
        WanfarmError: `does_not_fit`, of the first that is too large.
    """
    known, now = groups.all_groups(farm), estimates.running(farm)
    pasts: dict[str, list[Past]] = {}
    places: dict[tuple[str, int], int] = {}
    for spec, delivery in wanted:
        fitting = list(offers.fitting(spec, delivery.group, known))
        if spec.model not in pasts:
            pasts[spec.model] = estimates.past(farm, spec.model)
        turn = (spec.model, delivery.priority)
        order = {"model": spec.model, "priority": delivery.priority, "id": new_id("video")}
        places[turn] = places[turn] + 1 if turn in places else queries.place(farm, order)
        past, place = pasts[spec.model], places[turn]
        wait = estimates.wait_of(spec, time.time(), fitting, place, past, now)
        ranks: int = fitting[0]["ranks"] if fitting else 1
        run = wait.run if wait else estimates.run_of(spec, ranks, past)
        yield Forecast(
            fits=[group["name"] for group in fitting],
            place=place,
            starts_at=wait.starts_at if wait else None,
            run=run,
            gpu_seconds=run.p50_s * ranks if run else None,
            peak_bytes=_peak(spec, ranks, past, fitting),
            gain=_gain(spec, past),
        )


@dataclass(frozen=True, slots=True)
class Drain:
    """When all that waits now is probably rendered, in unix seconds."""

    likely: float
    earliest: float
    latest: float


def drained(farm: Farm, live: list[Live], known: list[Values]) -> Drain | None:
    """Expect the end of the queue; None when nothing waits, or something waits for nobody.

    Each run is taken to last as long as its model's latest, and the groups that take a model to
    share its runs evenly.

    Args:
        farm: the handles.
        live: what waits, of all tenants.
        known: all groups, as `groups.all_groups` reads them.
    """
    waiting = {one.model: one.count for one in live if one.state == VideoState.QUEUED}
    serving = {model: estimates.serving(model, known) for model in waiting}
    runs = {model: estimates.typical(farm, model) for model in waiting if serving[model]}
    known_runs = {model: took for model, took in runs.items() if took}
    if not waiting or known_runs.keys() != waiting.keys():
        return None
    began, busy = time.time(), estimates.running(farm)
    ends: list[float] = []
    for at in range(3):
        free = {one.group: max(began, one.since + _takes_s(one, known_runs)) for one in busy}
        for model, count in waiting.items():
            names = [group["name"] for group in serving[model]]
            level = sum(free.get(name, began) for name in names) + count * known_runs[model][at]
            free |= {name: max(free.get(name, began), level / len(names)) for name in names}
        ends.append(max(free.values()))
    return Drain(likely=ends[1], earliest=ends[0], latest=ends[2])


def _takes_s(one: Running, runs: dict[str, tuple[float, float, float]]) -> float:
    """How long a run takes in all, if its beginning did not say as its model's usually do."""
    usual = runs.get(one.model)
    return one.takes_s or (usual[1] if usual else 0.0)


def _peak(spec: GenerationSpec, ranks: int, past: list[Past], fitting: list[Values]) -> int | None:
    """The most that runs of this very work took, or a prediction before there are any."""
    work = work_of(spec, ranks, estimates.likely_cache(spec, past))
    same = [one.peak_bytes for one in past if one.run.work == work and one.peak_bytes]
    predicted = (offers.peak_of(spec, group) for group in fitting)
    return max(same) if same else next(predicted, None)


def _gain(spec: GenerationSpec, past: list[Past]) -> float | None:
    cache = estimates.likely_cache(spec, past)
    if not cache:
        return 1.0 if past or spec.cache == "off" else None
    gains = [one.gain for one in past if one.run.work.cache == cache and one.gain]
    return round(statistics.median(gains), 3) if gains else None
