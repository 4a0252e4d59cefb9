"""Two ranks beside one: `python -m bench.pair`.

Both ranks do each way's work at the same time, after they have met; a sample is the slower one's.
Alone, each of them computes everything, so that two GPUs are as warm as they are together.
"""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import torch
from torch import Tensor

from bench import real_size
from bench.timing import record, row
from shared.vocabulary.plan import Attention, Build, ParallelPlan
from worker.engine.cache import blocks
from worker.engine.contract import Seat
from worker.engine.kernels import forward
from worker.engine.parallel.ranks import Mesh, Ranks
from worker.engine.result import Branch
from worker.engine.video import decode

_ALONE: Final = "1 rank"
_PLANS: Final = {
    _ALONE: ParallelPlan(ranks=2),
    "cfg 2": ParallelPlan(ranks=2, cfg=2),
    "ulysses 2": ParallelPlan(ranks=2, ulysses=2),
    "ring 2": ParallelPlan(ranks=2, ring=2),
}
_STRIPS: Final = {_ALONE: ParallelPlan(ranks=2), "strips": ParallelPlan(ranks=2, cfg=2)}
_WITH_LSE: Final[dict[str, Attention]] = {"cuda": "auto", "cpu": "flash"}  # to be used in a ring

Work = Callable[[], Tensor]


@click.command()
@click.option(
    "--shape", "shapes", multiple=True, type=click.Choice(list(real_size.SHAPES)),
    default=("a14b-832x480x81", "5b-1280x704x121"), show_default=True,
)  # fmt: skip
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Timed rounds of each comparison.")
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/pair.json"))
def main(shapes: tuple[str, ...], device: str, rounds: int, to: Path) -> None:
    """Time a guided step's two forwards and a decode, on one rank and divided over two."""
    context = multiprocessing.get_context("spawn")  # a fork of a process that knows CUDA has none
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        ranks = [
            context.Process(target=_measure, args=(rank, scratch, device, shapes, rounds))
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise SystemExit("A rank failed; what it said is above.")
        both = [json.loads((scratch / f"{rank}.json").read_text()) for rank in range(2)]
    record(to, [_slower(*rows) for rows in zip(*both, strict=True)])


def _slower(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    samples = {
        way: [max(pair) for pair in zip(given, second["samples"][way], strict=True)]
        for way, given in first["samples"].items()
    }
    facts = {name: first[name] for name in ("differences", "peak_bytes")}
    return row(first["row"], _ALONE, samples, **facts)


@torch.no_grad()
def _measure(rank: int, scratch: Path, device: str, shapes: tuple[str, ...], rounds: int) -> None:
    """One rank."""
    place = f"cuda:{rank}" if device == "cuda" else device
    if device == "cuda":
        torch.cuda.set_device(rank)
    ranks = Ranks(Seat(rank, 2, scratch / "meet", place, 8))
    together = ranks.mesh(_STRIPS["strips"])
    rows: list[dict[str, Any]] = []
    for name in shapes:
        family, shape = real_size.SHAPES[name]
        for what, make in (("guided step", _steps), ("decode", _decodes)):
            ways = make(ranks, family, shape, device)
            outputs: dict[str, Tensor] = {}
            peaks: dict[str, int] = {}
            for way, work in ways.items():
                outputs[way], peaks[way] = _watched(work, device)
            apart = {way: _apart(given, outputs[_ALONE]) for way, given in outputs.items()}
            del outputs
            samples: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, work in ways.items():
                    samples[way].append(_timed(work, together, device))
            told = {"row": f"{name} {what}", "samples": samples}
            rows.append(told | {"differences": apart, "peak_bytes": peaks})
    (scratch / f"{rank}.json").write_text(json.dumps(rows))
    ranks.leave()


def _steps(ranks: Ranks, family: str, shape: tuple[int, ...], device: str) -> dict[str, Work]:
    """Both guidance branches of one step, all blocks computed, in class `bf16`."""
    model = real_size.transformer(family, device)
    wrapped = blocks.install(model)
    build = Build(precision="bf16", attention=_WITH_LSE[device])
    attend = forward.install([model], build, torch.device(device))
    given = real_size.inputs(family, shape, device)
    text = given.pop("encoder_hidden_states")
    texts: dict[Branch, Tensor] = {"cond": text, "uncond": real_size.prompt(2, device)}

    def way(mesh: Mesh) -> Work:
        def work() -> Tensor:
            attend.divide(mesh.sequence)
            wrapped.sequence = mesh.sequence
            latents = given["hidden_states"].clone()  # a new step: its branches share nothing older
            return torch.cat(mesh.branches(partial(predict, latents)))

        return work

    def predict(latents: Tensor, branch: Branch) -> Tensor:
        step = given | {"hidden_states": latents, "encoder_hidden_states": texts[branch]}
        return model(**step)[0]

    return {name: way(ranks.mesh(plan)) for name, plan in _PLANS.items()}


def _decodes(ranks: Ranks, family: str, shape: tuple[int, ...], device: str) -> dict[str, Work]:
    """Decodes to bytes in CPU memory, as they go to the file; [F, H, W, 3] on rank 0."""
    vae = real_size.vae(family, device)
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(3)).to(device)

    def way(mesh: Mesh) -> Work:
        def work() -> Tensor:
            strips = mesh.strips(shape[2])
            chunks = [torch.from_numpy(chunk) for chunk in decode.frames(vae, latents, strips)]
            return torch.cat(chunks)

        return work

    return {name: way(ranks.mesh(plan)) for name, plan in _STRIPS.items()}


def _watched(work: Work, device: str) -> tuple[Tensor, int]:
    """What it gives, and the most GPU memory it took on the way; 0 on the CPU."""
    if device != "cuda":
        return work(), 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    return work(), torch.cuda.max_memory_allocated() - before


def _timed(work: Work, together: Mesh, device: str) -> float:
    """Milliseconds, from when both ranks have come."""
    if device == "cuda":
        torch.cuda.synchronize()
    together.compare(())
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1000


def _apart(given: Tensor, right: Tensor) -> float | None:
    """Relative difference; None where this rank has a part only."""
    if given.shape != right.shape:
        return None
    return ((given.double() - right.double()).norm() / right.double().norm()).item()


if __name__ == "__main__":
    main()
