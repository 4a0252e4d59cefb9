"""A Wan VAE over a whole clip at once, for training: the same as diffusers' chunk by chunk.

diffusers encodes and decodes frame by frame with a memory in each causal convolution. Without that
memory its convolutions already see the whole past; only the resampling in time is left out. Here it
is put back: the first frame stays alone, and all later ones are halved or doubled together.
"""

from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample
from torch import Tensor


def prepare(vae: AutoencoderKLWan) -> None:
    """Let the parts of this VAE work on whole clips; its own `encode` and `decode` then fail."""
    for module in vae.modules():
        if isinstance(module, WanResample) and module.mode.endswith("3d"):
            resampled: Any = module
            way = _halved if module.mode == "downsample3d" else _doubled
            resampled.forward = partial(way, module)


def encode(vae: AutoencoderKLWan, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and log-variance, [B, z, F', h, w] each, of clips [B, 3, F, H, W] in -1 to 1."""
    coder: Any = vae
    mean, spread = coder.quant_conv(coder.encoder(clip)).chunk(2, dim=1)
    return mean, spread.clamp(-30, 20)


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Give clips [B, 3, F, H, W], not clamped, of latents [B, z, F', h, w]."""
    coder: Any = vae
    return coder.decoder(coder.post_quant_conv(latents), first_chunk=True)


def _halved(part: Any, x: Tensor, *_: object, **__: object) -> Tensor:  # noqa: ANN401
    x = _by_frame(part, x)
    if x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], part.time_conv(x)], dim=2)


def _doubled(part: Any, x: Tensor, *_: object, **__: object) -> Tensor:  # noqa: ANN401
    first, later = x[:, :, :1], x[:, :, 1:]
    if later.shape[2]:
        pairs = part.time_conv(later).unflatten(1, (2, -1))  # [B, 2, C, F - 1, h, w]
        later = pairs.movedim(1, 3).flatten(2, 3)
    return _by_frame(part, torch.cat([first, later], dim=2))


def _by_frame(part: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    """Resample each frame alone."""
    frames = part.resample(x.transpose(1, 2).flatten(0, 1))
    return frames.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
