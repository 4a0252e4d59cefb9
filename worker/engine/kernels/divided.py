"""Self-attention of diffusers' own blocks where a sequence is divided over ranks."""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanAttnProcessor,
    WanTransformer3DModel,
)
from torch import Tensor

from worker.engine.cache.blocks import Rotary, blocks_of
from worker.engine.kernels.attention import choose
from worker.engine.parallel.sequence import SelfAttention


class DividedAttention(WanAttnProcessor):
    """diffusers' processor on one rank; across ranks, the same arithmetic around an exchange."""

    def __init__(self, attend: SelfAttention) -> None:
        """Take what computes the attention, and knows whether the sequence is divided."""
        super().__init__()
        self._attend = attend

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Rotary | None = None,
    ) -> Tensor:
        """Attend to this very sequence; arguments and result as in diffusers."""
        if self._attend.sequence is None:
            return super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            )
        assert encoder_hidden_states is None, "the text is whole on every rank"
        assert rotary_emb
        heads = (attn.heads, -1)
        q = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, heads)  # [1, L_local, H, d]
        k = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, heads)
        v = attn.to_v(hidden_states).unflatten(2, heads)
        attended = self._attend(_turned(q, rotary_emb), _turned(k, rotary_emb), v)
        return attn.to_out[1](attn.to_out[0](attended.flatten(2, 3).type_as(q)))


def install(transformers: Iterable[WanTransformer3DModel], device: torch.device) -> SelfAttention:
    """Let the self-attention of loaded transformers, their blocks wrapped, be divided.

    Args:
        transformers: of these instances only.
        device: where they work.

    Returns:
        What they all attend with: torch's own choice of a kernel, as diffusers'.
    """
    native, flash = (choose(name, device, low=False) for name in ("native", "flash"))
    attend = SelfAttention(native.attend, flash.with_lse, native.name)
    for transformer in transformers:
        block: Any  # a WanTransformerBlock
        for block in blocks_of(transformer).inner:
            block.attn1.set_processor(DividedAttention(attend))
    return attend


def _turned(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn each pair of channels by its token's angles, as diffusers does it."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotary[0][..., 0::2], rotary[1][..., 1::2]
    turned = torch.empty_like(x)
    turned[..., 0::2] = first * cos - second * sin
    turned[..., 1::2] = first * sin + second * cos
    return turned.type_as(x)
