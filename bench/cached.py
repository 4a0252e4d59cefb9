"""A whole cached denoise beside cache-dit: `python -m bench.cached`.

Both render 832x480x81 in 40 steps with two experts, guidance, DBCache and TaylorSeer of order 1.
Weights are random, so the threshold is one that nothing reaches: both then cache the same steps,
as many as warm-up and the limit on steps in a row allow, and both measure each difference.
"""

import gc
import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import cache_dit
import click
import torch
from cache_dit import DBCacheConfig, ParamsModifier, TaylorSeerCalibratorConfig
from diffusers import UniPCMultistepScheduler, WanPipeline
from torch import Tensor

from bench import real_size
from bench.engine import ours
from bench.timing import record, row
from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.plan import ParallelPlan, Precision
from shared.vocabulary.spec import GenerationSpec
from worker.engine.cache.blocks import blocks_of
from worker.engine.cache.job_cache import JobCache
from worker.engine.contract import Hooks, Order, Seat, StepDone, Word
from worker.engine.denoise.resume import Saves
from worker.engine.denoise.sampler import Experts, Scene, denoise
from worker.engine.denoise.schedule import Schedule
from worker.engine.parallel.ranks import Ranks
from worker.engine.result import Expert

_POLICY: Final = CachePolicy(rdt=0.999, taylorseer=True)
_BLOCKS: Final = 40


@click.command()
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/cached.json"))
@torch.no_grad()
def main(to: Path) -> None:
    """Time each step of one run of either, after a short run to warm up."""
    plain = real_size.transformer("a14b")
    texts = real_size.prompt(1), real_size.prompt(2)
    ways: dict[str, Callable[[], Ours | CacheDit]] = {
        "bf16": lambda: Ours(plain, texts, "bf16"),
        "fp8": lambda: Ours(plain, texts, "fp8"),
        "cache-dit compiled": lambda: CacheDit(plain, texts),
    }
    steps: dict[str, list[dict[str, Any]]] = {}
    for way, make in ways.items():
        made = make()  # one at a time: not all of them fit on a GPU together
        made.run(5)
        steps[way] = made.run(40)
        del made
        gc.collect()  # a transformer and its new forward know each other
        torch.cuda.empty_cache()
        print(way, [(round(step["ms"]), "Xc"[step["cached"]]) for step in steps[way]], flush=True)
    record(to, [*_rows(steps)])


