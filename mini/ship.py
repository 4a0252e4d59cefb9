"""Writes what was taught as checkpoints in diffusers' layout: `python -m mini.ship`.

The style is a pair of LoRA adapters, as a farm's folder of adapters holds them.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import click
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from safetensors.torch import save_file

from mini import parts
from mini.build import TRAINED
from mini.state import State

_SHARED: Final = ("vae", "text_encoder", "tokenizer")


@click.command()
@click.option("--state", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--to", type=click.Path(path_type=Path), default=TRAINED)
def main(folder: Path, to: Path) -> None:
    """Write both checkpoints and the style."""
    state = State(folder, torch.device("cpu"))
    write(state, to)
    write_style(state, to / "loras" / "outlined")


def write(state: State, to: Path) -> None:
    """Write `wan-mini-t2v` and `wan-mini-ti2v`; the second names the first one's shared parts."""
    known = state.tensors("latents")
    tokenizer = parts.tokenizer()
    vae: Any = state.restore("vae", parts.vae())
    vae.register_to_config(latents_mean=known["mean"].tolist(), latents_std=known["std"].tolist())
    encoder = state.restore("text", parts.text_encoder(len(tokenizer)))
    for name, experts in (("t2v", ("t2v-high", "t2v-low")), ("ti2v", ("ti2v",))):
        first, second = (*(_expert(state, one) for one in experts), None)[:2]
        kind: Any = WanPipeline
        pipe = kind(
            tokenizer=tokenizer,
            text_encoder=encoder.eval(),  # in fp32, which diffusers makes of all parts but this
            vae=vae.to(torch.bfloat16).eval(),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction",
                use_flow_sigmas=True,
                flow_shift=parts.SHIFTS[name],
            ),
            transformer=first,
            transformer_2=second,
            boundary_ratio=parts.BOUNDARY if second else None,
            expand_timesteps=name == "ti2v",
        )
        goal = to / f"wan-mini-{name}"
        shutil.rmtree(goal, ignore_errors=True)
        pipe.save_pretrained(goal)
    for part in _SHARED:
        twin = to / "wan-mini-ti2v" / part
        shutil.rmtree(twin)
        twin.symlink_to(Path("..") / "wan-mini-t2v" / part)


def write_style(state: State, to: Path) -> None:
    """Write the pair of adapters, in bf16 under diffusers' names."""
    to.mkdir(parents=True, exist_ok=True)
    for expert in ("high", "low"):
        learnt = state.tensors(f"style-{expert}")
        named = {f"transformer.{key}": value.bfloat16() for key, value in learnt.items()}
        save_file(named, to / f"{expert}.safetensors", metadata={"format": "pt"})
    card = {"family": "wan-mini-t2v", "title": "Outlines", "source": "comes with wanfarm"}
    (to / "lora.json").write_text(json.dumps(card, indent=1) + "\n")


def _expert(state: State, name: str) -> Any:  # noqa: ANN401
    """An expert in bf16, but for the modules that loading keeps in fp32."""
    model: Any = state.restore(name, parts.transformer())
    for path, weights in model.named_parameters():
        if not set(path.split(".")) & set(model._keep_in_fp32_modules):
            weights.data = weights.data.to(torch.bfloat16)
    return model.eval()


if __name__ == "__main__":
    main()
