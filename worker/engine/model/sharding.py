"""Weights divided over the ranks of a group, for cards that cannot hold them whole."""

import torch
from torch import Tensor, nn
from transformers.models.umt5.modeling_umt5 import (
    UMT5Attention,
    UMT5DenseGatedActDense,
    UMT5EncoderModel,
)

from shared.vocabulary.spec import FailureKind
from worker.engine.faults import EngineFault
from worker.engine.model.stream import Packed, Wait
from worker.engine.parallel.shares import Shares


class Shared:
    """One block's weights, of which this rank keeps a share on its device; it rests empty."""

    def __init__(self, packed: Packed, shares: Shares, device: torch.device) -> None:
        """Keep this rank's share, and let go of the rest."""
        share = -(-packed.nbytes // shares.ranks)
        self.packed = packed
        self.nbytes = share * shares.ranks
        self._shares = shares
        whole = torch.zeros(self.nbytes, dtype=torch.uint8)
        packed.write(whole)
        self._share = whole.view(shares.ranks, -1)[shares.rank].to(device, copy=True)
        self.rest()

    def fetch(self, into: Tensor) -> Wait:
        """Join the shares of all ranks; they all call this, block after block."""
        return self._shares.gather(into, self._share)

    def rest(self) -> None:
        """Hold nothing but the share."""
        self.packed.empty()


def split_text(encoder: UMT5EncoderModel, shares: Shares) -> None:
    """Leave this rank its heads and its part of each feed-forward (tensor parallelism).

    The parts of one sublayer's output are summed once, so all ranks must encode together; what
    comes out is the same on all, and equal to the undivided encoder's up to rounding.

    Raises:
        EngineFault: kind `bad_input`, when the heads cannot be divided by the ranks.
    """
    heads, wide = encoder.config.num_heads, encoder.config.d_ff
    if heads % shares.ranks or wide % shares.ranks:
        raise EngineFault(
            FailureKind.BAD_INPUT,
            f"The text encoder has {heads} heads. {shares.ranks} ranks cannot share them evenly. "
            "Turn shard_text off.",
        )
    for module in encoder.modules():
        if isinstance(module, UMT5Attention):
            for linear in (module.q, module.k, module.v):
                _keep(linear, 0, shares)
            module.n_heads //= shares.ranks
            module.inner_dim //= shares.ranks
            if module.has_relative_attention_bias:
                _keep(module.relative_attention_bias, 1, shares)
            _sum_up(module.o, shares)
        elif isinstance(module, UMT5DenseGatedActDense):
            for linear in (module.wi_0, module.wi_1):
                _keep(linear, 0, shares)
            _sum_up(module.wo, shares)


def _keep(module: nn.Linear | nn.Embedding, dim: int, shares: Shares) -> None:
    parts = module.weight.data.chunk(shares.ranks, dim)
    module.weight.data = parts[shares.rank].clone(memory_format=torch.contiguous_format)


def _sum_up(linear: nn.Linear, shares: Shares) -> None:
    """Divide a layer by its inputs; each rank's output is then a part of the whole."""
    _keep(linear, 1, shares)

    def add(_module: nn.Module, _given: object, out: Tensor) -> Tensor:
        return shares.sum(out)

    linear.register_forward_hook(add)
