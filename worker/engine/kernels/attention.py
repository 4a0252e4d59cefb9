"""Attention over [1, L, heads, d]: the backends, which one works here, and their proof."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.vocabulary.plan import Attention
from shared.vocabulary.spec import FailureKind
from worker.engine.faults import EngineFault
from worker.engine.kernels.rows import lower_heads

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # [1, L, H, d] x [1, M, H, d] x 2: [1, L, H, d]
AttendLse = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # and lse [1, H, L] fp32

_TOLERANCE: Final = 0.02  # relative, of bf16 attention against fp32; fp8 is allowed ten times that
_FASTEST: Final = ("fa3", "cudnn", "native")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One way to compute attention."""

    name: str
    attend: Attend
    with_lse: AttendLse | None  # None: it cannot be used in a ring


def choose(wanted: Attention, device: torch.device, *, low: bool, width: int = 128) -> Kernel:
    """Take the fastest backend that is here and right, or the one asked for.

    Args:
        wanted: a backend's name, or `auto`.
        device: where it will run; it is tried there against fp32 arithmetic.
        low: attend in fp8, which only FA3 does.
        width: of one head.

    Raises:
        EngineFault: kind `bad_input`, when the backend asked for is not here or is wrong.
    """
    names = ("native",) if device.type == "cpu" and wanted == "auto" else _FASTEST
    troubles: list[str] = []
    for name in names if wanted == "auto" else (wanted,):
        trouble = _trouble(name, device, width, low=low)
        if trouble is None:
            return _kernel(name, low=low)
        troubles.append(f"{name} {trouble}")
        if low:
            break
    raise EngineFault(
        FailureKind.BAD_INPUT,
        f"Attention '{wanted}' cannot be used{' in fp8' if low else ''}: {'; '.join(troubles)}. "
        "Choose another WANFARM_ATTENTION, or auto.",
    )


def _kernel(name: str, *, low: bool) -> Kernel:
    if name == "fa3":
        return Kernel("fa3_fp8", _fa3_low, None) if low else Kernel("fa3", _fa3, _fa3_lse)
    if name == "cudnn":
        return Kernel("cudnn", lambda q, k, v: _cudnn_lse(q, k, v)[0], _cudnn_lse)
    if name == "flash":
        return Kernel("flash", lambda q, k, v: _flash_lse(q, k, v)[0], _flash_lse)
    return Kernel("native", _native, None)


def _trouble(name: str, device: torch.device, width: int, *, low: bool) -> str | None:
    """Try a backend on a small random case; None when it is right."""
    if low and name != "fa3":
        return "has no fp8"
    generator = torch.Generator("cpu").manual_seed(0)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    q, k, v = (
        torch.randn(1, 256, 2, width, generator=generator).to(device, dtype) for _ in range(3)
    )
    try:
        given = _kernel(name, low=low).attend(q, k, v).float()
    except (ImportError, RuntimeError, NotImplementedError, AttributeError) as error:
        return f"does not run here on heads of {width} ({type(error).__name__})"
    right = _native(q.float(), k.float(), v.float())
    error = ((given - right).norm() / right.norm()).item()
    allowed = _TOLERANCE * (10 if low else 1)
    return None if error < allowed else f"is wrong here (relative error {error:.3f})"


def _native(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _cudnn_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with_lse, causal = True, False
    attend: Any = torch.ops.aten._scaled_dot_product_cudnn_attention
    given = attend(q, k, v, None, with_lse, 0.0, causal)
    return given[0].transpose(1, 2), given[1].reshape(q.shape[:3])


def _flash_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.is_cuda:
        given = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    else:
        given = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    return given[0].transpose(1, 2), given[1]


def _fa3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _fa3_forward(q, k, v)[0]


def _fa3_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return _fa3_forward(q, k, v)


def _fa3_low(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    (q, a), (k, b), (v, c) = (lower_heads(x) for x in (q, k, v))
    return _fa3_forward(q, k, v, a, b, c)[0]


def _fa3_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *scales: Tensor,
) -> tuple[Tensor, Tensor]:
    """FlashAttention-3's forward from the fa3-fwd wheel: output bf16 and log-sum-exp.

    The operator takes everything by position: after q, k, v come 17 tensors for caches, variable
    lengths and paging that we have none of, then the scales, then softmax scale, causal, window,
    chunk, softcap, interleaving, scheduler, splits, packing and reserved multiprocessors.
    """
    importlib.import_module("fa3_fwd._C")  # registers the operator
    given = torch.ops.fa3_fwd.fwd(
        q, k, v, *[None] * 17, *(scales or [None] * 3),
        None, False, -1, -1, 0, 0.0, True, None, 1, None, 0,  # noqa: FBT003
    )  # fmt: skip
    return given[0], given[1]
