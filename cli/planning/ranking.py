"""Which of the ways that work comes first, by what is wanted of them."""

from collections.abc import Sequence
from typing import Final, Literal, get_args

from cli.planning.layouts import Working

Objective = Literal["latency", "throughput", "balanced"]
OBJECTIVES: Final[tuple[Objective, ...]] = get_args(Objective)
_KEPT: Final = 0.9  # of the most videos an hour, by what is called balanced


def ranked(working: Sequence[Working], objective: Objective) -> list[Working]:
    """Put the best first.

    `latency` is the soonest video, `throughput` the most videos an hour, and `balanced` the soonest
    video among the ways that give up at most a tenth of the throughput. Guesses are judged by what
    they come to at worst, so that none outranks a measurement that lies within its error.
    """
    most = max((one.least_per_hour for one in working), default=0.0)

    def key(one: Working) -> tuple[bool, float, float, tuple[int, ...]]:
        soonest, rate = one.estimate.at_worst_s, -one.least_per_hour
        simplest = (one.way.degrees.ranks, one.way.degrees.ring, one.way.degrees.ulysses)
        if objective == "throughput":
            return False, rate, soonest, simplest
        if objective == "latency":
            return False, soonest, rate, simplest
        keeps = one.least_per_hour >= _KEPT * most
        return not keeps, soonest if keeps else rate, rate, simplest

    return sorted(working, key=key)


def why(first: Working, second: Working) -> str:
    """Say in one line what the first has over the second."""
    a, b = first.estimate, second.estimate
    hourly = f"{first.videos_per_hour:.1f} videos an hour against {second.videos_per_hour:.1f}"
    words = f"a video in {a.seconds:.0f} s against {b.seconds:.0f} s, {hourly}"
    if a.basis == "measured" != b.basis:
        words += f"; the second is a guess that may be {b.error:.0%} off"
    return words
