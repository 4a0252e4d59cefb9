"""Latents to pictures, one latent frame at a time."""

from collections.abc import Generator

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, unpatchify
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.conditioning import statistics


@torch.no_grad()
def frames(vae: AutoencoderKLWan, latents: Tensor) -> Generator[NDArray[np.uint8]]:
    """Decode a video; equal to the whole decode, as the VAE looks back in time only.

    Args:
        vae: its feature caches are cleared at the end, also when the caller stops early.
        latents: [1, C, F', h, w] fp32, normalised.

    Yields:
        RGB pictures [n, H, W, 3]: one for the first latent frame, then four for each.
    """
    latents = latents.to(vae.device, vae.dtype)
    mean, inverse = statistics(vae, latents)
    hidden = vae.post_quant_conv(latents / inverse + mean)
    vae.clear_cache()
    try:
        for i in range(hidden.shape[2]):
            chunk = vae.decoder(
                hidden[:, :, i : i + 1],
                feat_cache=vae._feat_map,  # pyright: ignore[reportPrivateUsage]
                feat_idx=[0],  # the convolutions count themselves anew for every latent frame
                first_chunk=i == 0,
            )
            yield _pictures(unpatchify(chunk, vae.config["patch_size"] or 1))
    finally:
        vae.clear_cache()


def _pictures(video: Tensor) -> NDArray[np.uint8]:
    """[1, 3, n, H, W] in about -1..1 as bytes [n, H, W, 3]."""
    unit = (video.float().clamp(-1, 1) * 0.5 + 0.5).clamp(0, 1)
    return (unit[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8).cpu().numpy()