def _rows(steps: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    base = "cache-dit compiled"
    whole: dict[str, list[float]] = {
        way: [sum(step["ms"] for step in run)] for way, run in steps.items()
    }
    reused = {way: [step["ms"] for step in run if step["cached"]] for way, run in steps.items()}
    beyond = {
        way: [s["ms"] - s["first_ms"] for s in run if s["cached"]] for way, run in steps.items()
    }
    patterns = {way: "".join("Xc"[step["cached"]] for step in run) for way, run in steps.items()}
    memory = {way: max(step["bytes"] for step in run) for way, run in steps.items()}
    print(f"patterns: {patterns}\nmemory of the caches: {memory}")
    return [
        row("denoise 40 steps, cached", base, whole, patterns=patterns, steps=steps),
        row("cached CFG step", base, reused),
        row("cached CFG step beyond its first block", base, beyond, cache_bytes=memory),
    ]


class Ours:
    """Our sampler over our forward."""

    def __init__(self, plain: Any, texts: tuple[Tensor, Tensor], precision: Precision) -> None:  # noqa: ANN401
        """Make both experts of the same weights."""
        self._experts = [ours(plain, precision) for _ in range(2)]
        self._texts = texts
        self._first = _Watch(blocks_of(expert).inner[0] for expert in self._experts)

    def run(self, steps: int) -> list[dict[str, Any]]:
        """Denoise; gives each step's time, decision and cache."""
        spec = _spec(steps)
        schedule = Schedule.of(spec)
        before = torch.cuda.memory_allocated()
        told: list[dict[str, Any]] = []

        def tell(done: StepDone) -> None:
            taken = torch.cuda.memory_allocated() - before
            cached = done.branches["cond"].cached
            told.append({"ms": done.seconds * 1000, "cached": cached, "bytes": taken})

        policies = CachePolicies(high=_POLICY, low=_POLICY)
        cache = JobCache(policies, _BLOCKS)
        high, low = self._experts
        experts = Experts(high, low, schedule, cache, _stay)
        noise = torch.randn(1, 16, 21, 60, 104, device="cuda")
        scene = Scene(noise, dict(zip(("cond", "uncond"), self._texts, strict=True)), None, None)
        hooks = Hooks(word=lambda: Word.GO, phase=lambda _: None, step=tell)
        plan = ParallelPlan(ranks=1)
        saves = Saves(Order(spec, plan, Path("none")), {}, hooks.saved, leads=True)
        with tempfile.TemporaryDirectory() as folder:
            ranks = Ranks(Seat(0, 1, Path(folder) / "meet", "cuda:0", 8))
            denoise(experts, scene, spec, ranks.mesh(plan), hooks, saves)
        cache.close()
        return self._first.told(told)


class _Watch:
    """Times the first block of each expert; it runs once per branch."""

    def __init__(self, first_blocks: Iterable[torch.nn.Module]) -> None:
        self._marks: list[torch.cuda.Event] = []
        for block in first_blocks:
            block.register_forward_pre_hook(self._mark)
            block.register_forward_hook(self._mark)

    def _mark(self, *_: object) -> None:
        self._marks.append(torch.cuda.Event(enable_timing=True))
        self._marks[-1].record()

    def told(self, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add to each guided step the time of its two first blocks."""
        torch.cuda.synchronize()
        marks, self._marks = self._marks, []
        times = [a.elapsed_time(b) for a, b in zip(marks[::2], marks[1::2], strict=True)]
        pairs = zip(times[::2], times[1::2], strict=True)
        return [step | {"first_ms": sum(pair)} for step, pair in zip(steps, pairs, strict=True)]


class CacheDit:
    """diffusers' pipeline under cache-dit, its blocks compiled as cache-dit advises."""

    def __init__(self, plain: Any, texts: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
        """Make both experts of the same weights."""
        self._texts = texts
        kind: Any = WanPipeline
        self._pipe = kind(
            tokenizer=None,
            text_encoder=None,
            vae=None,
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=12.0
            ),
            transformer=real_size.twin(plain),
            transformer_2=real_size.twin(plain),
            boundary_ratio=0.875,
        )
        self._pipe.set_progress_bar_config(disable=True)
        self._compiled = False

    def run(self, steps: int) -> list[dict[str, Any]]:
        """Denoise; gives each step's time, decision and cache."""
        self._set_up(steps)
        before = torch.cuda.memory_allocated()
        marks = [torch.cuda.Event(enable_timing=True)]
        taken: list[int] = []

        def tell(_pipe: object, _step: int, _t: object, kept: dict[str, Any]) -> dict[str, Any]:
            marks.append(torch.cuda.Event(enable_timing=True))
            marks[-1].record()
            taken.append(torch.cuda.memory_allocated() - before)
            return kept

        marks[0].record()
        cond, uncond = self._texts
        self._pipe(
            prompt_embeds=cond,
            negative_prompt_embeds=uncond,
            height=480,
            width=832,
            num_frames=81,
            num_inference_steps=steps,
            guidance_scale=4.0,
            guidance_scale_2=3.0,
            output_type="latent",
            callback_on_step_end=tell,
        )
        torch.cuda.synchronize()
        times = [a.elapsed_time(b) for a, b in itertools.pairwise(marks)]
        cached = self._cached(steps)
        told = [
            {"ms": ms, "cached": i in cached, "bytes": held}
            for i, (ms, held) in enumerate(zip(times, taken, strict=True))
        ]
        # Hooks would break the compiled blocks up. Both kinds of step have the same rest beside
        # their blocks: 2 of 80 are run, or all.
        computed = sorted(step["ms"] for step in told if not step["cached"])
        full = computed[len(computed) // 2]
        return [step | {"first_ms": (full - step["ms"]) / (_BLOCKS - 1)} for step in told]

    def _set_up(self, steps: int) -> None:
        pipe = self._pipe
        if self._compiled:
            cache_dit.disable_cache(pipe)
        taylor = TaylorSeerCalibratorConfig(taylorseer_order=_POLICY.ts_order)
        config = DBCacheConfig(
            Fn_compute_blocks=_POLICY.fn,
            Bn_compute_blocks=_POLICY.bn,
            max_warmup_steps=_POLICY.warmup,
            residual_diff_threshold=0.999,
            max_continuous_cached_steps=_POLICY.mc,
        )
        modifiers = [ParamsModifier(cache_config=config, calibrator_config=taylor)] * 2
        cache_dit.enable_cache(pipe, cache_config=config, params_modifiers=modifiers)
        if not self._compiled:
            for expert in (pipe.transformer, pipe.transformer_2):
                expert.compile_repeated_blocks(fullgraph=True, dynamic=False)
            self._compiled = True

    def _cached(self, steps: int) -> set[int]:
        """Steps of the whole run that the conditional branch took from the cache."""
        high = Schedule.of(_spec(steps)).high_steps
        pipe = self._pipe
        found = {int(n) for n in pipe.transformer._cached_steps}
        return found | {high + int(n) for n in pipe.transformer_2._cached_steps}


def _stay(_expert: Expert) -> None:
    """Nothing is brought to the device: all of it is there."""


def _spec(steps: int) -> GenerationSpec:
    size = {"width": 832, "height": 480, "steps": steps}
    return GenerationSpec.model_validate(
        {"model": "wan2.2-t2v-a14b", "prompt": "none", "seed": 1} | size
    )


if __name__ == "__main__":
    main()
