"""What the passes between two convolutions of the VAE are told to add up."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sum:
    """Frames that are still to be added up; each part [n, H, W, C]."""

    y: Tensor
    bias: Tensor | None = None  # [C], of the convolution that made `y`
    residual: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Shortcut:
    """The entry of a VAE 2.2 block, to be repeated onto its exit."""

    x: Tensor  # [n, H, W, C]
    times: int  # frames made of each one
    skip: int  # frames left out at the start
