"""What stands between two convolutions of the VAE, in one pass over the frames."""

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.engine.video.terms import Shortcut, Sum


def settle(terms: Sum, total: Tensor | None, gamma: Tensor | None, room: Tensor | None) -> None:
    """Add up, and normalise and activate the sum.

    Args:
        terms: what to add.
        total: takes the sum, where it is needed again; [n, H, W, C], each frame contiguous.
        gamma: the RMS norm's scale, [C]; None when nothing is to be normalised.
        room: takes silu(norm(sum)), shaped as `total`.
    """
    if terms.y.is_cuda:
        from worker.engine.video import fused_cuda  # needs Triton, which the CPU has not

        fused_cuda.settle(terms, total, gamma, room)
        return
    x = terms.y
    for term in (terms.bias, terms.residual):
        x = x if term is None else x + term
    if total is not None:
        total.copy_(x)
    if room is not None:
        assert gamma is not None
        room.copy_(F.silu(normalised(x, gamma)))


def normalised(x: Tensor, gamma: Tensor) -> Tensor:
    """RMS norm over the channels of [..., C], in fp32."""
    return F.normalize(x.float(), dim=-1).to(x.dtype) * x.shape[-1] ** 0.5 * gamma.flatten()


def spread(phases: Tensor, bias: Tensor, shortcut: Shortcut | None) -> Tensor:
    """Bring the four phases of an enlarging convolution together.

    Args:
        phases: [n, H + 1, W + 1, 4 C]: the pixels of even and odd rows and columns.
        bias: [C].
        shortcut: added, its pixels repeated and its channels shared out as diffusers' `DupUp3D`.

    Returns:
        [n, 2 H, 2 W, C].
    """
    if phases.is_cuda:
        from worker.engine.video import fused_cuda

        return fused_cuda.spread(phases, bias, shortcut)
    n, high, wide, c4 = phases.shape
    h, w, c = high - 1, wide - 1, c4 // 4
    out = phases.new_empty(n, h, 2, w, 2, c)
    for k in range(4):
        a, b = divmod(k, 2)
        out[:, :, a, :, b] = phases[:, a : a + h, b : b + w, k * c : (k + 1) * c]
    out = out.view(n, 2 * h, 2 * w, c) + bias
    return out if shortcut is None else out + _repeated(shortcut, c)


def _repeated(shortcut: Shortcut, c: int) -> Tensor:
    """[times * n - skip, 2 H, 2 W, c] of [n, H, W, C]."""
    n, h, w, channels = shortcut.x.shape
    times = shortcut.times
    x = shortcut.x.repeat_interleave(c * times * 4 // channels, dim=-1)
    x = x.view(n, h, w, c, times, 2, 2).permute(0, 4, 1, 5, 2, 6, 3)
    return x.reshape(n * times, 2 * h, 2 * w, c)[shortcut.skip :]


def pictures(x: Tensor, patch: int) -> Tensor:
    """Frames [n, H, W, 3 * patch**2] in about -1..1 as bytes [n, H * patch, W * patch, 3]."""
    n, h, w, _ = x.shape
    x = x.float().view(n, h, w, 3, patch, patch).permute(0, 1, 5, 2, 4, 3)
    unit = (x.clamp(-1, 1) * 0.5 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).reshape(n, h * patch, w * patch, 3)
