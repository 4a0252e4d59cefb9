"""How long a video takes, learnt from videos that were made: a range, and what it rests on.

A run is its denoising and the rest. A forward costs something and grows with its work, the rest
grows with the size. What runs took over what that predicts gives the range, so it is as wide as
this farm's runs are spread.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.vocabulary.catalog import Model
from shared.vocabulary.spec import GenerationSpec

Basis = Literal["measured", "interpolated", "prior"]

_ENOUGH: Final = 8  # runs that make a range
UNSURE: Final = (0.5, 2.0)  # of what fewer runs, or other machines, tell
# A token's share of attention grows with the number of tokens; it equals its share of the matrix
# products at this many times the model's width: 27 width^2 of products, 4 width x tokens.
_ATTENTION_EVENS: Final = 6.7
# Seconds of one H100 per unit of work, and beside the forwards per token: engine.json and
# decode.json in bench/measured, 832x480x81 and 1280x704x121 in bf16.
_PRIORS: Final = {
    "wan2.2-t2v-a14b": (3.97e-5, 2.4e-5),
    "wan2.2-i2v-a14b": (3.97e-5, 2.4e-5),
    "wan2.2-ti2v-5b": (1.25e-5, 1.1e-4),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What a run's time depends on; equal for runs that should take equally long."""

    forwards: float  # of the transformer in one run, guidance counted
    tokens: int
    attention: float  # what a token costs more than it would in a short sequence
    ranks: int
    cache: str  # the policies in one word; empty without

    @property
    def units(self) -> float:
        """What denoising is proportional to."""
        return self.forwards * self.tokens * self.attention / self.ranks


@dataclass(frozen=True, slots=True)
class Run:
    """A run that happened, without the loading of its model."""

    work: Work
    denoise_s: float
    rest_s: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.denoise_s + self.rest_s


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run will take: 8 of 10 end between the first and the last of the three."""

    p10_s: float
    p50_s: float
    p90_s: float
    rest_s: float  # of the median, what follows the last step
    basis: Basis


def work_of(spec: GenerationSpec, ranks: int, cache: str) -> Work:
    """Tell what a run's time depends on."""
    card = spec.card
    branches = 1 + (spec.guidance_high > 1)
    if spec.guidance_low is not None:  # the experts share the steps about evenly
        branches = (branches + 1 + (spec.guidance_low > 1)) / 2
    return Work(
        forwards=spec.steps * branches,
        tokens=spec.tokens,
        attention=1 + spec.tokens / (_ATTENTION_EVENS * card.width),
        ranks=ranks,
        cache=cache,
    )


def expect(model: Model, work: Work, runs: Sequence[Run]) -> Expected | None:
    """Expect a run.

    Args:
        model: its card, for what is known before there are runs.
        work: what it will do.
        runs: the model's latest, newest first.

    Returns:
        None for a model that has neither runs nor a published figure.
    """
    like = [run for run in runs if run.work.cache == work.cache and run.work.ranks == work.ranks]
    known = like if len(like) >= _ENOUGH else list(runs)
    same = [run for run in known if run.work == work]
    if len(same) >= _ENOUGH:
        rest = statistics.median(run.rest_s for run in same)
        return Expected(*_range([run.seconds for run in same]), rest, "measured")
    if known:
        return _interpolated(work, known)
    if prior := _PRIORS.get(model.id):
        per_unit, per_token = prior
        rest = per_token * work.tokens
        likely = per_unit * work.units + rest
        return Expected(UNSURE[0] * likely, likely, UNSURE[1] * likely, rest, "prior")
    return None


def _interpolated(work: Work, runs: list[Run]) -> Expected:
    rest = _line([run.work.tokens for run in runs], [run.rest_s for run in runs])
    forward = _line(
        [run.work.units / run.work.forwards for run in runs],
        [run.denoise_s / run.work.forwards for run in runs],
    )

    def seconds(of: Work) -> float:
        return of.forwards * forward(of.units / of.forwards) + rest(of.tokens)

    least, likely, most = UNSURE[0], 1.0, UNSURE[1]
    if len(runs) >= _ENOUGH:
        least, likely, most = _range([run.seconds / seconds(run.work) for run in runs])
    whole = seconds(work)
    return Expected(
        least * whole, likely * whole, most * whole, likely * rest(work.tokens), "interpolated"
    )


def _line(sizes: Sequence[float], seconds: Sequence[float]) -> Callable[[float], float]:
    """Fit seconds by a line over sizes that neither starts below nothing nor falls."""
    per_size = statistics.median(s / size for s, size in zip(seconds, sizes, strict=True))
    if len(set(sizes)) > 1:
        slope, start = statistics.linear_regression(sizes, seconds)
        if slope >= 0 and start >= 0:
            return lambda size: start + slope * size
    return lambda size: per_size * size


def _range(values: list[float]) -> tuple[float, float, float]:
    tenths = statistics.quantiles(values, n=10)
    return tenths[0], tenths[4], tenths[8]
