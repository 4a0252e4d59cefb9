"""fp8 linears: weights scaled per output channel, activations per token."""

from typing import Any, Final

import torch
from torch import Tensor, nn

from worker.engine.kernels.norm import Rows

_LARGEST: Final = 448.0  # of float8_e4m3fn


class Linear8(nn.Module):
    """A linear layer whose weight is kept in fp8; takes rows that are in fp8 too."""

    weight: Tensor  # [N, K] float8_e4m3fn
    scale: Tensor  # [1, N] fp32
    bias: Tensor  # [N] bf16

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        """Lower a linear layer's weight, where that is fast; it ends where the layer was."""
        super().__init__()
        home = linear.weight.device
        weight, scale = lowered(linear.weight.detach().to(device).float())
        self.register_buffer("weight", weight.to(home), persistent=False)
        self.register_buffer("scale", scale.to(home), persistent=False)
        self.register_buffer("bias", linear.bias.detach().to(torch.bfloat16), persistent=False)

    def forward(self, rows: Rows) -> Tensor:
        """Multiply: [1, L, N] bf16."""
        values, scales = rows
        product = torch._scaled_mm(  # pyright: ignore[reportPrivateUsage] - torch has no other name
            values[0],
            self.weight.t(),
            scale_a=scales,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return product[None]


def lowered(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Give a weight, [N, K] fp32, in fp8, with its scales, [1, N]."""
    scale = (weight.abs().amax(1) / _LARGEST).clamp(min=1e-12)
    return (weight / scale[:, None]).to(torch.float8_e4m3fn), scale[None]


def lower_block(block: Any, device: torch.device) -> None:  # noqa: ANN401 - a WanTransformerBlock
    """Replace the large linears; those of the text's keys and values run once and stay."""
    for attention in (block.attn1, block.attn2):
        attention.to_q = Linear8(attention.to_q, device)
        attention.to_out[0] = Linear8(attention.to_out[0], device)
    block.attn1.to_k = Linear8(block.attn1.to_k, device)
    block.attn1.to_v = Linear8(block.attn1.to_v, device)
    block.ffn.net[0].proj = Linear8(block.ffn.net[0].proj, device)
    block.ffn.net[2] = Linear8(block.ffn.net[2], device)
