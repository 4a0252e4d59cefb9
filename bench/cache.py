"""What a cache policy gains and what it changes: `python -m bench.cache MODEL_DIRECTORY`.

Every prompt is rendered once without a cache and once with each policy, from the same seed; the
pictures are compared before they are encoded. Prompts are scenes of the miniature's world, and its
judge says how many each policy shows rightly; with other prompts there is no judge. With random
weights the differences mean nothing: only trained weights tell which policy is worth it.
"""

import math
import statistics
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.timing import record
from mini import judge, world
from mini.grade import FRESH
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
from worker.engine.video import conditioning

_PLAN: Final = ParallelPlan(ranks=1)
_POLICIES: Final[dict[str, CachePolicyName | CacheWish]] = {
    "knobs at their defaults": CacheWish(enabled=True),
    "fast": "fast",
    "fast without taylor": CacheWish(warmup=2, scm_preset="fast"),
    **{f"rdt {rdt}": CacheWish(rdt=rdt) for rdt in (0.05, 0.1)},
    **{f"mc {mc}": CacheWish(mc=mc) for mc in (1, 5)},
    "taylor 1": CacheWish(taylorseer=True),
    "taylor 2": CacheWish(taylorseer=True, ts_order=2),
    "fn 2, bn 1": CacheWish(fn=2, bn=1),
    "mask slow": CacheWish(scm_preset="slow"),
    "mask ultra": CacheWish(scm_preset="ultra"),
    "taylor 1, warmup 2": CacheWish(taylorseer=True, warmup=2),
    "taylor 1, warmup 2, mc 2": CacheWish(taylorseer=True, warmup=2, mc=2),
    "taylor 1, warmup 2, rdt 0.4, mc 5": CacheWish(taylorseer=True, warmup=2, rdt=0.4, mc=5),
}

Pictures = NDArray[np.uint8]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", type=click.Choice(list(MODELS)), default="wan-mini-t2v", show_default=True)
@click.option("--steps", default=20, show_default=True, help="Denoising steps.")
@click.option("--scenes", "count", default=64, show_default=True, help="So many of the world.")
@click.option("--prompt", "prompts", multiple=True, help="These texts instead, without a judge.")
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/cache.json"))
@torch.no_grad()
def main(
    directory: Path, model: str, steps: int, count: int, prompts: tuple[str, ...], to: Path
) -> None:
    """Sweep policies over prompts, and tell share, gain, PSNR, SSIM and the judge's word."""
    scenes = [] if prompts else [world.scene(FRESH + n) for n in range(count)]
    told = prompts or [world.caption(one, n, whole=True) for n, one in enumerate(scenes)]
    size = MODELS[model].native_sizes[0]
    given = {"model": model, "width": size.width, "height": size.height, "steps": steps}
    specs = [
        GenerationSpec.model_validate(given | {"prompt": text, "seed": n})
        for n, text in enumerate(told)
    ]
    with tempfile.TemporaryDirectory() as folder, _rendering(directory, folder) as render:
        plain = [pictures for pictures, _ in render(specs, None)]
        rows: list[dict[str, Any]] = []
        for name, wish in _POLICIES.items():
            settled = settle(wish, CacheEnvironment(), MODELS[model])
            assert settled
            made = render(specs, settled.policies)
            row = {"row": name, "policies": settled.policies.model_dump(mode="json")}
            row |= _compared(made, plain) | _judged(scenes, made, plain)
            print(_line(row), flush=True)
            rows.append(row)
            record(to, rows)


def _compared(
    made: list[tuple[Pictures, list[StepRecord]]], plain: list[Pictures]
) -> dict[str, Any]:
    """What a policy saved over all prompts, and how near its pictures are."""
    told = [summed_up(steps) for _, steps in made]
    pairs = [(given, right) for (given, _), right in zip(made, plain, strict=True)]
    return {
        "cached_ratio": statistics.mean(one.cached_ratio for one in told),
        "gain": statistics.mean(one.gain or 1.0 for one in told),
        "psnr_db": [_psnr(*pair) for pair in pairs],
        "ssim": [_ssim(*pair) for pair in pairs],
    }


