"""Bends random weights so that steps differ and the picture has contrast."""

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

TIME_GAIN = 4.0  # plain random weights barely react to the timestep
CONTRAST = 0.55  # standard deviation of the decoded picture in [-1, 1]


@torch.no_grad()
def give_time(transformer: WanTransformer3DModel) -> None:
    """Make the modulation follow the timestep."""
    transformer.condition_embedder.time_proj.weight.mul_(TIME_GAIN)


@torch.no_grad()
def give_character(transformer: WanTransformer3DModel) -> None:
    """Scale the prediction to the size of noise, so that sampling moves the latents."""


@torch.no_grad()
def shape_picture(vae: AutoencoderKLWan) -> None:
    """Scale the last convolution so that unit latents decode to a picture with contrast."""
    latents = torch.randn(1, vae.config["z_dim"], 2, 8, 8)
    spread = vae.decode(latents, return_dict=False)[0].std()
    vae.decoder.conv_out.weight.mul_(CONTRAST / spread)
    assert vae.decoder.conv_out.bias is not None
    vae.decoder.conv_out.bias.zero_()
