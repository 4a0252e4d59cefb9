"""Bends random weights so that steps differ and the picture has colour and shape."""

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn

TIME_GAIN = 2.0  # plain random weights barely react to the timestep
CONTRAST = 0.6  # standard deviation of the decoded picture in [-1, 1]


@torch.no_grad()
def give_time(transformer: WanTransformer3DModel) -> None:
    """Make the modulation follow the timestep, so that a step changes what the blocks do."""
    transformer.condition_embedder.time_proj.weight.mul_(TIME_GAIN)


@torch.no_grad()
def shape_picture(vae: AutoencoderKLWan) -> None:
    """Turn the decoder into a soft lens: drifting patches of colour instead of grain.

    Every convolution keeps its random mix of channels, but looks at its surroundings through a
    bell; the last one is scaled until unit latents fill the range of a picture.
    """
    for conv in vae.decoder.modules():
        if isinstance(conv, nn.Conv2d | nn.Conv3d):
            bell = _bell(conv.kernel_size)
            mix = torch.randn(conv.weight.shape[:2]) / conv.weight.shape[1] ** 0.5
            if conv.weight.shape[0] == 2 * conv.weight.shape[1] and len(bell) == 3:
                mix[mix.shape[0] // 2 :] = mix[
                    : mix.shape[0] // 2
                ]  # two frames from one: no flicker
            conv.weight.copy_(mix[(...,) + (None,) * bell.dim()] * bell)
    latents = torch.randn(1, vae.config["z_dim"], 3, 8, 8)
    last = vae.decoder.conv_out
    assert last.bias is not None
    last.bias.zero_()
    patch = (vae.config["patch_size"] or 1) ** 2
    last.weight.copy_(last.weight[::patch].repeat_interleave(patch, 0))  # no grid in the patch
    picture = vae.decode(latents, return_dict=False)[0]
    last.weight.mul_(CONTRAST / picture.std())


def _bell(size: tuple[int, ...]) -> Tensor:
    """A kernel that sums to one and falls off from its middle."""
    bell = torch.ones(())
    for width in size:
        line = torch.tensor([0.25, 0.5, 0.25]) if width == 3 else torch.full((width,), 1 / width)
        bell = bell[..., None] * line
    return bell
