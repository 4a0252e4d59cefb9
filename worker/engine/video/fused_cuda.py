"""The passes of `fused` on NVIDIA GPUs, each value read and written once; products are fp32."""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false
# pyright: reportMissingParameterType=false, reportIndexIssue=false
# ruff: noqa: ANN001, ANN202, PLR0913

from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from worker.engine.video.terms import Shortcut, Sum

_TILE: Final = 4096  # values per program


def settle(terms: Sum, total: Tensor | None, gamma: Tensor | None, room: Tensor | None) -> None:
    """See `fused.settle`."""
    y = terms.y
    assert y.is_contiguous()
    assert terms.residual is None or terms.residual.is_contiguous()
    n, h, w, c = y.shape
    wide = triton.next_power_of_2(c)
    tall = max(1, _TILE // wide)
    rows = n * h * w
    _settle[(triton.cdiv(rows, tall),)](
        y,
        terms.bias,
        terms.residual,
        gamma,
        total,
        room,
        rows,
        h * w,
        0 if total is None else total.stride(0),
        0 if room is None else room.stride(0),
        c**0.5,
        C=c,
        WIDE=wide,
        TALL=tall,
        num_warps=8,
    )


def spread(phases: Tensor, bias: Tensor, shortcut: Shortcut | None) -> Tensor:
    """See `fused.spread`."""
    assert phases.is_contiguous()
    assert shortcut is None or shortcut.x.is_contiguous()
    n, high, wide, c4 = phases.shape
    h, w, c = high - 1, wide - 1, c4 // 4
    out = phases.new_empty(n, 2 * h, 2 * w, c)
    across = triton.next_power_of_2(c)
    tall = max(1, _TILE // across)
    times = shortcut.times if shortcut else 1
    _spread[(triton.cdiv(4 * n * h * w, tall),)](
        phases,
        bias,
        shortcut.x if shortcut else None,
        out,
        4 * n * h * w,
        h,
        w,
        shortcut.skip if shortcut else 0,
        C=c,
        ENTRY=shortcut.x.shape[-1] if shortcut else c,
        TIMES=times,
        WIDE=across,
        TALL=tall,
        num_warps=8,
    )
    return out


@triton.jit
def _settle(
    y, bias, residual, gamma, total, room, rows, area, total_step, room_step, scale,
    C: tl.constexpr, WIDE: tl.constexpr, TALL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * TALL + tl.arange(0, TALL)
    col = tl.arange(0, WIDE)
    live = (row < rows)[:, None] & (col < C)[None, :]
    at = (row.to(tl.int64) * C)[:, None] + col[None, :]
    x = tl.load(y + at, mask=live, other=0.0).to(tl.float32)
    if bias is not None:
        x += tl.load(bias + col, mask=col < C, other=0.0).to(tl.float32)[None, :]
    if residual is not None:
        x += tl.load(residual + at, mask=live, other=0.0).to(tl.float32)
    frame = (row // area).to(tl.int64)
    pixel = row % area
    if total is not None:
        there = (frame * total_step + pixel * C)[:, None] + col[None, :]
        tl.store(total + there, x.to(total.dtype.element_ty), mask=live)
    if room is not None:
        length = tl.sqrt(tl.sum(x * x, axis=1))
        x = x / tl.maximum(length, 1e-12)[:, None] * scale
        x *= tl.load(gamma + col, mask=col < C, other=0.0).to(tl.float32)[None, :]
        x = x / (1.0 + tl.exp(-x))
        there = (frame * room_step + pixel * C)[:, None] + col[None, :]
        tl.store(room + there, x.to(room.dtype.element_ty), mask=live)


@triton.jit
def _spread(
    phases, bias, entry, out, rows, h, w, skip,
    C: tl.constexpr, ENTRY: tl.constexpr, TIMES: tl.constexpr,
    WIDE: tl.constexpr, TALL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * TALL + tl.arange(0, TALL)
    col = tl.arange(0, WIDE)
    live = (row < rows)[:, None] & (col < C)[None, :]
    line = row // (2 * w)
    j = row - line * (2 * w)
    t = line // (2 * h)
    i = line - t * (2 * h)
    a = i % 2
    b = j % 2
    i = i // 2
    j = j // 2
    place = ((t * (h + 1) + i + a) * (w + 1) + j + b).to(tl.int64) * (4 * C) + (2 * a + b) * C
    x = tl.load(phases + place[:, None] + col[None, :], mask=live, other=0.0).to(tl.float32)
    x += tl.load(bias + col, mask=col < C, other=0.0).to(tl.float32)[None, :]
    if entry is not None:
        frame = t + skip
        part = ((frame % TIMES) * 2 + a) * 2 + b
        source = (((frame // TIMES) * h + i) * w + j).to(tl.int64) * ENTRY
        channel = (col[None, :] * (4 * TIMES) + part[:, None]) // (4 * TIMES * C // ENTRY)
        x += tl.load(entry + source[:, None] + channel, mask=live, other=0.0).to(tl.float32)
    at = (row.to(tl.int64) * C)[:, None] + col[None, :]
    tl.store(out + at, x.to(out.dtype.element_ty), mask=live)
