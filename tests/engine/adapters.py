"""Adapters for the miniatures, in the layouts of keys that are found in the world."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.engine.contract import LoraFiles

RANK = 4
KOHYA = {"attn1.to_q": "self_attn_q", "attn2.to_out.0": "cross_attn_o", "ffn.net.2": "ffn_2"}
LAYERS = [f"blocks.{n}.{layer}" for n in range(6) for layer in KOHYA]
SHAPES = {"attn1.to_q": (48, 48), "attn2.to_out.0": (48, 48), "ffn.net.2": (48, 96)}
Pairs = dict[str, tuple[Tensor, Tensor]]


def pairs(seed: int = 0) -> Pairs:
    """A and B for some layers of every block of a miniature."""
    dice = torch.Generator().manual_seed(seed)
    made = {}
    for layer in LAYERS:
        out, inner = SHAPES[layer.split(".", 2)[2]]
        a = torch.randn(RANK, inner, generator=dice) / inner**0.5
        made[layer] = (a, torch.randn(out, RANK, generator=dice) / RANK**0.5)
    return made


def diffusers_keys(made: Pairs) -> dict[str, Tensor]:
    return {
        f"transformer.{layer}.lora_{ab}.weight": tensor
        for layer, pair in made.items()
        for ab, tensor in zip("AB", pair, strict=True)
    }


def original_keys(made: Pairs) -> dict[str, Tensor]:
    """As the Wan code names its layers, with `lora_down` and `lora_up`."""
    names = {"attn1.to_q": "self_attn.q", "attn2.to_out.0": "cross_attn.o", "ffn.net.2": "ffn.2"}
    keys = {}
    for layer, (a, b) in made.items():
        block, name = layer[: layer.index(".", 7)], layer[layer.index(".", 7) + 1 :]
        keys[f"diffusion_model.{block}.{names[name]}.lora_down.weight"] = a
        keys[f"diffusion_model.{block}.{names[name]}.lora_up.weight"] = b
    return keys


def kohya_keys(made: Pairs, alpha: float | None = None) -> dict[str, Tensor]:
    keys = {}
    for layer, (a, b) in made.items():
        number, name = re.fullmatch(r"blocks\.(\d)\.(.+)", layer).groups()
        stem = f"lora_unet_blocks_{number}_{KOHYA[name]}"
        keys |= {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b}
        if alpha is not None:
            keys[f"{stem}.alpha"] = torch.tensor(alpha)
    return keys


def peft_keys(made: Pairs) -> dict[str, Tensor]:
    return {
        f"base_model.model.{layer}.lora_{ab}.default.weight": tensor
        for layer, pair in made.items()
        for ab, tensor in zip("AB", pair, strict=True)
    }


LAYOUTS = {
    "diffusers": diffusers_keys,
    "original": original_keys,
    "kohya": kohya_keys,
    "peft": peft_keys,
}


def saved(path: Path, keys: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in keys.items()}, path, metadata)
    return path


def lora(high: Path | None, low: Path | None = None, **more) -> LoraFiles:
    given = {"name": "style", "strength": 1.0, "target": "both"} | more
    return LoraFiles(high=high, low=low or high, **given)
