"""What an image says to the transformer: resized, encoded, normalised."""

from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from PIL import Image, ImageOps
from torch import Tensor

from shared.vocabulary.spec import FailureKind, GenerationSpec, ImageFit
from worker.engine.faults import EngineFault


def condition(vae: AutoencoderKLWan, image: Path, spec: GenerationSpec) -> Tensor:
    """Encode the first frame of a video.

    Returns:
        fp32 on the VAE's device. One timestep per token (TI2V): the image's latents
        [1, C, 1, h, w]. Else (I2V): 4 mask channels before the latents of the image and the
        empty frames after it, [1, 4 + C, F', h, w].

    Raises:
        EngineFault: kind `bad_input`, when the image cannot be read.
    """
    pixels = _pixels(fitted(_opened(image), spec.width, spec.height, spec.image_fit))
    frames = pixels.to(vae.device).unsqueeze(2)  # [1, 3, 1, H, W]
    if spec.card.expand_timesteps:
        return _encoded(vae, frames)
    empty = frames.new_zeros(1, 3, spec.frames - 1, spec.height, spec.width)
    latents = _encoded(vae, torch.cat([frames, empty], dim=2))  # [1, C, F', h, w]
    mask = torch.zeros_like(latents[:, :4])
    mask[:, :, 0] = 1  # the first latent frame is given, the others are to be made
    return torch.cat([mask, latents], dim=1)


def fitted(image: Image.Image, width: int, height: int, fit: ImageFit) -> Image.Image:
    """Bring an image to the video's size: cut the overhang, add black bars, or stretch."""
    size = (width, height)
    if fit == "cover":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if fit == "contain":
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color="black")
    return image.resize(size, Image.Resampling.LANCZOS)


def statistics(vae: AutoencoderKLWan, like: Tensor) -> tuple[Tensor, Tensor]:
    """The latents' mean and inverse deviation, [1, C, 1, 1, 1] each, typed and placed as `like`."""
    mean = torch.tensor(vae.config["latents_mean"]).view(1, -1, 1, 1, 1).to(like)
    deviation = torch.tensor(vae.config["latents_std"]).view(1, -1, 1, 1, 1).to(like)
    return mean, 1.0 / deviation


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise EngineFault(
            FailureKind.BAD_INPUT, "The input image cannot be read. Send it again as PNG or JPEG."
        ) from error


def _pixels(image: Image.Image) -> Tensor:
    """An RGB image as [1, 3, H, W] in -1..1."""
    values = np.asarray(image).astype(np.float32) / 255.0
    return 2.0 * torch.from_numpy(values.transpose(2, 0, 1)).unsqueeze(0).contiguous() - 1.0


def _encoded(vae: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """Frames [1, 3, F, H, W] as normalised fp32 latents [1, C, F', h, w]; the posterior's mode."""
    latents = vae.encode(frames.to(vae.dtype), return_dict=False)[0].mode().float()
    mean, inverse = statistics(vae, latents)
    return (latents - mean) * inverse