def _judged(
    scenes: list[world.Scene],
    made: list[tuple[Pictures, list[StepRecord]]],
    plain: list[Pictures],
) -> dict[str, Any]:
    """How many scenes are shown rightly, and the change with its interval of 95%, two-sided."""
    if not scenes:
        return {}
    before, after = (
        [judge.verdict(*pair).all for pair in zip(scenes, videos, strict=True)]
        for videos in (plain, [pictures for pictures, _ in made])
    )
    changes = [int(new) - int(old) for old, new in zip(before, after, strict=True)]
    change = statistics.mean(changes)
    spread = 1.96 * statistics.pstdev(changes) / math.sqrt(len(changes))
    return {
        "right_uncached": sum(before) / len(before),
        "right": sum(after) / len(after),
        "change_95": [change - spread, change + spread],
    }


def _line(row: dict[str, Any]) -> str:
    psnr, ssim = (statistics.median(row[name]) for name in ("psnr_db", "ssim"))
    said = f"right {row['right']:.1%} of {row['right_uncached']:.1%}" if "right" in row else ""
    return (
        f"{row['row']:24} cached {row['cached_ratio']:4.0%}  gain {row['gain']:5.2f}  "
        f"PSNR {psnr:5.1f} dB  SSIM {ssim:.3f}  {said}"
    )


def _psnr(given: Pictures, right: Pictures) -> float:
    """Peak signal to noise, in dB; 99 where nothing differs."""
    error = float(np.mean((given.astype(np.float64) - right) ** 2))
    return 99.0 if error == 0 else min(99.0, 10 * np.log10(255**2 / error))


def _ssim(given: Pictures, right: Pictures) -> float:
    """Structural similarity of the grey pictures, in windows of 7 x 7.

    Source: Wang et al., "Image quality assessment", 2004.
    """

    def grey(pictures: Pictures) -> Tensor:
        return torch.from_numpy(pictures.mean(-1, dtype=np.float64))[:, None]

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 7, stride=1)

    x, y = grey(given), grey(right)
    mean_x, mean_y = around(x), around(y)
    both = around(x * y) - mean_x * mean_y
    apart = around(x * x) - mean_x**2 + around(y * y) - mean_y**2
    bright, flat = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mean_x * mean_y + bright) * (2 * both + flat)
    return float((alike / ((mean_x**2 + mean_y**2 + bright) * (apart + flat))).mean())


def _decoded(vae: Any, latents: Sequence[Tensor]) -> list[Pictures]:  # noqa: ANN401
    """Some at once on a CPU, which convolves many small clips much faster than one."""
    size = 1 if vae.device.type == "cuda" else 16
    mean, inverse = conditioning.statistics(vae, latents[0].to(vae.device, vae.dtype))
    made: list[Pictures] = []
    for first in range(0, len(latents), size):
        given = torch.cat([*latents[first : first + size]]).to(mean)
        clips = vae.decode(given / inverse + mean).sample.float().clamp(-1, 1) * 0.5 + 0.5
        made += [*(clips * 255).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy()]
    return made


@contextmanager
def _rendering(directory: Path, folder: str) -> Generator[Any]:
    """Load a checkpoint; gives what renders specs under some policies to pictures and steps."""
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    place = torch.device(device)
    ranks = Ranks(Seat(0, 1, Path(folder) / "meet", device, torch.get_num_threads()))
    parts = loading.load(directory, place, Build(), with_text=True)
    placement, mesh = Placement(parts, place, Build()), ranks.mesh(_PLAN)

    def render(
        specs: list[GenerationSpec], cache: CachePolicies | None
    ) -> list[tuple[Pictures, list[StepRecord]]]:
        latents, steps = zip(*(denoise(spec, cache) for spec in specs), strict=True)
        return list(zip(_decoded(parts.vae, latents), steps, strict=True))

    def denoise(
        spec: GenerationSpec, cache: CachePolicies | None
    ) -> tuple[Tensor, list[StepRecord]]:
        steps: list[StepRecord] = []

        def tell(done: StepDone) -> None:
            told = {name: getattr(done, name) for name in StepRecord.model_fields}
            steps.append(StepRecord.model_validate(told))

        hooks = Hooks(word=lambda: Word.GO, phase=lambda _: None, step=tell)
        order = Order(spec, _PLAN, Path(folder) / "none.mp4", cache=cache)
        job, schedule = Job(parts, order, mesh, hooks, placement), Schedule.of(spec)
        job.save_as({}, schedule)
        try:
            return job.denoise(job.scene(), schedule), steps
        finally:
            job.end()

    yield render
    ranks.leave()


if __name__ == "__main__":
    main()
