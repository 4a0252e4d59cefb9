"""Our engine beside plain diffusers on real-size random weights: `python -m bench.engine`.

Every row is a ratio to diffusers (eager, its own attention) or cache-dit, timed in turns with it.
"""

import gc
from collections.abc import Callable
from pathlib import Path
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

_SHAPES: Final = tuple(name for name in real_size.SHAPES if name != "tiny")
_CLASSES: Final[tuple[Precision, ...]] = ("bf16", "fp8", "fp8_attn")


@click.command()
@click.option("--shape", "shapes", multiple=True, type=click.Choice(_SHAPES), help="Only these.")
@click.option("--rounds", default=5, show_default=True, help="Timed rounds of each comparison.")
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/engine.json"))
@torch.no_grad()
def main(shapes: tuple[str, ...], rounds: int, to: Path) -> None:
    """Time computed forwards, and keep every sample."""
    rows: list[dict[str, Any]] = []
    for name in shapes or _SHAPES:
        rows.append(forwards(name, rounds))
        record(to, rows)
        torch.compiler.reset()
        gc.collect()  # a transformer and its new forward know each other
        torch.cuda.empty_cache()


def forwards(name: str, rounds: int) -> dict[str, Any]:
    """One forward of one expert, all blocks computed."""
    family, shape = real_size.SHAPES[name]
    plain, given = real_size.transformer(family), real_size.inputs(family, shape)
    ways: dict[str, Callable[[], Tensor]] = {"diffusers eager": _forward(plain, given)}
    compiled = real_size.twin(plain)
    compiled.compile_repeated_blocks(fullgraph=True, dynamic=False)
    ways["diffusers compiled"] = _forward(compiled, given)
    for precision in _CLASSES:
        ways[precision] = _forward(ours(plain, precision), given)
    right = ways["diffusers eager"]()
    errors = {way: _error(work(), right) for way, work in ways.items()}
    samples = interleaved(ways, rounds=rounds, warm=0)  # the differences have warmed them up
    print(f"{name}: relative difference to eager: {errors}")
    return row(f"forward {name}", "diffusers eager", samples, differences=errors)


def ours(plain: WanTransformer3DModel, precision: Precision) -> WanTransformer3DModel:
    """Our forward over the weights of a plain transformer."""
    model = real_size.twin(plain)
    blocks.install(model)
    forward.install([model], Build(precision=precision), torch.device("cuda"))
    return model


def _forward(model: WanTransformer3DModel, given: dict[str, Tensor]) -> Callable[[], Tensor]:
    return lambda: model(**given, return_dict=False)[0]


def _error(given: Tensor, right: Tensor) -> float:
    return ((given.float() - right.float()).norm() / right.float().norm()).item()


if __name__ == "__main__":
    main()
