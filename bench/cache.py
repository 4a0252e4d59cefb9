"""What a cache policy gains and what it changes: `python -m bench.cache MODEL_DIRECTORY`.

Every prompt is rendered once without a cache and once with each policy, from the same seed; the
pictures are compared before they are encoded. With random weights the gains are those of this run
and the differences mean nothing: only trained weights tell which policy is worth it.
"""

import statistics
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from numpy.typing import NDArray

from bench.timing import record
from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.cache_levels import CacheEnvironment, settle
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import CachePolicyName, CacheWish, GenerationSpec
from worker.cache_record import record as summed_up
from worker.engine.contract import Hooks, Order, Seat, StepDone, Word
from worker.engine.denoise.schedule import Schedule
from worker.engine.job import Job
from worker.engine.model import loading
from worker.engine.model.offload import Placement
from worker.engine.parallel.ranks import Ranks
from worker.engine.result import StepRecord
from worker.engine.video import decode

_PLAN: Final = ParallelPlan(ranks=1)
_PROMPTS: Final = (
    "a red ball passes behind a blue square",
    "two green triangles cross",
    "a yellow star moves in a circle on grey",
    "a white square grows",
)
_POLICIES: Final[dict[str, CachePolicyName | CacheWish]] = {
    "knobs at their defaults": CacheWish(enabled=True),
    "fast": "fast",
    **{f"rdt {rdt}": CacheWish(rdt=rdt) for rdt in (0.05, 0.1, 0.15)},
    **{f"mc {mc}": CacheWish(mc=mc) for mc in (1, 5)},
    "taylor 1": CacheWish(taylorseer=True),
    "taylor 2": CacheWish(taylorseer=True, ts_order=2),
    "fn 2, bn 1": CacheWish(fn=2, bn=1),
    "mask slow": CacheWish(scm_preset="slow"),
    "mask medium": CacheWish(scm_preset="medium"),
    "mask ultra": CacheWish(scm_preset="ultra"),
}

Pictures = NDArray[np.uint8]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", type=click.Choice(list(MODELS)), default="wan-mini-t2v", show_default=True)
@click.option("--steps", default=20, show_default=True, help="Denoising steps.")
@click.option("--prompt", "prompts", multiple=True, default=_PROMPTS, help="Instead of ours.")
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda:0.")
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/cache.json"))
@torch.no_grad()
def main(
    directory: Path, model: str, steps: int, prompts: tuple[str, ...], device: str, to: Path
) -> None:
    """Sweep policies over a few prompts, and tell share, gain and PSNR of each."""
    size = MODELS[model].native_sizes[0]
    given = {"model": model, "width": size.width, "height": size.height, "steps": steps}
    specs = [
        GenerationSpec.model_validate(given | {"prompt": text, "seed": n})
        for n, text in enumerate(prompts)
    ]
    with tempfile.TemporaryDirectory() as folder, _rendering(directory, device, folder) as render:
        plain = [render(spec, None)[0] for spec in specs]
        rows: list[dict[str, Any]] = []
        for name, wish in _POLICIES.items():
            settled = settle(wish, CacheEnvironment(), MODELS[model])
            assert settled
            made = [render(spec, settled.policies) for spec in specs]
            rows.append(_row(name, settled.policies, made, plain))
    record(to, rows)


def _row(
    name: str,
    policies: CachePolicies,
    made: list[tuple[Pictures, list[StepRecord]]],
    plain: list[Pictures],
) -> dict[str, Any]:
    """Sum up one policy over all prompts; prints a line."""
    told = [summed_up(steps) for _, steps in made]
    psnr = [_psnr(given, right) for (given, _), right in zip(made, plain, strict=True)]
    cached = statistics.mean(one.cached_ratio for one in told)
    gain = statistics.mean(one.gain or 1.0 for one in told)
    print(f"{name:26} cached {cached:4.0%}  gain {gain:5.2f}  PSNR {min(psnr):5.1f} dB or more")
    facts = {"cached_ratio": cached, "gain": gain, "psnr_db": psnr}
    return {"row": name, "policies": policies.model_dump(mode="json")} | facts


def _psnr(given: Pictures, right: Pictures) -> float:
    """Peak signal to noise, in dB; 99 where nothing differs."""
    error = float(np.mean((given.astype(np.float64) - right) ** 2))
    return 99.0 if error == 0 else min(99.0, 10 * np.log10(255**2 / error))


@contextmanager
def _rendering(directory: Path, device: str, folder: str) -> Generator[Any]:
    """Load a checkpoint; gives what renders a spec under some policies to pictures and steps."""
    place = torch.device(device)
    ranks = Ranks(Seat(0, 1, Path(folder) / "meet", device, torch.get_num_threads()))
    parts = loading.load(directory, place, Build(), with_text=True)
    placement, mesh = Placement(parts, place, Build()), ranks.mesh(_PLAN)

    def render(
        spec: GenerationSpec, cache: CachePolicies | None
    ) -> tuple[Pictures, list[StepRecord]]:
        steps: list[StepRecord] = []

        def tell(done: StepDone) -> None:
            told = {name: getattr(done, name) for name in StepRecord.model_fields}
            steps.append(StepRecord.model_validate(told))

        hooks = Hooks(word=lambda: Word.GO, phase=lambda _: None, step=tell)
        order = Order(spec, _PLAN, Path(folder) / "none.mp4", cache=cache)
        job, schedule = Job(parts, order, mesh, hooks, placement), Schedule.of(spec)
        job.save_as({}, schedule)
        try:
            latents = job.denoise(job.scene(), schedule)
            return np.concatenate(list(decode.frames(parts.vae, latents))), steps
        finally:
            job.end()

    yield render
    ranks.leave()


if __name__ == "__main__":
    main()
