"""One video's tokens divided over ranks, and the self-attention that crosses them."""

from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from shared.vocabulary.spec import FailureKind
from worker.engine.faults import EngineFault

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # [1, L, H, d] x [1, M, H, d] x 2: [1, L, H, d]
AttendLse = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # and lse [1, H, L] fp32
Rotary = tuple[Tensor, Tensor]  # cos and sin: [1, L, 1, d], or [L, d / 2]


class PerToken(Protocol):
    """Values that tokens share in runs."""

    def cut(self, tokens: slice) -> Self:
        """The same for some of the tokens alone."""
        ...


_Time = TypeVar("_Time", Tensor, PerToken)


class Sequence:
    """The ranks of one sequence, ring over Ulysses; each holds consecutive tokens.

    Shares may differ by a token. Every rank calls all of it, in the same order.
    """

    def __init__(
        self,
        whole: dist.ProcessGroup,
        ulysses: dist.ProcessGroup | None,
        ring: dist.ProcessGroup | None,
    ) -> None:
        """Take this rank's groups.

        Args:
            whole: all ranks of the sequence, in the order of their tokens.
            ulysses: ranks next to each other, which exchange heads for tokens; None for one.
            ring: ranks with the same place among those, which pass keys and values on.
        """
        self._group = whole
        self._shares = dist.get_world_size(whole)
        self._place = dist.get_rank(whole)
        self._ulysses = ulysses
        self._ring = ring
        self.ulysses = dist.get_world_size(ulysses) if ulysses else 1
        self.ring = dist.get_world_size(ring) if ring else 1
        self._tokens = 0  # L of the forward that runs

    def split(
        self, hidden_states: Tensor, temb: _Time, rotary_emb: Rotary
    ) -> tuple[Tensor, _Time, Rotary]:
        """Keep this rank's tokens.

        Args:
            hidden_states: [1, L, D].
            temb: [1, 6, D] for all tokens, [1, L, 6, D], or values that can cut themselves.
            rotary_emb: the angles of each token.
        """
        self._tokens = hidden_states.shape[1]
        mine = self._slice(self._place)
        cos, sin = (angles[:, mine] if angles.ndim == 4 else angles[mine] for angles in rotary_emb)
        if not isinstance(temb, Tensor):
            temb = temb.cut(mine)
        elif temb.ndim == 4:
            temb = temb[:, mine]
        return hidden_states[:, mine], temb, (cos, sin)

    def gather(self, hidden_states: Tensor) -> Tensor:
        """Join the shares, [1, L_local, D], to the whole, [1, L, D], on every rank."""
        lengths = [self._length(place) for place in range(self._shares)]
        longest = hidden_states.new_empty(max(lengths), hidden_states.shape[-1])
        longest[: hidden_states.shape[1]] = hidden_states[0]
        parts = [torch.empty_like(longest) for _ in lengths]
        dist.all_gather(parts, longest, group=self._group)
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])[None]

    def sum(self, sums: Tensor) -> Tensor:
        """Add up statistics over the ranks of this sequence; the same on all of them."""
        dist.all_reduce(sums, group=self._group)
        return sums

    def scatter_heads(self, *given: Tensor) -> list[Tensor]:
        """Give heads away for tokens, [1, L_local, H, d] to [1, L_ulysses, H / ulysses, d].

        L_ulysses are the tokens of all ranks of the Ulysses group: the whole sequence, or with a
        ring one lap of it. All of them travel at once.
        """
        if self._ulysses is None:
            return list(given)
        waiting: list[_Arrival] = []
        for x in given:
            by_rank = x[0].unflatten(1, (self.ulysses, -1)).transpose(0, 1)  # [U, L_local, H/U, d]
            rows = by_rank.flatten(0, 1)
            sent = [x.shape[1]] * self.ulysses
            waiting.append(_exchange(rows, sent, self._lengths(), self._ulysses))
        return [arrival()[None] for arrival in waiting]

    def gather_heads(self, x: Tensor) -> Tensor:
        """Undo `scatter_heads`: [1, L_ulysses, H / ulysses, d] to [1, L_local, H, d]."""
        if self._ulysses is None:
            return x
        taken = [self._length(self._place)] * self.ulysses
        rows = _exchange(x[0], self._lengths(), taken, self._ulysses)()
        by_rank = rows.unflatten(0, (self.ulysses, -1))  # [U, L_local, H / U, d]
        return by_rank.transpose(0, 1).flatten(1, 2)[None]

    def ring_attention(self, q: Tensor, k: Tensor, v: Tensor, attend: AttendLse) -> Tensor:
        """Attend to each lap's keys and values in turn while the next ones come in.

        Args:
            q: [1, L_lap, H, d].
            k: the same.
            v: the same.
            attend: also tells the log-sum-exp, by which the parts are weighed.

        Returns:
            [1, L_lap, H, d]; equal to attention over the whole but for rounding.

        Source: ring attention, Liu et al. 2023.
        """
        held = torch.stack((k[0], v[0]), dim=1)  # [L_lap, 2, H, d]
        whole: tuple[Tensor, Tensor] | None = None
        for turn in range(self.ring):
            coming = self._pass_on(held, turn) if turn + 1 < self.ring else None
            part = attend(q, held[None, :, 0], held[None, :, 1])
            whole = part if whole is None else _merged(*whole, *part)
            held = coming() if coming else held
        assert whole
        return whole[0].type_as(q)

    def _pass_on(self, held: Tensor, turn: int) -> "_Arrival":
        """Send keys and values to the next lap's rank, and take those of the one before."""
        assert self._ring
        lap = self._place // self.ulysses
        given, taken = [0] * self.ring, [0] * self.ring
        given[(lap + 1) % self.ring] = len(held)
        taken[(lap - 1) % self.ring] = sum(self._lengths((lap - 1 - turn) % self.ring))
        return _exchange(held, given, taken, self._ring)

    def _lengths(self, lap: int | None = None) -> list[int]:
        """Tokens of each rank of a lap; without a number, of this rank's lap."""
        first = (self._place // self.ulysses if lap is None else lap) * self.ulysses
        return [self._length(place) for place in range(first, first + self.ulysses)]

    def _length(self, place: int) -> int:
        mine = self._slice(place)
        return mine.stop - mine.start

    def _slice(self, place: int) -> slice:
        start, stop = (n * self._tokens // self._shares for n in (place, place + 1))
        return slice(start, stop)


class SelfAttention:
    """Self-attention over [1, L, H, d]: on this rank, or across those of a divided sequence."""

    def __init__(self, attend: Attend, with_lse: AttendLse | None, name: str) -> None:
        """Take a backend.

        Args:
            attend: what it computes.
            with_lse: the same with its log-sum-exp; None where it cannot tell.
            name: of the backend, for people.
        """
        self._attend = attend
        self._with_lse = with_lse
        self.name = name
        self.sequence: Sequence | None = None

    def divide(self, sequence: Sequence | None) -> None:
        """Exchange with these ranks from now on; None for a whole sequence on this rank.

        Raises:
            EngineFault: kind `bad_input`, when the backend is of no use in a ring.
        """
        if sequence and sequence.ring > 1 and self._with_lse is None:
            raise EngineFault(
                FailureKind.BAD_INPUT,
                f"The plan has ring {sequence.ring}, and attention '{self.name}' gives no "
                "log-sum-exp to join its parts by. Set WANFARM_ATTENTION to flash, cudnn or fa3.",
            )
        self.sequence = sequence

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend; [1, L_local, H, d] each."""
        sequence = self.sequence
        if sequence is None:
            return self._attend(q, k, v)
        q, k, v = sequence.scatter_heads(q, k, v)
        if sequence.ring == 1:
            return sequence.gather_heads(self._attend(q, k, v))
        assert self._with_lse
        return sequence.gather_heads(sequence.ring_attention(q, k, v, self._with_lse))


_Arrival = Callable[[], Tensor]  # waits


def _exchange(
    rows: Tensor, given: list[int], taken: list[int], group: dist.ProcessGroup
) -> _Arrival:
    """Begin to send so many rows to each rank of a group, and to take as many as each sends."""
    arriving = rows.new_empty(sum(taken), *rows.shape[1:])
    work = dist.all_to_all_single(
        arriving, rows.contiguous(), taken, given, group=group, async_op=True
    )
    assert work

    def wait() -> Tensor:
        work.wait()
        return arriving

    return wait


def _merged(a: Tensor, a_lse: Tensor, b: Tensor, b_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Join attention over two sets of keys; fp32."""
    lse = torch.logaddexp(a_lse, b_lse)
    a_share, b_share = ((part - lse).exp().mT[..., None] for part in (a_lse, b_lse))  # [1, L, H, 1]
    return a * a_share + b * b_share, lse
