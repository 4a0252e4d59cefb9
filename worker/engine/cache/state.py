"""What the block cache remembers of one expert, apart for each guidance branch."""

from collections.abc import Callable

import torch
from torch import Tensor

from worker.engine.cache.courses import Course
from worker.engine.cache.rules import History, decide
from worker.engine.cache.taylor import Taylor
from worker.engine.result import Branch, Decision


class ExpertCache:
    """The branches of one expert; made for one job and dropped with the expert's last step."""

    def __init__(self, course: Course) -> None:
        """Begin with nothing stored."""
        self.course = course
        self._branches: dict[Branch, BranchCache] = {}

    def branch(self, name: Branch) -> "BranchCache":
        """The memory of one branch, which begins empty."""
        return self._branches.setdefault(name, BranchCache(self.course))

    def decisions(self) -> dict[Branch, Decision]:
        """What each branch that ran here did last."""
        return {name: branch.decision for name, branch in self._branches.items()}


class BranchCache:
    """One branch: its history, and tensors of [1, L_local, D] in the model's dtype.

    Between forwards it holds the first blocks' residual and order + 1 terms of the middle
    blocks' change.
    """

    def __init__(self, course: Course) -> None:
        """Begin with nothing stored."""
        policy = course.policy
        self.decision = Decision()  # of the last forward
        self._course = course
        self._history = History()
        self._residual: Tensor | None = None  # of the last computed forward
        self._taylor = Taylor(policy.ts_order if policy.taylorseer else 0)

    def decide(
        self, entered: Tensor, hidden: Tensor, add_up: Callable[[Tensor], Tensor] | None
    ) -> Decision:
        """Decide the next forward, once its first blocks have run.

        Args:
            entered: [1, L_local, D], what went into the first blocks.
            hidden: same shape, what came out.
            add_up: sums the statistics over the ranks of one sequence; None on one rank.
        """

        def measure() -> float:
            assert self._residual is not None
            sums = residual_sums(self._residual, entered, hidden)
            if add_up is not None:
                sums = add_up(sums)
            return float(sums[0] / sums[1])  # the only wait for the device in a forward

        self._taylor.tick()
        stored = self._residual is not None
        self.decision = decide(self._course, self._history, stored=stored, measure=measure)
        self._history = self._history.after(self.decision)
        return self.decision

    def keep(self, residual: Tensor) -> None:
        """Take the first blocks' residual of a forward that is computed."""
        self._residual = residual

    def learn(self, change: Tensor) -> None:
        """Take the middle blocks' change of a forward that was computed."""
        self._taylor.learn(change)

    def apply(self, hidden: Tensor) -> Tensor:
        """Stand in for the middle blocks."""
        return self._taylor.apply(hidden)


def residual_sums(previous: Tensor, entered: Tensor, hidden: Tensor) -> Tensor:
    """Tell how far the first blocks' residual has moved since the last computed step.

    Args:
        previous: [1, L_local, D] in the model's dtype, the residual of that step.
        entered: same shape and dtype, what now went into the first blocks.
        hidden: same shape and dtype, what came out.

    Returns:
        [2]: sum|previous - (hidden - entered)| and sum|previous|, added up in fp32.
    """
    moved = (hidden - entered).sub_(previous)
    return torch.stack(
        [torch.linalg.vector_norm(change, 1, dtype=torch.float32) for change in (moved, previous)]
    )
