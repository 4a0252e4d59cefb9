"""Adapters for the tiny models as bytes of safetensors: zeros, with names and shapes that count."""

import numpy as np
from safetensors.numpy import save

WIDTH = 48  # of the tiny models


def tensors(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A low-rank pair for one layer, and whatever else is named, with `__` for `.`."""
    pair = {"blocks.0.attn1.to_q.lora_A.weight": (4, WIDTH)}
    pair |= {"blocks.0.attn1.to_q.lora_B.weight": (WIDTH, 4)}
    more = {name.replace("__", "."): shape for name, shape in shapes.items()}
    return {name: np.zeros(shape, np.float32) for name, shape in (pair | more).items()}


def adapter(**shapes: tuple[int, ...]) -> bytes:
    return save(tensors(**shapes))
