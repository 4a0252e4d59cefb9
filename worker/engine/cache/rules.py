"""When a forward is computed and when cached: DBCache's rules in their order, as pure decisions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from worker.engine.cache.courses import Course
from worker.engine.result import Decision, Reason

NOT_MEASURED: Final = -1.0  # the difference of a forward that is cached whatever it is


@dataclass(frozen=True, slots=True)
class History:
    """What one branch of one expert has done so far."""

    step: int = 0  # of the expert, 0-based: the one to decide
    streak: int = 0  # cached steps in a row
    cached: int = 0  # cached steps in all
    accumulated: float = 0.0  # sum of the measured differences

    def after(self, decision: Decision) -> Self:
        """The history one step later."""
        diff = decision.diff or 0.0
        return type(self)(
            step=self.step + 1,
            streak=self.streak + 1 if decision.cached else 0,
            cached=self.cached + decision.cached,
            accumulated=self.accumulated + max(diff, 0.0),
        )


def decide(
    course: Course, history: History, *, stored: bool, measure: Callable[[], float]
) -> Decision:
    """Apply the first rule that holds.

    Args:
        course: the expert's steps and policy.
        history: of this branch.
        stored: whether a computed step has left something to reuse.
        measure: gives the residual difference to the last computed step; asked only when no
            earlier rule holds, as it waits for the device.

    Source: DBCache of cache-dit 1.5; "L" is ours.
    """
    for reason, cached, holds in _RULES:
        if holds(course, history, stored):
            diff = NOT_MEASURED if reason == "A" else None
            return Decision(cached=cached, reason=reason, diff=diff)
    assert course.policy.rdt != "always"
    diff = measure()
    if diff < course.policy.rdt:
        return Decision(cached=True, reason="d", diff=diff)
    return Decision(reason="D", diff=diff if math.isfinite(diff) else None)


_Holds = Callable[[Course, History, bool], bool]
_RULES: Final[tuple[tuple[Reason, bool, _Holds], ...]] = (
    ("w", False, lambda course, history, _: course.warms_up_at(history.step)),
    ("s", False, lambda course, history, _: course.mask is not None and course.mask[history.step]),
    (
        "L",
        False,
        lambda course, history, _: course.policy.force_last and history.step == course.steps - 1,
    ),
    ("n", False, lambda _, __, stored: not stored),
    (
        "S",
        True,
        lambda course, _, __: course.mask is not None and course.policy.scm_policy == "static",
    ),
    (
        "M",
        False,
        lambda course, history, _: 0 <= course.policy.max_cached <= history.cached,
    ),
    ("m", False, lambda course, history, _: 0 <= course.policy.mc <= history.streak),
    (
        "a",
        False,
        lambda course, history, _: (
            course.policy.max_accumulated is not None
            and history.accumulated >= course.policy.max_accumulated
        ),
    ),
    ("A", True, lambda course, _, __: course.policy.rdt == "always"),
)
