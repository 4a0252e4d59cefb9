"""How long this farm's videos run and wait, by its own latest runs."""

import json
import statistics
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Text, cast, func, select

from shared.jobs.ledger import Fence, Values
from shared.machinery.farm import Farm
from shared.machinery.tables import Attempt, Video
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.runtime import Expected, Run, Work, expect, work_of
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.states import GroupState, VideoState

_LATEST: Final = 100  # runs that are learnt from


@dataclass(frozen=True, slots=True)
class Wait:
    """When a waiting video probably starts, and what its run then takes."""

    starts_at: float  # unix seconds
    ahead: int  # runs that each group makes before
    run: Expected | None


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
    expected = _expect(farm, GenerationSpec.model_validate(row.spec), row.ranks, cache)
    return asdict(expected) if expected else None


def wait(farm: Farm, row: Values, known: list[Values], place: int) -> Wait | None:
    """Expect the start of a waiting video; None while no group takes its model.

    A group is free when its running video is expected to end. Priorities that come later, and
    videos of other models, are not foreseen.

    Args:
        farm: the handles.
        row: of the video.
        known: all groups, as `groups.all_groups` reads them.
        place: the video's place in the queue, from 1.
    """
    serving = [
        group
        for group in known
        if row["model"] in group["models"] and group["state"] not in _CLOSED
    ]
    if not serving:
        return None
    spec = GenerationSpec.model_validate(row["spec"])
    run = _expect(farm, spec, serving[0]["ranks"], None)
    run_s = run.p50_s if run else 0.0
    ends = _ends(farm, run_s)
    earliest: float = max(row["run_after"], row["created_at"]).timestamp()
    free: list[float] = sorted(ends.get(group["name"], earliest) for group in serving)
    ahead, turn = divmod(place - 1, len(free))
    return Wait(max(earliest, free[turn] + ahead * run_s), ahead, run)


def accuracy(farm: Farm) -> Accuracy | None:
    """Compare the latest runs with what was expected of them; None before there are any."""
    pairs = [(_took(row), row["expected"]) for row in _latest(farm) if row["expected"]]
    if not pairs:
        return None
    within = [told["p10_s"] <= took <= told["p90_s"] for took, told in pairs]
    errors = [abs(took / told["p50_s"] - 1) for took, told in pairs]
    return Accuracy(len(pairs), sum(within) / len(pairs), statistics.median(errors))


def lately(farm: Farm, model: str) -> float | None:
    """Tell the median seconds of a model's latest runs, or None without any."""
    runs = _runs(farm, model)
    return statistics.median(run.seconds for run in runs) if runs else None


_CLOSED: Final = frozenset({GroupState.DOWN, GroupState.DRAINING, GroupState.DRAINED})


def _expect(farm: Farm, spec: GenerationSpec, ranks: int, cache: Values | None) -> Expected | None:
    runs = _runs(farm, spec.model)
    # a waiting video's cache is the group's to settle: that of the latest run is likely
    word = _word(cache) if cache is not None else runs[0].work.cache if runs else ""
    return expect(MODELS[spec.model], work_of(spec, ranks, word), runs)


def _runs(farm: Farm, model: str) -> list[Run]:
    """The latest runs of a model that were not resumed, newest first."""
    runs: list[Run] = []
    for row in _latest(farm, Video.model == model):
        if row["attempt"] > 1:
            continue
        work = _work(row["spec"], row["ranks"], _word(row["cache"]))
        if work and (denoise_s := row["denoise_s"]):
            runs.append(Run(work, denoise_s, max(0.0, _took(row) - denoise_s)))
    return runs


@lru_cache(maxsize=1024)  # what has run never changes, and is looked at for every answer
def _work(spec: str, ranks: int, cache: str) -> Work | None:
    """What a stored spec asks for; None when another version wrote it."""
    try:
        return work_of(GenerationSpec.model_validate_json(spec), ranks, cache)
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


def _ends(farm: Farm, run_s: float) -> dict[str | None, float]:
    """When each busy group is expected to be free."""
    running = (
        select(Video.group_name, Video.started_at, Attempt.expected)
        .join(Attempt, (Attempt.video_id == Video.id) & (Attempt.number == Video.attempt))
        .where(Video.state == VideoState.IN_PROGRESS)
    )
    with farm.db.connect() as db:
        rows = db.execute(running).all()
    return {
        row.group_name: row.started_at.timestamp()
        + (row.expected["p50_s"] if row.expected else run_s)
        for row in rows
    }
