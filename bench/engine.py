"""Our engine beside plain diffusers on real-size random weights: `python -m bench.engine`.

Every row is a ratio to diffusers (eager, its own attention) or cache-dit, timed in turns with it.
"""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from bench import real_size
from bench.timing import interleaved, record, row
from shared.vocabulary.plan import Build, Precision
from worker.engine.cache import blocks
from worker.engine.kernels import forward
from worker.engine.kernels.attention import choose

_SHAPES: Final = MappingProxyType(
    {  # latents of the videos that the published models are made for
        "a14b-832x480x81": ("a14b", (16, 21, 60, 104)),
        "a14b-1280x720x81": ("a14b", (16, 21, 90, 160)),
        "5b-1280x704x121": ("5b", (48, 31, 44, 80)),
    }
)
_CLASSES: Final[tuple[Precision, ...]] = ("bf16", "fp8", "fp8_attn")


@click.command()
@click.option(
    "--shape", "shapes", multiple=True, type=click.Choice(list(_SHAPES)), help="Only these."
)
@click.option("--rounds", default=5, show_default=True, help="Timed rounds of each comparison.")
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/engine.json"))
@torch.no_grad()
def main(shapes: tuple[str, ...], rounds: int, to: Path) -> None:
    """Time computed forwards, and keep every sample."""
    rows: list[dict[str, Any]] = []
    for name in shapes or _SHAPES:
        rows.append(forwards(name, rounds))
        record(to, rows)


def forwards(name: str, rounds: int) -> dict[str, Any]:
    """One forward of one expert, all blocks computed."""
    family, shape = _SHAPES[name]
    plain = real_size.transformer(family)
    latents, text = _inputs(plain, shape)
    time = torch.full((1, _tokens(shape)) if family == "5b" else (1,), 700.0, device="cuda")
    ways: dict[str, Callable[[], Tensor]] = {
        "diffusers eager": _forward(plain, latents, time, text)
    }
    compiled = real_size.twin(plain)
    compiled.compile_repeated_blocks(fullgraph=True, dynamic=False)
    ways["diffusers compiled"] = _forward(compiled, latents, time, text)
    for precision in _CLASSES:
        ways[precision] = _forward(ours(plain, precision), latents, time, text)
    right = ways["diffusers eager"]()
    errors = {way: _error(work(), right) for way, work in ways.items()}
    samples = interleaved(ways, rounds=rounds, warm=0)  # the differences have warmed them up
    print(f"{name}: relative difference to eager: {errors}")
    return row(f"forward {name}", "diffusers eager", samples, differences=errors)


def ours(plain: WanTransformer3DModel, precision: Precision) -> WanTransformer3DModel:
    """Our forward over the weights of a plain transformer."""
    model = real_size.twin(plain)
    blocks.install(model)
    device, build = torch.device("cuda"), Build(precision=precision)
    forward.install(model, build, device, choose("auto", device, low=precision == "fp8_attn"))
    return model


def _forward(
    model: WanTransformer3DModel, latents: Tensor, timestep: Tensor, text: Tensor
) -> Callable[[], Tensor]:
    return lambda: model(
        hidden_states=latents, timestep=timestep, encoder_hidden_states=text, return_dict=False
    )[0]


def _inputs(model: WanTransformer3DModel, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(1)
    drawn = [
        torch.randn(1, *size, generator=generator, device="cuda", dtype=torch.bfloat16)
        for size in (shape, (512, model.config["text_dim"]))
    ]
    return drawn[0], drawn[1]


def _tokens(shape: tuple[int, ...]) -> int:
    return shape[1] * (shape[2] // 2) * (shape[3] // 2)


def _error(given: Tensor, right: Tensor) -> float:
    return ((given.float() - right.float()).norm() / right.float().norm()).item()


if __name__ == "__main__":
    main()
