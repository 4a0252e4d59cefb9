"""Where training stands: parts on disk, so that each call goes on from the one before."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class State:
    """A folder with the weights of each part, in fp32, and what was done to them."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Open a folder; it is made when missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self.device = device
        self._folder = folder
        self.progress: dict[str, dict[str, float]] = {
            notes.stem: json.loads(notes.read_text()) for notes in folder.glob("*.json")
        }

    def restore(self, name: str, part: nn.Module) -> nn.Module:
        """Bring a part to the device, with what it has learnt so far."""
        file = self._folder / f"{name}.safetensors"
        if file.exists():
            part.load_state_dict(load_file(file))
        return part.to(self.device)

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """What was kept under a name."""
        return load_file(self._folder / f"{name}.safetensors")

    def keep(self, name: str, weights: dict[str, torch.Tensor]) -> None:
        """Write a part's weights, in a file of their own: stages may run beside each other."""
        held = {key: _alone(value) for key, value in weights.items()}
        save_file(held, self._folder / f"{name}.safetensors")

    def noted(self, stage: str, what: str) -> float:
        """How much of something a stage has had so far."""
        return self.progress.get(stage, {}).get(what, 0)

    def note(self, stage: str, **amounts: float) -> None:
        """Add to what a stage has had, and write it down."""
        held = self.progress.setdefault(stage, {})
        for what, amount in amounts.items():
            held[what] = held.get(what, 0) + amount
        (self._folder / f"{stage}.json").write_text(json.dumps(held, indent=1) + "\n")


def _alone(weights: torch.Tensor) -> torch.Tensor:
    """A copy in fp32 that shares no memory with another, as files want it."""
    return weights.detach().float().cpu().clone(memory_format=torch.contiguous_format)


class Clock:
    """The time of one stage: how much of it is over, 0 to 1, and the learning rate for it."""

    def __init__(self, minutes: float, steps: int | None = None) -> None:
        """Begin now.

        Args:
            minutes: what the stage may take.
            steps: end after so many as well.
        """
        self._began = time.monotonic()
        self._minutes = minutes
        self._steps = steps
        self.step = 0

    @property
    def minutes(self) -> float:
        """How long ago it began."""
        return (time.monotonic() - self._began) / 60

    @property
    def over(self) -> float:
        """The share of the stage that is over; it ends at 1."""
        spent = self.minutes / self._minutes
        return spent if self._steps is None else max(spent, self.step / self._steps)

    def tick(self, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
        """Set the rates of the next step: up at first, down in the last third; False at the end.

        Each group of weights has its highest rate as `peak`.
        """
        over = self.over
        share = min(1, (self.step + 1) / 100) * min(1, 0.02 + 3 * (1 - over))
        for group in (group for one in optimizers for group in one.param_groups):
            group["lr"] = group["peak"] * share
        self.step += 1
        return over < 1
