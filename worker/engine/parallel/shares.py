"""Weights that all ranks of a group own together: each keeps a share, and they meet to compute."""

from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor


class Shares:
    """All ranks of one group; every method is a collective that each of them must call."""

    def __init__(self, rank: int, ranks: int) -> None:
        """Take this rank's place in the group that `Ranks` has brought together."""
        self.rank = rank
        self.ranks = ranks

    def gather(self, into: Tensor, share: Tensor) -> Callable[[], None]:
        """Begin to join the shares, in the order of the ranks.

        Args:
            into: [ranks * n]; only earlier work of the computation may still read it.
            share: [n], this rank's.

        Returns:
            What lets the computation go on only when all shares are there.
        """
        # not by its newer name, which torch 2.11 does not know
        work = dist.all_gather_into_tensor(into, share, async_op=True)  # pyright: ignore[reportDeprecated]
        assert work is not None

        def wait() -> None:
            work.wait()

        return wait

    def sum(self, partial: Tensor) -> Tensor:
        """Add up the ranks' parts of one tensor, in place; the same bits on all of them."""
        dist.all_reduce(partial)
        return partial
