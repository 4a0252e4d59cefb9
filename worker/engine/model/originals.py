"""An expert's weights as its checkpoint has them, read one by one when they are asked for."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor

from worker.engine.result import Expert

_FOLDERS: Final[dict[Expert, str]] = {
    "high": "transformer",
    "low": "transformer_2",
    "single": "transformer",
}
_STEM: Final = "diffusion_pytorch_model.safetensors"


class Originals:
    """The files of a checkpoint's experts."""

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        """Take the checkpoint's folder, and the dtype that its experts were loaded in."""
        self._directory = directory
        self._dtype = dtype

    def read(self, expert: Expert, name: str) -> Tensor:
        """Read one weight, on the CPU.

        Args:
            expert: whose.
            name: as diffusers has it.
        """
        folder = self._directory / _FOLDERS[expert]
        index = folder / f"{_STEM}.index.json"
        file = json.loads(index.read_text())["weight_map"][name] if index.is_file() else _STEM
        with safe_open(folder / file, framework="pt") as opened:
            shard: Any = opened
            return shard.get_tensor(name).to(self._dtype)
