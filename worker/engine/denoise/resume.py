"""Latents that outlive their process: saved between two steps, and gone on from."""

import hashlib
import importlib.metadata
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from worker.engine.contract import Order, StepDone
from worker.engine.result import Pattern, extend

_NAME: Final = "latents.safetensors"
_FIELDS: Final = (  # what a scheduler carries from step to step; Euler has the last two only
    "model_outputs",
    "timestep_list",
    "last_sample",
    "lower_order_nums",
    "this_order",
    "_step_index",
    "_begin_index",
)
_OTHERS: Final = {
    "spec": "another request",
    "weights": "other weights",
    "loras": "other LoRA files",
    "timesteps": "another schedule",
    "precision": "another precision class",
    "software": "other software versions",
}
_SOFTWARE: Final = ("torch", "diffusers")


def stamp(order: Order, timesteps: tuple[float, ...], **made: str) -> dict[str, str]:
    """Describe what latents belong to: any difference makes them useless.

    Args:
        order: whose latents.
        timesteps: of all its steps.
        made: `weights`, `loras` and `precision` of what computes them.
    """
    spec = order.spec.model_dump_json().encode()
    software = {name: importlib.metadata.version(name) for name in _SOFTWARE}
    return made | {
        "spec": hashlib.sha256(spec).hexdigest(),
        "timesteps": json.dumps(timesteps),
        "software": json.dumps(software),
    }


class Saves:
    """One job's saved latents: where it goes on from, and where it leaves them."""

    def __init__(
        self, order: Order, mark: dict[str, str], saved: Callable[[int, Path], None], *, leads: bool
    ) -> None:
        """Prepare; only the leading rank writes.

        Args:
            order: says where to and how often.
            mark: the `stamp` of the job.
            saved: told of each save that stands, from another thread.
            leads: whether this is rank 0.
        """
        self._folder = order.save_to if leads else None
        self._every_s = order.save_every_s
        self._mark = mark
        self._told = saved
        self._spent_s = 0.0
        self._newest: tuple[int, Tensor, Any] | None = None
        self._pattern: Pattern = {}  # of all steps up to the newest
        self._standing = 0
        self._writer = threading.Thread()
        self.resumed_at: int | None = None
        self.warnings: list[str] = []

    def read(self, path: Path) -> list[Tensor]:
        """Read what an earlier attempt left: the file's bytes, or nothing and a warning."""
        content = b""
        try:
            content = path.read_bytes()
            trouble = self._difference(_parts(content)[1])
        except (OSError, ValueError, KeyError, SafetensorError):
            trouble = "damaged"
        if trouble:
            self.warnings.append(
                f"latents_unused: The saved latents are {trouble}. The attempt began at step 1."
            )
            return []
        return [torch.frombuffer(bytearray(content), dtype=torch.uint8)]

    def restore(self, content: Tensor, scheduler: Any) -> tuple[int, Tensor]:  # noqa: ANN401
        """Bring a scheduler to where the latents were saved.

        Args:
            content: what `read` gave on rank 0, [bytes] uint8.
            scheduler: of the same timesteps, on the device of this rank.

        Returns:
            The steps done, and the latents after them, [1, C, F', h, w].
        """
        tensors, header = _parts(content.cpu().numpy().tobytes())
        device = content.device
        state = json.loads(header["numbers"]) | {k: v.to(device) for k, v in tensors.items()}
        for name in _FIELDS:
            current = vars(scheduler).get(name)
            if isinstance(current, list):
                setattr(scheduler, name, [state.get(f"{name}.{i}") for i in range(len(current))])
            elif name in state:
                setattr(scheduler, name, state[name])
        self._pattern = json.loads(header["pattern"])
        self.resumed_at = self._standing = int(header["step"])
        return self.resumed_at, state["latents"]

    def spent(self, seconds: float) -> None:
        """Count the device's time."""
        self._spent_s += seconds

    def reached(self, done: StepDone, latents: Tensor, scheduler: Any, *, turn: bool) -> None:  # noqa: ANN401
        """Take note of a step, and save it when it is time, or when the experts take turns."""
        self._newest = (done.step, latents, scheduler)
        extend(self._pattern, done.expert, done.branches)
        if (turn or self._spent_s >= self._every_s) and not self._writer.is_alive():
            self._save()

    def keep(self) -> None:
        """Save the newest step if it is not saved yet, and wait until it is on disk."""
        self._wait()
        if self._newest and self._newest[0] > self._standing:
            self._save()
            self._wait()

    def close(self) -> None:
        """Wait for what is being written, and let go of the latents."""
        self._wait()
        self._newest = None

    def _wait(self) -> None:
        if self._writer.is_alive():
            self._writer.join()

    def _save(self) -> None:
        if self._folder is None or self._newest is None:
            return
        self._spent_s = 0.0
        step, latents, scheduler = self._newest
        tensors, numbers = _state(latents, scheduler)
        on_host = {name: _copied(tensor) for name, tensor in tensors.items()}
        arrived = None
        if latents.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        header = {"pattern": json.dumps(self._pattern), "numbers": json.dumps(numbers)}
        work = (self._folder, step, on_host, header, arrived)
        self._writer = threading.Thread(target=self._write, args=work)
        self._writer.start()

    def _write(
        self,
        folder: Path,
        step: int,
        tensors: dict[str, Tensor],
        header: dict[str, str],
        arrived: torch.cuda.Event | None,
    ) -> None:
        if arrived is not None:
            arrived.synchronize()
        if not torch.isfinite(tensors["latents"]).all():
            return  # the loop will say so
        header |= {"step": str(step), "sha256": _digest(tensors)}
        path, part = folder / _NAME, folder / f".{_NAME}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as out:
                out.write(save(tensors, self._mark | header))
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
            _sync(folder)
        except OSError as error:
            self.warnings.append(
                f"latents_unsaved: Step {step} could not be saved ({error.strerror}). "
                "A lost attempt would begin earlier."
            )
            return
        self._standing = step
        self._told(step, path)

    def _difference(self, header: dict[str, str]) -> str:
        names = [name for name in _OTHERS if header.get(name) != self._mark[name]]
        return f"of {_OTHERS[names[0]]}" if names else ""


def _state(latents: Tensor, scheduler: Any) -> tuple[dict[str, Tensor], dict[str, int]]:  # noqa: ANN401
    """Everything that the next step looks back at."""
    values: dict[str, Any] = {"latents": latents}
    for name in _FIELDS:
        value = vars(scheduler).get(name)
        if isinstance(value, list):
            values |= {f"{name}.{i}": one for i, one in enumerate(value)}
        else:
            values[name] = value
    tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
    return tensors, {k: v for k, v in values.items() if isinstance(v, int)}


def _copied(tensor: Tensor) -> Tensor:
    """Copy to the host's memory; from a device without waiting for it."""
    place = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return place.copy_(tensor, non_blocking=True)


def _parts(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and what its header says.

    Raises:
        ValueError: when the content is not what was written.
        SafetensorError: likewise.
    """
    size = int.from_bytes(content[:8], "little")
    header: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    tensors = load(content)
    if _digest(tensors) != header["sha256"]:
        raise ValueError("the checksum differs")
    return tensors, header


def _digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(save(tensors)).hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
