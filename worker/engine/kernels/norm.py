"""Values that the row kernels take and give."""

from typing import NamedTuple

from torch import Tensor

Rows = tuple[Tensor, Tensor]  # fp8 values [1, L, K] and their scales [L, 1] fp32


class Norm(NamedTuple):
    """LayerNorm(x) * scale + shift, with other values for the first tokens where S is 2."""

    scale: Tensor  # [S, D] fp32, S is 1 or 2
    shift: Tensor  # [S, D] fp32
    first: int  # tokens that take row 0; the later ones take row 1. All of them when S is 1
    eps: float
