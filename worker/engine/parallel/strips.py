"""One picture's rows shared out over the ranks: each decodes a strip, and sees its neighbours'."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class Strips:
    """The strips of one video, consecutive rows of the latents for each rank; made by a mesh.

    Every rank of the group must make the same calls. All sizes follow from the latents' rows, as
    each level of the VAE doubles them.
    """

    def __init__(self, group: dist.ProcessGroup | None, rows: int) -> None:
        """Share out `rows` rows of the latents; without a group one rank has them all."""
        self._group = group
        self._rank = 0 if group is None else dist.get_rank(group)
        self._ranks = 1 if group is None else dist.get_world_size(group)
        self._rows = rows
        assert self._ranks <= rows, "a rank without rows would have nothing to show its neighbours"

    @property
    def mine(self) -> slice:
        """This rank's rows of the latents."""
        return self._slice(self._rank)

    def meet(self, frames: Tensor) -> None:
        """Fill the first and the last row with the neighbours' rows next to them.

        Args:
            frames: [n, 1 + h + 1, W, C]; the rows at the picture's edges are left as they are.
        """
        if self._group is None:
            return
        waiting: list[tuple[Tensor, Tensor]] = []
        moves: list[dist.P2POp] = []
        for other, edge, beyond in ((self._rank - 1, 1, 0), (self._rank + 1, -2, -1)):
            if 0 <= other < self._ranks:
                peer = dist.get_global_rank(self._group, other)
                mine = frames[:, edge].contiguous()
                theirs = torch.empty_like(mine)
                moves.append(dist.P2POp(dist.isend, mine, peer, self._group))
                moves.append(dist.P2POp(dist.irecv, theirs, peer, self._group))
                waiting.append((frames[:, beyond], theirs))
        for work in dist.batch_isend_irecv(moves):
            work.wait()
        for row, theirs in waiting:
            row.copy_(theirs)

    def whole(self, frames: Tensor) -> Tensor:
        """The frames of all strips, on every rank; [n, h, W, C] to [n, H, W, C]."""
        if self._group is None:
            return frames
        padded = self._padded(frames)
        parts = [torch.empty_like(padded) for _ in range(self._ranks)]
        dist.all_gather(parts, padded, group=self._group)
        return self._joined(parts, frames.shape[1])

    def cut(self, frames: Tensor) -> Tensor:
        """This rank's rows of whole frames of the latents' size; undoes `whole`."""
        return frames[:, self.mine]

    def collected(self, frames: Tensor) -> Tensor:
        """The frames of all strips on the first rank; the others get an empty tensor."""
        if self._group is None:
            return frames
        padded = self._padded(frames)
        parts = [torch.empty_like(padded) for _ in range(self._ranks)] if self._rank == 0 else None
        dist.gather(padded, parts, dst=dist.get_global_rank(self._group, 0), group=self._group)
        return frames[:0] if parts is None else self._joined(parts, frames.shape[1])

    def _slice(self, rank: int) -> slice:
        return slice(rank * self._rows // self._ranks, (rank + 1) * self._rows // self._ranks)

    def _heights(self) -> list[int]:
        """Rows of the latents of each strip."""
        slices = [self._slice(rank) for rank in range(self._ranks)]
        return [s.stop - s.start for s in slices]

    def _padded(self, frames: Tensor) -> Tensor:
        """As many rows as the highest strip has."""
        heights = self._heights()
        n, h, w, c = frames.shape
        padded = frames.new_zeros(n, h // heights[self._rank] * max(heights), w, c)
        padded[:, :h] = frames
        return padded

    def _joined(self, parts: Sequence[Tensor], rows: int) -> Tensor:
        heights = self._heights()
        scale = rows // heights[self._rank]
        return torch.cat(
            [part[:, : scale * h] for part, h in zip(parts, heights, strict=True)], dim=1
        )
