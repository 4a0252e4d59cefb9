"""Runs a transformer's blocks, all in one place: where a cache, a split or a stream comes in."""

import contextlib
from collections.abc import Callable, Generator, Iterable
from functools import partial
from itertools import islice
from typing import Protocol, cast

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from worker.engine.cache.state import ExpertCache
from worker.engine.result import Branch

Rotary = tuple[Tensor, Tensor]  # cos and sin, [1, L, 1, d]
_Run = Callable[[int, int, Tensor], Tensor]  # blocks first to last - 1 on hidden states


class Sequence(Protocol):
    """A video's tokens divided over the ranks of one sequence; every rank calls all of it."""

    def split(
        self, hidden_states: Tensor, temb: Tensor, rotary_emb: Rotary
    ) -> tuple[Tensor, Tensor, Rotary]:
        """Keep this rank's share of the tokens.

        Args:
            hidden_states: [1, L, D].
            temb: [1, 6, D], or [1, L, 6, D] with a timestep per token.
            rotary_emb: [1, L, 1, d] each.
        """
        ...

    def gather(self, hidden_states: Tensor) -> Tensor:
        """Join the shares, [1, L_local, D], to the whole, [1, L, D], on every rank."""
        ...

    def sum(self, sums: Tensor) -> Tensor:
        """Add up fp32 statistics, [2], over the ranks of this sequence only."""
        ...


class Stream(Protocol):
    """Block weights that live elsewhere and visit the device in time."""

    def through(self, first: int, last: int) -> Iterable[nn.Module]:
        """Give blocks `first` to `last - 1` in order, each with its weights on the device.

        Only these run next, so only these may be loaded; after the last block of all, the next
        forward begins with block 0.
        """
        ...


class Blocks(nn.Module):
    """The N blocks of one transformer as a single block; without cache and plugs, a plain loop."""

    def __init__(self, inner: nn.ModuleList) -> None:
        """Take the blocks over; their names become `blocks.0.inner.K`."""
        super().__init__()
        self.inner = inner
        self.sequence: Sequence | None = None  # set by parallel plans that split the sequence
        self.stream: Stream | None = None  # set when weights are offloaded block by block
        self.cache: ExpertCache | None = None  # set by `JobCache` while a job uses these blocks
        self._branch: Branch | None = None

    @contextlib.contextmanager
    def branch(self, name: str, **_where: object) -> Generator[None]:
        """Stand in for the transformer's `cache_context`, to learn whose forward comes."""
        self._branch = cast(Branch, name)
        try:
            yield
        finally:
            self._branch = None

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: Rotary,
    ) -> Tensor:
        """Run the blocks; arguments and result as of one block, [1, L, D].

        With a cache, `hidden_states` is written over.
        """
        if self.sequence is not None:
            hidden_states, temb, rotary_emb = self.sequence.split(hidden_states, temb, rotary_emb)
        run = partial(self._run, (encoder_hidden_states, temb, rotary_emb))
        if self.cache is None:
            hidden_states = run(0, len(self.inner), hidden_states)
        else:
            assert self._branch, "whoever uses the cache says which branch a forward belongs to"
            hidden_states = self._run_cached(self.cache, self._branch, run, hidden_states)
        if self.sequence is not None:
            hidden_states = self.sequence.gather(hidden_states)
        return hidden_states

    def _run_cached(self, cache: ExpertCache, branch: Branch, run: _Run, entered: Tensor) -> Tensor:
        """Let the first blocks tell whether the middle ones must run; the last always do.

        What nobody reads again becomes the memory of what is kept, so blocks must give a new
        tensor and leave their input alone.
        """
        policy, memory = cache.course.policy, cache.branch(branch)
        first, last = policy.fn, len(self.inner) - policy.bn
        assert first < last, "a cache that skips nothing is not set"
        hidden = run(0, first, entered)
        add_up = self.sequence.sum if self.sequence is not None else None
        if memory.decide(entered, hidden, add_up).cached:
            hidden = memory.apply(hidden)
        else:
            # a rank's share may be a view, which would hold on to the whole
            spare = entered if self.sequence is None else None
            memory.keep(torch.sub(hidden, entered, out=spare))
            middle = run(first, last, hidden)
            memory.learn(torch.sub(middle, hidden, out=hidden))
            hidden = middle
        return run(last, len(self.inner), hidden)

    def _run(
        self, given: tuple[Tensor, Tensor, Rotary], first: int, last: int, hidden: Tensor
    ) -> Tensor:
        for block in self._through(first, last):
            hidden = block(hidden, *given)
        return hidden

    def _through(self, first: int, last: int) -> Iterable[nn.Module]:
        if self.stream is not None:
            return self.stream.through(first, last)
        return islice(self.inner, first, last)


def install(transformer: WanTransformer3DModel) -> Blocks:
    """Put a transformer's blocks behind one wrapper; of this instance only, once, right after load.

    Compiling and any other hook come later, on the inner blocks.
    """
    blocks = Blocks(transformer.blocks)
    transformer.blocks = nn.ModuleList([blocks])
    transformer.cache_context = blocks.branch
    return blocks


def blocks_of(transformer: WanTransformer3DModel) -> Blocks:
    """Give the wrapper that `install` put in."""
    blocks = transformer.blocks[0]
    assert isinstance(blocks, Blocks)
    return blocks
