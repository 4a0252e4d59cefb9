"""What the middle blocks would have done: the last time they ran, carried on by differences."""

from math import factorial

import torch
from torch import Tensor


class Taylor:
    """The change that the middle blocks made when last computed, and its differences in time.

    Time counts the forwards of one branch and stands still until the first change is known.

    Source: TaylorSeer as in cache-dit 1.5. Differences are taken from the fourth forward on; until
    then, and with order 0, the change is reused as it is.
    """

    def __init__(self, order: int) -> None:
        """Keep differences up to an order: 0, 1 or 2."""
        self._order = order
        self._terms: list[Tensor] = []  # order + 1 of [1, L_local, D] at most
        self._now = self._computed = -1

    def tick(self) -> None:
        """Count one forward."""
        if self._terms:
            self._now += 1

    def learn(self, change: Tensor) -> None:
        """Take a change just computed; writes the differences over older ones."""
        gap = self._now - self._computed
        terms = [change]
        for older in self._terms[: self._order] if self._now > 1 else ():
            terms.append(torch.sub(terms[-1], older, out=older).div_(gap))
        self._terms = terms
        self._computed = self._now

    def apply(self, hidden: Tensor) -> Tensor:
        """Add the change as it should be by now, in place."""
        return extrapolate(hidden, self._terms, self._now - self._computed)


def extrapolate(hidden: Tensor, terms: list[Tensor], elapsed: int) -> Tensor:
    """Add sum_i terms[i] * elapsed**i / i! to the hidden states in place; all [1, L_local, D]."""
    change = terms[0]
    for i, term in enumerate(terms[1:], start=1):
        change = change + term * (elapsed**i / factorial(i))
    return hidden.add_(change)
