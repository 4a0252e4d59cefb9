"""Low-rank adapters: merged into the experts' own weights for a job, and out again to the bit."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shared.vocabulary.lora_keys import Unusable, homes_of, layers_of
from shared.vocabulary.spec import FailureKind
from worker.engine.contract import LoraFiles
from worker.engine.faults import EngineFault
from worker.engine.kernels.precision import Linear8, lowered
from worker.engine.model.originals import Originals
from worker.engine.result import Expert

_METADATA: Final = "lora_adapter_metadata"  # where diffusers keeps what peft was told

Delta = Callable[[torch.device], Tensor]  # gives strength x change, fp32, in the weight's shape


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """One weight or bias of an expert, where it is."""

    tensor: Tensor
    scale: Tensor | None = None  # of a weight that was lowered to fp8
    original: Callable[[], Tensor] | None = None  # reads what was lowered

    @property
    def tensors(self) -> list[Tensor]:
        """All that is changed with it."""
        return [self.tensor] if self.scale is None else [self.tensor, self.scale]

    def write(self, total: Tensor) -> None:
        """Take a new value, fp32."""
        if self.scale is None:
            self.tensor.copy_(total)
            return
        for mine, new in zip(self.tensors, lowered(total), strict=True):
            mine.copy_(new)


Weights = dict[str, Spot]  # of one layer: `weight`, and `bias` if it has one


@dataclass(frozen=True, slots=True)
class _Worn:
    """What tells one merged file from another, without reading it."""

    name: str
    strength: float
    expert: Expert
    path: Path
    size: int
    changed_ns: int


class Adapters:
    """What the experts of one loaded model wear, and their own weights meanwhile."""

    def __init__(
        self,
        experts: dict[Expert, WanTransformer3DModel],
        device: torch.device,
        originals: Originals,
        *,
        pin: bool,
    ) -> None:
        """Take the experts bare, with all their modules in place.

        Args:
            experts: `high` and `low`, or `single`.
            device: where sums are computed; weights stay where they are.
            originals: what was lowered to fp8 is read from here before it is changed.
            pin: keep the experts' own weights in pinned memory.
        """
        self._homes: dict[Expert, dict[str, Weights]] = {
            name: _homes(name, model, originals) for name, model in experts.items()
        }
        self._device = device
        self._pin = pin and device.type == "cuda"
        self._own: dict[Spot, list[Tensor]] = {}  # the touched weights as they were, on the CPU
        self._worn: tuple[_Worn, ...] | None = ()  # None while weights are being written
        self.hashes: dict[str, dict[str, str]] = {}  # of the merged files: name: expert: sha256

    def fit(self, loras: tuple[LoraFiles, ...]) -> bool:
        """Tell whether exactly these are merged already, so that `wear` has nothing to do."""
        return self._wanted(loras) == self._worn

    @torch.no_grad()
    def wear(self, loras: tuple[LoraFiles, ...]) -> None:
        """Have exactly these adapters merged: W = dtype(W0 + sum strength x B A), summed in fp32.

        Raises:
            EngineFault: kind `bad_lora`, naming what does not fit. The experts are bare then.
        """
        wanted = self._wanted(loras)
        if wanted == self._worn:
            return
        self._worn, self.hashes = None, {}
        try:
            with ExitStack() as files:
                self._merge(self._plan(wanted, files))
            self.hashes = _hashes(wanted)
            self._worn = wanted
        except BaseException:
            self._merge({})
            self._worn, self.hashes = (), {}
            raise

    def _wanted(self, loras: tuple[LoraFiles, ...]) -> tuple[_Worn, ...]:
        return tuple(
            self._worn_by(expert, lora)
            for lora in loras
            for expert in self._homes
            if expert == "single" or lora.target in {expert, "both"}
        )

    @staticmethod
    def _worn_by(expert: Expert, lora: LoraFiles) -> _Worn:
        path = lora.low if expert == "low" else lora.high
        try:
            facts = path.stat() if path else None
        except OSError:
            facts = None
        if path is None or facts is None:
            _refuse(lora.name, f"has no file for the expert '{expert}' on this host")
        return _Worn(lora.name, lora.strength, expert, path, facts.st_size, facts.st_mtime_ns)

    def _plan(self, wanted: tuple[_Worn, ...], files: ExitStack) -> dict[Spot, list[Delta]]:
        """Find each key's home before any weight is touched."""
        deltas: dict[Spot, list[Delta]] = {}
        for one in wanted:
            for spot, delta in _File(one, files).deltas(self._homes[one.expert]):
                deltas.setdefault(spot, []).append(delta)
        return deltas

    def _merge(self, deltas: dict[Spot, list[Delta]]) -> None:
        """Write W0 plus its deltas into these weights, and W0 into those that wore something."""
        for spot in [spot for spot in self._own if spot not in deltas]:
            for tensor, own in zip(spot.tensors, self._own[spot], strict=True):
                tensor.copy_(own)
            del self._own[spot]
        for spot, changes in deltas.items():
            if spot not in self._own:
                self._own[spot] = [self._kept(tensor) for tensor in spot.tensors]
            own = spot.original() if spot.original else self._own[spot][0]
            total = own.to(self._device, torch.float32, copy=True)
            for change in changes:
                total += change(self._device)
            spot.write(total)

    def _kept(self, tensor: Tensor) -> Tensor:
        own = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=self._pin)
        return own.copy_(tensor)


