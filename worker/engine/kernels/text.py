"""Attention of a video's tokens to its prompt, whose padding is computed once and counted often."""

import math
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(slots=True)
class Text:
    """One prompt as the blocks see it; its keys and values are computed once per block."""

    states: Tensor  # [1, n, D], embedded
    times: int  # how often the last row counts
    keys_values: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)


def folded(states: Tensor) -> tuple[Tensor, int]:
    """Keep one of the equal rows at a prompt's end: they have equal keys and values too.

    Args:
        states: [1, 512, D]; zeros past the prompt's end, as diffusers pads it.

    Returns:
        [1, n, D], and how many rows the last of them stands for.
    """
    others = (states[0, :-1] != states[0, -1]).any(-1).nonzero()
    before = int(others[-1]) + 1 if len(others) else 0
    return states[:, : before + 1], states.shape[1] - before


def attend(q: Tensor, norm: nn.RMSNorm, keys_values: tuple[Tensor, Tensor], times: int) -> Tensor:
    """Norm queries over all heads and attend to a prompt.

    Args:
        q: [1, L, H * d], as they come out of their linear.
        norm: of the queries.
        keys_values: [1, n, H, d] each, the keys normed.
        times: how often the last key counts.

    Returns:
        [1, L, H * d].
    """
    keys, values = keys_values
    bias = math.log(times)  # exp(score + log n) is n times exp(score)
    assert norm.eps is not None
    if q.is_cuda:  # Triton is there where torch was built for CUDA, and only there
        from worker.engine.kernels import triton_text

        return triton_text.attend(q, norm.weight, norm.eps, keys, values, bias)
    heads = norm(q).unflatten(2, keys.shape[2:]).transpose(1, 2)
    biases = q.new_zeros(keys.shape[1])
    biases[-1] = bias
    attended = F.scaled_dot_product_attention(
        heads,
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=biases.expand(q.shape[1], -1),
    )
    return attended.transpose(1, 2).flatten(2)
