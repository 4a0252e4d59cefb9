"""The row kernels on NVIDIA GPUs: one program per token, each value read and written once.

A kernel takes its pointers and sizes one by one. Statistics and products are fp32; results are
rounded to bf16 where diffusers rounds them.
"""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false
# pyright: reportMissingParameterType=false, reportIndexIssue=false
# ruff: noqa: ANN001, ANN202, PLR0913

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from worker.engine.kernels.norm import Norm

FP8: Final = torch.float8_e4m3fn


@triton.jit
def _add_norm(
    hidden, update, gate, scale, shift, hidden_out, normed, scales, first, eps,
    D: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr, GATE: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < D
    late = (row >= first).to(tl.int64) * D  # tokens before `first` take the first set of values
    x = tl.load(hidden + row * D + i, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        u = tl.load(update + row * D + i, mask=inside, other=0.0).to(tl.float32)
        if GATE:
            u = u * tl.load(gate + late + i, mask=inside, other=0.0)
        rounded = (x + u).to(hidden_out.dtype.element_ty)
        tl.store(hidden_out + row * D + i, rounded, mask=inside)
        x = rounded.to(tl.float32)
    mean = tl.sum(x, 0) / D
    centred = tl.where(inside, x - mean, 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, 0) / D + eps)
    n = centred * inverse * tl.load(scale + late + i, mask=inside, other=0.0)
    n = n + tl.load(shift + late + i, mask=inside, other=0.0)
    n = tl.where(inside, n.to(tl.bfloat16).to(tl.float32), 0.0)
    if LOW:
        unit = tl.maximum(tl.max(tl.abs(n), 0) / 448.0, 1e-12)
        tl.store(scales + row, unit)
        n = n / unit
    tl.store(normed + row * D + i, n.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _norm_rope(
    x, weight, cos, sin, out, stride, eps, D: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < D
    v = tl.load(x + row * stride + i, mask=inside, other=0.0).to(tl.float32)
    v = v * tl.rsqrt(tl.sum(v * v, 0) / D + eps)
    v = (v * tl.load(weight + i, mask=inside, other=0.0).to(tl.float32)).to(tl.bfloat16)
    even, odd = tl.split(tl.reshape(v.to(tl.float32), (BLOCK // 2, 2)))
    pair = tl.arange(0, BLOCK // 2) % HALF  # every head turns by the same angles
    c = tl.load(cos + row * HALF + pair)
    s = tl.load(sin + row * HALF + pair)
    turned = tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), (BLOCK,))
    tl.store(out + row * D + i, turned.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _lower(x, out, scales, D: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < D
    v = tl.load(x + row * D + i, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        # 0.5 v (1 + tanh(u)) = v sigmoid(2u), with u the tanh approximation's argument
        v = v * tl.sigmoid(1.5957691216057308 * (v + 0.044715 * v * v * v))
    unit = tl.maximum(tl.max(tl.abs(v), 0) / 448.0, 1e-12)
    tl.store(scales + row, unit)
    tl.store(out + row * D + i, (v / unit).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gated_add(hidden, update, gate, out, first, D: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < D
    late = (row >= first).to(tl.int64) * D
    x = tl.load(hidden + row * D + i, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(update + row * D + i, mask=inside, other=0.0).to(tl.float32)
    x = x + u * tl.load(gate + late + i, mask=inside, other=0.0)
    tl.store(out + row * D + i, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _head_peaks(x, peaks, stride, heads, D: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head, i = tl.arange(0, WIDE), tl.arange(0, BLOCK)
    inside = (head < heads)[:, None] & (i < D)[None, :]
    v = tl.load(x + row * stride + head[:, None] * D + i[None, :], mask=inside, other=0.0)
    tl.store(peaks + row * heads + head, tl.max(tl.abs(v.to(tl.float32)), 1), mask=head < heads)


@triton.jit
def _lower_heads(x, scales, out, stride, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < WIDTH
    v = tl.load(x + row * stride + i, mask=inside, other=0.0).to(tl.float32)
    v = v / tl.load(scales + i // D, mask=inside, other=1.0)
    tl.store(out + row * WIDTH + i, v.to(out.dtype.element_ty), mask=inside)


def add_norm(
    hidden: Tensor, norm: Norm, update: Tensor | None, gate: Tensor | None, *, low: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """See `rows.add_norm`; with `low` the normed rows are fp8 and their scales [L, 1] come last."""
    assert all(x is None or x.is_contiguous() for x in (norm.scale, norm.shift, gate))
    rows, width = hidden.shape[1:]
    summed = hidden if update is None else torch.empty_like(hidden)
    normed = torch.empty_like(hidden, dtype=FP8 if low else hidden.dtype)
    scales = hidden.new_empty(rows, 1, dtype=torch.float32) if low else None
    _add_norm[(rows,)](
        hidden, update, gate, norm.scale, norm.shift, summed, normed, scales, norm.first, norm.eps,
        D=width, BLOCK=triton.next_power_of_2(width), ADD=update is not None,
        GATE=gate is not None, LOW=low, num_warps=8,
    )  # fmt: skip
    return summed, normed, scales


def gated_add(hidden: Tensor, update: Tensor, gate: Tensor, first: int) -> Tensor:
    """See `rows.gated_add`."""
    assert gate.is_contiguous()
    rows, width = hidden.shape[1:]
    out = torch.empty_like(hidden)
    block = triton.next_power_of_2(width)
    _gated_add[(rows,)](hidden, update, gate, out, first, D=width, BLOCK=block, num_warps=8)
    return out


def norm_rope(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """See `rows.norm_rope`; the rows of `x` may lie apart, as in a joint projection."""
    rows, width = x.shape[1:]
    out = x.new_empty(1, rows, width)
    _norm_rope[(rows,)](
        x, weight, cos, sin, out, x.stride(1), eps,
        D=width, HALF=cos.shape[-1], BLOCK=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return out


def lower(x: Tensor, *, gelu: bool) -> tuple[Tensor, Tensor]:
    """See `rows.lower`: rows [1, L, D] to fp8 and their scales [L, 1] fp32."""
    rows, width = x.shape[1:]
    out = torch.empty_like(x, dtype=FP8)
    scales = x.new_empty(rows, 1, dtype=torch.float32)
    block = triton.next_power_of_2(width)
    _lower[(rows,)](
        x, out, scales, D=width, BLOCK=block, GELU=gelu, num_warps=max(4, min(16, block // 512))
    )
    return out, scales


def lower_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    """Bring [1, L, H, d] to fp8 with one scale per head, [1, H] fp32; tokens may lie apart."""
    _, rows, heads, width = x.shape
    peaks = x.new_empty(rows, heads, dtype=torch.float32)
    wide, block = triton.next_power_of_2(heads), triton.next_power_of_2(width)
    _head_peaks[(rows,)](x, peaks, x.stride(1), heads, D=width, WIDE=wide, BLOCK=block, num_warps=8)
    scales = (peaks.amax(0, keepdim=True) / 448.0).clamp_(min=1e-12)
    out = torch.empty(x.shape, dtype=FP8, device=x.device)
    size, every = heads * width, triton.next_power_of_2(heads * width)
    _lower_heads[(rows,)](
        x, scales, out, x.stride(1), D=width, WIDTH=size, BLOCK=every, num_warps=8
    )
    return out, scales
