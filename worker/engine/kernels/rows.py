"""What a block does to each token between its matrix products: one pass over memory each.

On CUDA these are Triton kernels; elsewhere the same arithmetic in plain torch. Sums and norms are
fp32, and values are rounded to the model's dtype in the places where diffusers rounds them.
"""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.engine.kernels.norm import Norm, Rows


def add_norm(
    hidden: Tensor,
    norm: Norm,
    update: Tensor | None = None,
    gate: Tensor | None = None,
    *,
    low: bool = False,
) -> tuple[Tensor, Tensor | Rows]:
    """Add what a layer gave to the stream, and norm the sum for the next layer.

    Args:
        hidden: [1, L, D] in the model's dtype.
        norm: applied to the sum.
        update: [1, L, D], or None to add nothing.
        gate: [S, D] fp32 as in `Norm`, or None for 1.
        low: give the norm in fp8; CUDA only.

    Returns:
        hidden + update * gate, and its norm; both [1, L, D].
    """
    if hidden.is_cuda:
        summed, normed, scales = _on_gpu().add_norm(hidden, norm, update, gate, low=low)
        return summed, normed if scales is None else (normed, scales)
    summed = hidden
    if update is not None:
        summed = hidden + update if gate is None else gated_add(hidden, update, gate, norm.first)
    plain = F.layer_norm(summed.float(), hidden.shape[-1:], eps=norm.eps)
    scale, shift = (_by_row(values, norm.first, hidden) for values in (norm.scale, norm.shift))
    return summed, (plain * scale + shift).type_as(hidden)


def gated_add(hidden: Tensor, update: Tensor, gate: Tensor, first: int) -> Tensor:
    """Give hidden + update * gate, [1, L, D]; `gate` is [S, D] fp32, split at `first` tokens."""
    if hidden.is_cuda:
        return _on_gpu().gated_add(hidden, update, gate, first)
    return (hidden.float() + update * _by_row(gate, first, hidden)).type_as(hidden)


def norm_rope(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Norm queries or keys over all heads and turn each pair by its token's angles.

    Args:
        x: [1, L, heads * d]; rows may lie apart.
        weight: [heads * d].
        cos: [L, d / 2] fp32.
        sin: the same.
        eps: of the norm.

    Returns:
        [1, L, heads * d], contiguous.
    """
    if x.is_cuda:
        return _on_gpu().norm_rope(x, weight, cos, sin, eps)
    normed = F.rms_norm(x, x.shape[-1:], weight, eps)
    even, odd = normed.unflatten(-1, (-1, cos.shape[-1], 2)).unbind(-1)  # [1, L, heads, d / 2]
    c, s = cos[None, :, None], sin[None, :, None]
    turned = torch.stack([even * c - odd * s, even * s + odd * c], -1)
    return turned.flatten(2).type_as(x)


def lower(x: Tensor, *, gelu: bool = False) -> Rows:
    """Bring rows [1, L, K] to fp8, each with a scale of its own, after a GELU (tanh) if asked.

    CUDA only: the fp8 classes are.
    """
    return _on_gpu().lower(x, gelu=gelu)


def lower_heads(x: Tensor) -> Rows:
    """Bring [1, L, H, d] to fp8 with one scale per head, [1, H] fp32. CUDA only."""
    return _on_gpu().lower_heads(x)


def _on_gpu() -> ModuleType:
    """The Triton kernels; Triton is there where torch was built for CUDA, and only there."""
    from worker.engine.kernels import triton_rows

    return triton_rows


def _by_row(values: Tensor, first: int, hidden: Tensor) -> Tensor:
    """Spread [S, D] over the tokens: [1, D] for all, or [L, D] where the first ones differ."""
    if len(values) == 1:
        return values
    late = torch.arange(hidden.shape[1], device=hidden.device) >= first
    return values[late.long()]
