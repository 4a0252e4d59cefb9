"""Our forward of one Wan block: diffusers' mathematics in fewer passes over memory."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.engine.kernels import text as text_kernel
from worker.engine.kernels.attention import Attend
from worker.engine.kernels.norm import Norm, Rows
from worker.engine.kernels.precision import Linear8
from worker.engine.kernels.rows import add_norm, gated_add, lower, norm_rope
from worker.engine.kernels.text import Text

Rotary = tuple[Tensor, Tensor]  # cos and sin, [L, d / 2] fp32

# diffusers' WanTransformerBlock, WanAttention and FeedForward; their parts have no types
WanBlock = Any
WanAttention = Any
FeedForward = Any


@dataclass(slots=True)
class Opening:
    """The first block's self-attention, which both guidance branches of a step have in common."""

    block: WanBlock
    update: Tensor | None = None  # [1, L, D], from one branch, until the other takes it

    def take(self) -> Tensor | None:
        """Give what was kept, if anything, and keep it no longer."""
        taken, self.update = self.update, None
        return taken


@dataclass(frozen=True, slots=True)
class Modulation:
    """What a step's timesteps do to all blocks."""

    values: Tensor  # [6, S, D]; S is 2 where the first tokens have a timestep of their own
    first: int  # tokens that take row 0; all of them when S is 1
    opening: Opening | None  # None where one branch is computed

    def opening_of(self, block: WanBlock) -> Opening | None:
        """What a block can share with the other branch; None unless it is the first."""
        return self.opening if self.opening and self.opening.block is block else None

    def cut(self, tokens: slice) -> "Modulation":
        """The same for some of the tokens alone."""
        count = tokens.stop - tokens.start
        first = min(max(self.first - tokens.start, 0), count)
        return dataclasses.replace(self, first=first)


def forward(
    block: WanBlock,
    hidden: Tensor,
    text: Text,
    modulation: Modulation,
    rotary: Rotary,
    attend: Attend,
) -> Tensor:
    """Run one block: self-attention, attention to the text, feed-forward.

    Args:
        block: diffusers' block, its linears perhaps lowered to fp8.
        hidden: [1, L, D] in the model's dtype.
        text: the prompt.
        modulation: shift, scale and gate of the self-attention and of the feed-forward, and what
            the other branch may have left.
        rotary: the angles of each token.
        attend: the self-attention; it may exchange with the ranks of a sequence.

    Returns:
        [1, L, D].
    """
    low = isinstance(block.attn1.to_q, Linear8)
    table = block.scale_shift_table[0, :, None] + modulation.values.float()  # [6, S, D]
    shift, scale, gate, ff_shift, ff_scale, ff_gate = table.unbind(0)
    first = modulation.first

    opening = modulation.opening_of(block)
    update = opening.take() if opening else None
    if update is None:
        before = Norm(1 + scale, shift, first, block.norm1.eps)
        _, normed = add_norm(hidden, before, low=low)
        update = _self_attention(block.attn1, normed, rotary, attend)
        if opening:
            opening.update = update

    affine = block.norm2
    weight, bias = (x.float().expand_as(scale).contiguous() for x in (affine.weight, affine.bias))
    across = Norm(weight, bias, first, affine.eps)
    hidden, normed = add_norm(hidden, across, update, gate, low=low)
    del update  # memory is tightest in the layers that follow

    last = Norm(1 + ff_scale, ff_shift, first, block.norm3.eps)
    hidden, normed = add_norm(hidden, last, _text_attention(block.attn2, normed, text), low=low)
    return gated_add(hidden, _feed_forward(block.ffn, normed), ff_gate, first)


def join_projections(attention: WanAttention) -> None:
    """Lay the weights of queries, keys and values side by side, so that one product gives all.

    The three linears stay what they are, with views of the joint memory as their parameters.
    """
    linears = (attention.to_q, attention.to_k, attention.to_v)
    for name in ("weight", "bias"):
        joint = torch.cat([getattr(linear, name).data for linear in linears])
        for linear, part in zip(linears, joint.chunk(3), strict=True):
            getattr(linear, name).data = part


def _self_attention(
    attention: WanAttention, normed: Tensor | Rows, rotary: Rotary, attend: Attend
) -> Tensor:
    attended = attend(*_turned(attention, normed, rotary))  # they are gone when it is projected
    return _out(attention, attended.flatten(2))


def _turned(
    attention: WanAttention, normed: Tensor | Rows, rotary: Rotary
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, normed and turned by their angles, and values; [1, L, H, d] each."""
    q, k, v = _projections(attention, normed)
    q = norm_rope(q, attention.norm_q.weight, *rotary, attention.norm_q.eps)
    k = norm_rope(k, attention.norm_k.weight, *rotary, attention.norm_k.eps)
    heads = (attention.heads, -1)
    return q.unflatten(2, heads), k.unflatten(2, heads), v.unflatten(2, heads)


def _text_attention(attention: WanAttention, normed: Tensor | Rows, text: Text) -> Tensor:
    heads = (attention.heads, -1)
    if attention not in text.keys_values:
        k = attention.norm_k(attention.to_k(text.states)).unflatten(2, heads)
        text.keys_values[attention] = k, attention.to_v(text.states).unflatten(2, heads)
    q, kept = attention.to_q(normed), text.keys_values[attention]
    return _out(attention, text_kernel.attend(q, attention.norm_q, kept, text.times))


def _feed_forward(ffn: FeedForward, normed: Tensor | Rows) -> Tensor:
    inner, outer = ffn.net[0].proj, ffn.net[2]
    if not isinstance(normed, Tensor):
        return outer(lower(inner(normed), gelu=True))
    if normed.is_cuda:  # cuBLAS applies the GELU while the product is still in registers
        joint: Any = torch.ops.aten._addmm_activation
        return outer(joint(inner.bias, normed[0], inner.weight.t(), use_gelu=True)[None])
    return outer(F.gelu(inner(normed), approximate="tanh"))


def _projections(attention: WanAttention, normed: Tensor | Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, [1, L, D] each; in one product where their weights are joined."""
    q, k, v = attention.to_q, attention.to_k, attention.to_v
    if not isinstance(normed, Tensor) or not _joined(q, k, v):
        return q(normed), k(normed), v(normed)
    size = q.weight.shape
    weight = q.weight.as_strided((3 * size[0], size[1]), (size[1], 1))
    q, k, v = F.linear(normed, weight, q.bias.as_strided((3 * size[0],), (1,))).chunk(3, dim=-1)
    return q, k, v


def _joined(*linears: nn.Linear) -> bool:
    """Tell whether `join_projections` still holds: moving a part to another device undoes it."""
    weights = [linear.weight for linear in linears]
    homes = {weight.untyped_storage().data_ptr() for weight in weights}
    return len(homes) == 1 and all(
        weight.storage_offset() == n * weight.numel() for n, weight in enumerate(weights)
    )


def _out(attention: WanAttention, attended: Tensor) -> Tensor:
    linear = attention.to_out[0]
    return linear(lower(attended)) if isinstance(linear, Linear8) else linear(attended)
