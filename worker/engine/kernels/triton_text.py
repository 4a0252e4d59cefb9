"""Attention to the text on NVIDIA GPUs: queries are read as their linear left them."""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false
# pyright: reportMissingParameterType=false, reportIndexIssue=false
# ruff: noqa: ANN001, ANN202, PLR0913

import math
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS: Final = 128
_KEYS: Final = 64


@triton.jit
def _inverse_rms(x, inverse, eps, D: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * D + i, mask=i < D, other=0.0).to(tl.float32)
    tl.store(inverse + row, tl.rsqrt(tl.sum(v * v, 0) / D + eps))


@triton.jit(do_not_specialize=["rows", "count"])  # prompts of any length, one compilation
def _attend(
    q, inverse, weight, k, v, out, rows, count, bias, scale,
    D: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    # heads of the same tokens run side by side, so that their rows are read through
    head = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    i = tl.arange(0, WIDE)
    column = head * SIZE + i
    inside = (row < rows)[:, None] & (i < SIZE)[None, :]
    at = row.to(tl.int64)[:, None] * D + column[None, :]
    x = tl.load(q + at, mask=inside, other=0.0).to(tl.float32)
    x = x * tl.load(inverse + row, mask=row < rows, other=0.0)[:, None]
    x = x * tl.load(weight + column, mask=i < SIZE, other=0.0).to(tl.float32)[None, :]
    x = x.to(k.dtype.element_ty)

    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, WIDE), tl.float32)
    for start in range(0, count, KEYS):
        key = start + tl.arange(0, KEYS)
        there = (key < count)[:, None] & (i < SIZE)[None, :]
        place = key[:, None] * D + column[None, :]
        keys = tl.load(k + place, mask=there, other=0.0)
        values = tl.load(v + place, mask=there, other=0.0)
        scores = tl.dot(x, tl.trans(keys)) * scale + tl.where(key == count - 1, bias, 0.0)[None, :]
        scores = tl.where((key < count)[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        shares = tl.exp2(scores - higher[:, None])
        fading = tl.exp2(peak - higher)
        total = total * fading + tl.sum(shares, 1)
        sums = sums * fading[:, None] + tl.dot(shares.to(values.dtype), values)
        peak = higher
    tl.store(out + at, (sums / total[:, None]).to(out.dtype.element_ty), mask=inside)


def attend(q: Tensor, weight: Tensor, eps: float, k: Tensor, v: Tensor, bias: float) -> Tensor:
    """Norm [1, L, H * d] and attend to [1, n, H, d]; `bias` is added to the last key's scores."""
    assert all(x.is_contiguous() for x in (q, k, v))
    rows, width = q.shape[1:]
    count, heads, size = k.shape[1:]
    wide = max(16, triton.next_power_of_2(size))
    inverse = q.new_empty(rows, dtype=torch.float32)
    block = triton.next_power_of_2(width)
    _inverse_rms[(rows,)](q, inverse, eps, D=width, BLOCK=block, num_warps=8)
    out = torch.empty_like(q)
    per_bit = math.log2(math.e)
    _attend[(heads, triton.cdiv(rows, _ROWS))](
        q, inverse, weight, k, v, out, rows, count, bias * per_bit, per_bit / math.sqrt(size),
        D=width, SIZE=size, WIDE=wide, ROWS=_ROWS, KEYS=_KEYS, num_warps=8,
    )  # fmt: skip
    return out
