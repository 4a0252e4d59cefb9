"""What the block cache did in one attempt: its lanes, its share, and what it gained. Pure sums."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from shared.vocabulary.spec import Value
from worker.engine.result import Branch, Expert, Pattern, StepRecord, extend

Lanes = dict[str, dict[Expert, dict[Branch, Any]]]


class StepSeconds(Value):
    """Medians over the steps of one expert; None where it had no such step."""

    computed: float | None  # every branch computed
    cached: float | None  # every branch cached


class Record(Value):
    """A cached attempt in numbers."""

    cached_ratio: float  # of all calls of a transformer
    cached_steps: int  # steps in which a branch or both were cached
    step_s: dict[Expert, StepSeconds]
    gain: float | None  # see `gain`


def lanes_of(steps: Iterable[StepRecord]) -> Lanes:
    """Line the decisions up per expert and branch, in the order of the steps.

    Returns:
        `pattern`, a letter a step: X computed, c cached; and where there was a cache, `reasons`,
        a letter a step, and `diffs`, a number a step or None where none was measured.
    """
    pattern: Pattern = {}
    reasons: dict[Expert, dict[Branch, str]] = {}
    diffs: dict[Expert, dict[Branch, list[float | None]]] = {}
    for step in steps:
        extend(pattern, step.expert, step.branches)
        for branch, done in step.branches.items():
            if done.reason:
                why = reasons.setdefault(step.expert, {})
                why[branch] = why.get(branch, "") + done.reason
                measured = diffs.setdefault(step.expert, {}).setdefault(branch, [])
                measured.append(None if done.diff is None else round(done.diff, 4))
    found: Lanes = {"pattern": pattern}
    return found | {"reasons": reasons, "diffs": diffs} if reasons else found


def record(steps: Sequence[StepRecord]) -> Record:
    """Sum a cached attempt up."""
    calls = [done.cached for step in steps for done in step.branches.values()]
    return Record(
        cached_ratio=round(sum(calls) / max(1, len(calls)), 4),
        cached_steps=cached_steps(steps),
        step_s={step.expert: _seconds(steps, step.expert) for step in steps},
        gain=gain(steps),
    )


def cached_steps(steps: Iterable[StepRecord]) -> int:
    """Count the steps in which something was cached."""
    return sum(_hits(step) > 0 for step in steps)


def gain(steps: Sequence[StepRecord]) -> float | None:
    """Tell how much longer the steps would have taken without the cache, from this run alone.

    A step with a cached call counts as the median of its expert's computed steps, a computed one as
    itself: a slow first step is on both sides, and a run without a cached call gains exactly 1.
    None when no step was computed in all its branches.
    """
    computed = [step for step in steps if _hits(step) == 0]
    if not computed:
        return None
    overall = statistics.median(step.seconds for step in computed)
    spent = would = 0.0
    for step in steps:
        own = _seconds(computed, step.expert).computed
        spent += step.seconds
        would += step.seconds if _hits(step) == 0 else overall if own is None else own
    return round(would / spent, 3) if spent else None


def _hits(step: StepRecord) -> int:
    """Count the branches that were cached."""
    return sum(done.cached for done in step.branches.values())


def _seconds(steps: Iterable[StepRecord], expert: Expert) -> StepSeconds:
    own = [step for step in steps if step.expert == expert]
    return StepSeconds(
        computed=_median([step.seconds for step in own if _hits(step) == 0]),
        cached=_median([step.seconds for step in own if _hits(step) == len(step.branches)]),
    )


def _median(seconds: Sequence[float]) -> float | None:
    return round(statistics.median(seconds), 4) if seconds else None