class _File:
    """One adapter file of one expert: its keys by the layer that they change."""

    def __init__(self, one: _Worn, files: ExitStack) -> None:
        """Open it; tensors are read when they are merged."""
        self._name, self._strength = one.name, one.strength
        try:
            self._file: Any = files.enter_context(safe_open(one.path, framework="pt"))
        except (OSError, SafetensorError) as error:
            raise _fault(one.name, "has a file that is no safetensors") from error
        self._told = _told(self._file.metadata() or {})

    def deltas(self, homes: dict[str, Weights]) -> Iterator[tuple[Spot, Delta]]:
        """Give every weight that the file changes, with how.

        Raises:
            EngineFault: kind `bad_lora`, naming the first key that cannot be merged.
        """
        for place, keys in self._layers(homes).items():
            yield from self._layer(keys, homes[place])

    def _layers(self, homes: dict[str, Weights]) -> dict[str, dict[str, str]]:
        """Sort the keys: layer: kind: key."""
        keys: list[str] = self._file.keys()
        rooms = {
            place: {kind: tuple(spot.tensor.shape) for kind, spot in home.items()}
            for place, home in homes.items()
        }
        try:
            return layers_of({key: tuple(self._shape(key)) for key in keys}, rooms)
        except Unusable as unusable:
            raise _fault(self._name, str(unusable)) from unusable

    def _layer(self, keys: dict[str, str], home: Weights) -> Iterator[tuple[Spot, Delta]]:
        scale = self._strength
        if "down" in keys:
            scale *= self._alpha(keys) if "alpha" in keys else self._told_scale(keys)
            down, up = keys["down"], keys["up"]
            yield home["weight"], lambda device: scale * self._product(down, up, device)
        factors = {"up_bias": scale, "diff": self._strength, "diff_b": self._strength}
        for kind in keys.keys() & factors:
            spot = home["weight" if kind == "diff" else "bias"]
            yield spot, partial(self._plain, keys[kind], factors[kind])

    def _plain(self, key: str, factor: float, device: torch.device) -> Tensor:
        """Read a change that is stored as it is."""
        return factor * self._read(key, device)

    def _product(self, down: str, up: str, device: torch.device) -> Tensor:
        a, b = self._read(down, device), self._read(up, device)
        return (b.flatten(1) @ a.flatten(1)).unflatten(1, a.shape[1:])  # convolutions fit as well

    def _alpha(self, keys: dict[str, str]) -> float:
        return self._file.get_tensor(keys["alpha"]).item() / self._shape(keys["down"])[0]

    def _told_scale(self, keys: dict[str, str]) -> float:
        """Scale as the file's metadata says; 1 without."""
        alpha = self._told.get("lora_alpha")
        if alpha is None:
            return 1.0
        rank = self._shape(keys["down"])[0]
        return alpha / (math.sqrt(rank) if self._told.get("use_rslora") else rank)

    def _read(self, key: str, device: torch.device) -> Tensor:
        return self._file.get_tensor(key).to(device, torch.float32)

    def _shape(self, key: str) -> list[int]:
        return list(self._file.get_slice(key).get_shape())


def _homes(
    expert: Expert, transformer: WanTransformer3DModel, originals: Originals
) -> dict[str, Weights]:
    """Find every weight and bias, by the names of its layer."""
    spots = {_bare(name): Spot(parameter) for name, parameter in transformer.named_parameters()}
    for name, layer in transformer.named_modules():
        if isinstance(layer, Linear8):
            weight = f"{_bare(name)}.weight"
            spots[weight] = Spot(layer.weight, layer.scale, partial(originals.read, expert, weight))
            spots[f"{_bare(name)}.bias"] = Spot(layer.bias)
    return homes_of(spots)


def _bare(name: str) -> str:
    """Name a part as if its block stood in no wrapper."""
    return re.sub(r"^blocks\.0\.inner\.", "blocks.", name)


def _told(metadata: dict[str, str]) -> dict[str, Any]:
    """What peft was told when the adapter was trained, by plain names."""
    try:
        told: dict[str, Any] = json.loads(metadata.get(_METADATA, "{}"))
    except ValueError:
        return {}
    return {name.removeprefix("transformer."): value for name, value in told.items()}


def _hashes(worn: tuple[_Worn, ...]) -> dict[str, dict[str, str]]:
    hashes: dict[str, dict[str, str]] = {}
    for one in worn:
        with one.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        hashes.setdefault(one.name, {})[one.expert] = digest
    return hashes


def _refuse(name: str, trouble: str) -> NoReturn:
    raise _fault(name, trouble)


def _fault(name: str, trouble: str) -> EngineFault:
    message = f"LoRA '{name}' {trouble[:170]}. Nothing was rendered. Use one made for this model."
    return EngineFault(FailureKind.BAD_LORA, message)
