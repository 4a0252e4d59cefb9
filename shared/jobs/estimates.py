"""How long this farm's videos run and wait, by its own latest runs."""

import json
import statistics
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final

from pydantic import ValidationError
from sqlalchemy import BigInteger, ColumnElement, Text, cast, func, select

from shared.jobs.ledger import Fence, Values
from shared.machinery.farm import Farm
from shared.machinery.tables import Attempt, Video
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.runtime import Expected, Run, expect, work_of
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.states import GroupState, VideoState

_LATEST: Final = 100  # runs that are learnt from
_FEW: Final = 3  # runs, before which none is typical


@dataclass(frozen=True, slots=True)
class Wait:
    """When a waiting video probably starts, and what its run then takes."""

    starts_at: float  # unix seconds
    ahead: int  # runs that each group makes before
    ahead_gpu_s: float  # what those before it in the queue take if they are like it
    run: Expected | None


@dataclass(frozen=True, slots=True)
class Running:
    """A group that renders: since when, and how long that probably takes."""

    group: str | None
    model: str
    since: float  # unix seconds
    takes_s: float | None


@dataclass(frozen=True, slots=True)
class Past:
    """A run that happened, and what it tells beside its time."""

    run: Run
    asked: object  # what its request said of the cache
    peak_bytes: int | None
    gain: float | None  # of its cache


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How the latest runs of all models compare with what was expected of them."""

    runs: int
    within: float  # the part that ended inside its range; 0.8 is meant
    median_error: float  # of the likely time, as a part of it


def of_attempt(farm: Farm, fence: Fence, cache: Values) -> Values | None:
    """Expect the run of an attempt whose cache is settled; as its row keeps it."""
    this = (Attempt.video_id == fence.video_id, Attempt.number == fence.attempt)
    of = select(Video.spec, Attempt.ranks).join(Video, Video.id == Attempt.video_id).where(*this)
    with farm.db.connect() as db:
        row = db.execute(of).one()
    spec = GenerationSpec.model_validate(row.spec)
    expected = run_of(spec, row.ranks, past(farm, spec.model), _word(cache))
    return asdict(expected) if expected else None


def run_of(
    spec: GenerationSpec, ranks: int, known: list[Past], cache: str | None = None
) -> Expected | None:
    """Expect a run; None for a model that has neither runs nor a published figure.

    Args:
        spec: the video.
        ranks: of the group.
        known: the model's past.
        cache: its policies in one word; None where a group has still to settle them.
    """
    word = likely_cache(spec, known) if cache is None else cache
    work = work_of(spec, ranks, word)
    return expect(MODELS[spec.model], work, [one.run for one in known])


def likely_cache(spec: GenerationSpec, known: list[Past]) -> str:
    """Guess the policies that a group will settle: those of the latest run that asked the same."""
    if spec.cache == "off" or not known:
        return ""
    alike = [one for one in known if one.asked == spec.cache]
    return (alike or known)[0].run.work.cache


def wait(
    farm: Farm, spec: GenerationSpec, earliest: float, known: list[Values], place: int
) -> Wait | None:
    """Expect the start of a waiting video; None while no group takes its model.

    A group is free when its running video is expected to end. Priorities that come later, and
    videos of other models, are not foreseen.

    Args:
        farm: the handles.
        spec: the video.
        earliest: unix seconds before which it will not start.
        known: all groups, as `groups.all_groups` reads them.
        place: the video's place in the queue, from 1.
    """
    if not serving(spec.model, known):  # nothing is to be read for the answer
        return None
    return wait_of(spec, earliest, known, place, past(farm, spec.model), running(farm))


def wait_of(
    spec: GenerationSpec,
    earliest: float,
    known: list[Values],
    place: int,
    past: list[Past],
    now: list[Running],
) -> Wait | None:
    """Expect a start as `wait` does, from what was read already."""
    takers = serving(spec.model, known)
    if not takers:
        return None
    ranks: int = takers[0]["ranks"]
    run = run_of(spec, ranks, past)
    run_s = run.p50_s if run else 0.0
    ends = {one.group: one.since + (one.takes_s or run_s) for one in now}
    free: list[float] = sorted(ends.get(group["name"], earliest) for group in takers)
    ahead, turn = divmod(place - 1, len(free))
    starts_at = max(earliest, free[turn] + ahead * run_s)
    return Wait(starts_at, ahead, (place - 1) * run_s * ranks, run)


def serving(model: str, known: list[Values]) -> list[Values]:
    """Give the groups that take new videos of a model."""
    return [group for group in known if model in group["models"] and group["state"] not in _CLOSED]


def typical(farm: Farm, model: str) -> tuple[float, float, float] | None:
    """Sum up the latest runs of a model: seconds that 1, 5 and 9 of 10 took; None without any."""
    took = [one.run.seconds for one in past(farm, model)]
    if len(took) < _FEW:
        return None
    tenths = statistics.quantiles(took, n=10, method="inclusive")
    return tenths[0], tenths[4], tenths[8]


def accuracy(farm: Farm) -> Accuracy | None:
    """Compare the latest runs with what was expected of them; None before there are any."""
    pairs = [(_took(row), row["expected"]) for row in _latest(farm) if row["expected"]]
    if not pairs:
        return None
    within = [told["p10_s"] <= took <= told["p90_s"] for took, told in pairs]
    errors = [abs(took / told["p50_s"] - 1) for took, told in pairs]
    return Accuracy(len(pairs), sum(within) / len(pairs), statistics.median(errors))


_CLOSED: Final = frozenset({GroupState.DOWN, GroupState.DRAINING, GroupState.DRAINED})


def past(farm: Farm, model: str) -> list[Past]:
    """Read the latest runs of a model that were not resumed, newest first."""
    known: list[Past] = []
    for row in _latest(farm, Video.model == model):
        spec = _spec(row["spec"])
        denoise_s: float | None = row["denoise_s"]
        if row["attempt"] > 1 or spec is None or not denoise_s:
            continue
        work = work_of(spec, row["ranks"], _word(row["cache"]))
        run = Run(work, denoise_s, max(0.0, _took(row) - denoise_s))
        known.append(Past(run, spec.cache, row["peak_bytes"], row["gain"]))
    return known


@lru_cache(maxsize=1024)  # what has run never changes, and is looked at for every answer
def _spec(stored: str) -> GenerationSpec | None:
    """Read a stored spec; None when another version wrote it."""
    try:
        return GenerationSpec.model_validate_json(stored)
    except ValidationError:
        return None


def _latest(farm: Farm, *where: ColumnElement[bool]) -> list[Values]:
    """Completed attempts, newest first."""
    latest = (
        select(
            cast(Video.spec, Text).label("spec"),
            Video.attempt,
            Attempt.ranks,
            Attempt.cache,
            Attempt.expected,
            Attempt.report["load_s"].as_float().label("load_s"),
            Attempt.report["phase_seconds"]["denoise"].as_float().label("denoise_s"),
            cast(Attempt.report["peak_memory_bytes"].astext, BigInteger).label("peak_bytes"),
            Attempt.report["cached"]["gain"].as_float().label("gain"),
            func.extract("epoch", Attempt.ended_at - Attempt.claimed_at).label("took"),
        )
        .join(Attempt, (Attempt.video_id == Video.id) & (Attempt.number == Video.attempt))
        .where(Video.state == VideoState.COMPLETED, *where)
        .order_by(Video.completed_at.desc())
        .limit(_LATEST)
    )
    with farm.db.connect() as db:
        return [dict(row) for row in db.execute(latest).mappings()]


def _took(row: Values) -> float:
    """An attempt's seconds, but for the loading of its model."""
    return float(row["took"]) - (row["load_s"] or 0.0)


def _word(cache: Values | None) -> str:
    """What was cached, comparable; who chose it does not matter."""
    policies = {name: value for name, value in (cache or {}).items() if name != "sources"}
    return json.dumps(policies, sort_keys=True) if policies.get("high") else ""


def running(farm: Farm) -> list[Running]:
    """Read what runs."""
    found = (
        select(Video.group_name, Video.model, Video.started_at, Attempt.expected)
        .join(Attempt, (Attempt.video_id == Video.id) & (Attempt.number == Video.attempt))
        .where(Video.state == VideoState.IN_PROGRESS)
    )
    with farm.db.connect() as db:
        rows = db.execute(found).all()
    return [
        Running(
            row.group_name,
            row.model,
            row.started_at.timestamp(),
            row.expected["p50_s"] if row.expected else None,
        )
        for row in rows
    ]
