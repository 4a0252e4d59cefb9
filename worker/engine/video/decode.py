"""Latents to pictures, one latent frame at a time."""

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Final

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, unpatchify
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.parallel.strips import Strips
from worker.engine.video.conditioning import statistics
from worker.engine.video.fused import pictures
from worker.engine.video.vae import Decoder

_TILE: Final = 16  # rows of the latents that are decoded together
_OVERLAP: Final = 4  # rows of a tile that fade from the one above


@torch.no_grad()
def frames(
    vae: AutoencoderKLWan, latents: Tensor, strips: Strips | None = None, *, tiled: bool = False
) -> Generator[NDArray[np.uint8]]:
    """Decode a video; equal to the whole decode, as the VAE looks back in time only.

    Args:
        vae: its feature caches are cleared at the end, also when the caller stops early.
        latents: [1, C, F', h, w] fp32, normalised.
        strips: this rank's share of the pictures, for our own decoder; None for that of diffusers,
            to the bit.
        tiled: decode from top to bottom in tiles that fade into each other: less memory, not the
            same pictures. They all come at the end.

    Yields:
        RGB pictures [n, H, W, 3]: one for the first latent frame, then four for each. None of them
        (n = 0) while a tile is made, and always on ranks that only have a strip.
    """
    mean, inverse = statistics(vae, latents.to(vae.device, vae.dtype))
    hidden = vae.post_quant_conv(latents.to(mean) / inverse + mean)
    way = _as_diffusers if strips is None else partial(_by_strips, strips=strips)
    chunks = _by_tiles(partial(way, vae), hidden) if tiled else way(vae, hidden)
    try:
        yield from _arriving(chunks)
    finally:
        vae.clear_cache()


def _as_diffusers(vae: AutoencoderKLWan, hidden: Tensor) -> Generator[Tensor]:
    vae.clear_cache()
    for i in range(hidden.shape[2]):
        chunk = vae.decoder(
            hidden[:, :, i : i + 1],
            feat_cache=vae._feat_map,  # pyright: ignore[reportPrivateUsage]
            feat_idx=[0],  # the convolutions count themselves anew for every latent frame
            first_chunk=i == 0,
        )
        video = unpatchify(chunk, vae.config["patch_size"] or 1)
        yield pictures(video[0].permute(1, 2, 3, 0), 1)


def _by_strips(vae: AutoencoderKLWan, hidden: Tensor, strips: Strips) -> Generator[Tensor]:
    decoder = Decoder(vae, strips)
    for i in range(hidden.shape[2]):
        strip = decoder.frames(hidden[:, :, i : i + 1], first=i == 0)
        yield strips.collected(pictures(strip, vae.config["patch_size"] or 1))


def _by_tiles(way: Callable[[Tensor], Iterator[Tensor]], hidden: Tensor) -> Generator[Tensor]:
    rows = hidden.shape[3]
    video = torch.empty(0)
    for top in range(0, max(1, rows - _OVERLAP), _TILE - _OVERLAP):
        chunks: list[Tensor] = []
        for chunk in way(hidden[:, :, :, top : top + _TILE]):
            chunks.append(chunk.cpu())
            yield chunk[:0]
        tile = torch.cat(chunks)  # [F, H', W, 3]
        scale = tile.shape[1] // min(_TILE, rows - top)
        video = _faded(video, tile, _OVERLAP * scale) if top else tile
    yield video


def _faded(above: Tensor, below: Tensor, rows: int) -> Tensor:
    """One picture of two that have `rows` rows in common; bytes [n, h, W, 3]."""
    weight = torch.linspace(0, 1, rows + 2)[1:-1].view(1, rows, 1, 1)
    seam = torch.lerp(above[:, -rows:].float(), below[:, :rows].float(), weight)
    return torch.cat([above[:, :-rows], seam.round().to(torch.uint8), below[:, rows:]], dim=1)


def _arriving(chunks: Iterator[Tensor]) -> Generator[NDArray[np.uint8]]:
    """Bring pictures to the CPU; on CUDA each while the next ones are computed."""
    leaving: tuple[Tensor, torch.cuda.Event] | None = None
    for chunk in chunks:
        if chunk.is_cpu:
            yield chunk.numpy()
            continue
        landed = torch.empty(chunk.shape, dtype=chunk.dtype, pin_memory=True)
        landed.copy_(chunk, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        if leaving is not None:
            yield _landed(*leaving)
        leaving = (landed, event)
    if leaving is not None:
        yield _landed(*leaving)


def _landed(bytes_: Tensor, event: torch.cuda.Event) -> NDArray[np.uint8]:
    event.synchronize()
    return bytes_.numpy()
