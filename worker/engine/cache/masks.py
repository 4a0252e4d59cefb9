"""Steps computation masks (SCM): which steps of an expert must be computed, laid out ahead."""

from itertools import zip_longest
from typing import Final

from shared.vocabulary.cache import CachePolicy, ScmPreset

Mask = tuple[bool, ...]  # True computes the step
_Bins = tuple[tuple[int, ...], tuple[int, ...]]  # lengths of computed and of cached runs, in turn

_LONG: Final = 28
_MEDIUM: Final = 15
_LEAST_MEDIUM: Final = 10  # fewer steps have bins of their own or none
_SHORT: Final[dict[int, _Bins]] = {4: ((2, 1), (1,)), 6: ((3, 1), (2,))}
# The presets of cache-dit 1.5 by the step count that they were made for.
_PRESETS: Final[dict[ScmPreset, dict[int, _Bins]]] = {
    "none": {},
    "slow": {
        **_SHORT,
        8: ((5, 1, 1), (1,)),
        9: ((5, 2, 1), (1,)),
        _MEDIUM: ((4, 2, 2, 2, 1), (1, 1, 1, 1)),
        _LONG: ((8, 3, 3, 2, 1, 1), (1, 2, 2, 2, 3)),
    },
    "medium": {
        **_SHORT,
        8: ((4, 1, 1), (1, 1)),
        9: ((5, 1, 1), (1, 1)),
        _MEDIUM: ((4, 2, 1, 1, 1), (1, 1, 2, 2)),
        _LONG: ((6, 2, 2, 2, 2, 1), (1, 3, 3, 3, 3)),
    },
    "fast": {
        **_SHORT,
        8: ((3, 1, 1), (1, 2)),
        9: ((4, 1, 1), (1, 2)),
        _MEDIUM: ((3, 1, 1, 1, 1), (1, 2, 2, 3)),
        _LONG: ((6, 1, 1, 1, 1, 1), (1, 3, 4, 5, 4)),
    },
    "ultra": {
        **_SHORT,
        8: ((2, 1, 1), (2, 2)),
        9: ((3, 1, 1), (2, 2)),
        _MEDIUM: ((2, 1, 1, 1, 1), (1, 2, 3, 3)),
        _LONG: ((4, 1, 1, 1, 1), (2, 5, 6, 7)),
    },
}


def wants_mask(policy: CachePolicy) -> bool:
    """Tell whether a policy asks for a mask, by preset or by bins."""
    return policy.scm_preset != "none" or policy.scm_compute_bins is not None


def scm_mask(policy: CachePolicy, steps: int) -> Mask | None:
    """Lay the policy's mask over an expert's steps.

    Returns:
        One mark per step; None when there is no mask, or when it does not fit so many steps.
    """
    if policy.scm_compute_bins is not None and policy.scm_cache_bins is not None:
        return _lay((policy.scm_compute_bins, policy.scm_cache_bins), steps)
    bins = _fitted(_PRESETS[policy.scm_preset], steps)
    mask = _lay(bins, steps) if bins else None
    return (*mask[:-1], True) if mask else None


def _lay(bins: _Bins, steps: int) -> Mask | None:
    marks: list[bool] = []
    for compute, cache in zip_longest(*bins, fillvalue=0):
        marks += [True] * compute + [False] * cache
    return tuple(marks[:steps]) if len(marks) >= steps else None


def _fitted(made_for: dict[int, _Bins], steps: int) -> _Bins | None:
    """Bins of exactly so many steps, from the nearest that the preset was made for."""
    if steps in made_for or not made_for:
        return made_for.get(steps)
    if steps > _LONG:
        return _shrunk(*_grown(*made_for[_LONG], steps), steps)
    if steps > _MEDIUM:
        return _shrunk(*made_for[_LONG], steps)
    return _shrunk(*made_for[_MEDIUM], steps) if steps >= _LEAST_MEDIUM else None


def _grown(compute: tuple[int, ...], cache: tuple[int, ...], steps: int) -> _Bins:
    """Lengthen all runs in rounds, each by half of its share, until they cover the steps."""
    more, less = list(compute), list(cache)
    rate = steps / _LONG * 0.5
    while True:
        for i, base in enumerate(zip(compute, cache, strict=False)):
            for bins, run in zip((more, less), base, strict=True):
                bins[i] += max(int(run * rate), 1)
                if sum(more) + sum(less) >= steps:
                    return tuple(more), tuple(less)
        more[-1] += 1
        if sum(more) + sum(less) >= steps:
            return tuple(more), tuple(less)


def _shrunk(compute: tuple[int, ...], cache: tuple[int, ...], steps: int) -> _Bins:
    """Take from the last cached and the last computed run in turn until they fit the steps."""
    bins = [list(cache), list(compute)]
    turn = 0
    while sum(map(sum, bins)) > steps:
        runs = bins[turn]
        if runs:
            runs[-1] -= 1
            if runs[-1] == 0:
                runs.pop()
        turn = 1 - turn
    return tuple(bins[1]), tuple(bins[0])
