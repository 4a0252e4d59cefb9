"""Whole jobs by the clock, from the order to the closed file: `python -m bench.jobs`.

A job is one video of the model's own size, frames and steps, on ranks as a worker starts them; with
`--steps 4 --unguided` it is what distilled adapters need. Beside one rank diffusers' pipeline
renders the same, at the same time where there is a second GPU, else afterwards; writing a file is
not in its time. Weights are random and of real size, so cached jobs take a threshold that nothing
reaches: they cache as much as warm-up and the limit in a row allow.
"""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import torch
from diffusers import WanPipeline

from bench import checkpoints
from bench.timing import record, row
from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.plan import Build, ParallelPlan, Precision
from shared.vocabulary.spec import GenerationSpec
from worker.ranks.group import Layout, RankGroup
from worker.ranks.messages import Generate, Load

_ENGINE: Final = "worker.engine.engine:Engine"
_POLICY: Final = CachePolicy(rdt=0.999, taylorseer=True)
_THEIRS: Final = "diffusers"


@click.command()
@click.option(
    "--model", type=click.Choice(checkpoints.BENCHED), default="wan2.2-t2v-a14b", show_default=True
)
@click.option("--ranks", type=click.IntRange(1, 2), default=1, show_default=True)
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(["bf16", "fp8", "fp8_attn"]),
    default=("bf16",), show_default=True,
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Instead of the model's own.")
@click.option("--unguided", is_flag=True, help="Without guidance; then nothing is cached either.")
@click.option("--models", type=click.Path(path_type=Path), help="Where checkpoints are kept.")
@click.option("--to", type=click.Path(path_type=Path), help="Else a file of this model and ranks.")
def main(
    model: str, ranks: int, precisions: tuple[Precision, ...], steps: int | None, *,
    unguided: bool, **paths: Path | None,
) -> None:  # fmt: skip
    """Render the job once in each way, after a short one to warm up.

    The record is written again after each job, so that a run cut short keeps what it has.
    """
    spec = _spec(model, steps, unguided=unguided)
    kind = f"-{spec.steps}-unguided" if unguided else ""
    table = _Table(
        spec, ranks, paths["to"] or Path(f"bench/measured/jobs-{model}{kind}-{ranks}.json")
    )
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as beside:
        directory = (paths["models"] or Path(folder)) / spec.card.directory
        if not directory.exists():
            checkpoints.write(model, directory.parent)
        spare = torch.cuda.device_count() > 1
        render = partial(_diffusers, directory, spec, _place(spare=spare))
        waiting = beside.submit(render) if spare and ranks == 1 else None
        for precision in precisions:
            for job in _Jobs(directory, Path(folder), spec, ranks).run(precision):
                table.add(job)
        if ranks == 1:
            table.add(waiting.result() if waiting else render())


class _Job(NamedTuple):
    """One that has ended."""

    way: str  # who rendered it, in which class
    ms: float  # from the order to the closed file
    phases: dict[str, float]  # seconds, as ours reports them


class _Table:
    """The row of a record, longer with each job."""

    def __init__(self, spec: GenerationSpec, ranks: int, to: Path) -> None:
        shape = f"{spec.model} {spec.width}x{spec.height}x{spec.frames}"
        guidance = "" if spec.guided else " without guidance"
        self._name = f"job {shape}, {spec.steps} steps{guidance}"
        self._ranks = ranks
        self._to = to
        self._jobs: list[_Job] = []

    def add(self, job: "_Job") -> None:
        """Take one more job in, and write the record."""
        self._jobs.append(job)
        samples = {job.way: [job.ms] for job in self._jobs}
        base = _THEIRS if _THEIRS in samples else self._jobs[0].way
        phases = {job.way: job.phases for job in self._jobs}
        record(self._to, [row(self._name, base, samples, ranks=self._ranks, phase_seconds=phases)])


class _Jobs:
    """The jobs of one class, on a group of their own."""

    def __init__(self, directory: Path, folder: Path, spec: GenerationSpec, ranks: int) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        layout = Layout(ranks, device, _ENGINE, start_s=120, load_s=600, hang_s=300)
        self._group = RankGroup(layout)
        self._directory = directory
        self._folder = folder
        self._spec = spec
        self._ranks = ranks
        self._number = 0

    def run(self, precision: Precision) -> Iterator[_Job]:
        """Give each job when it has ended."""
        spec, card = self._spec, self._spec.card
        cache = CachePolicies(high=_POLICY, low=_POLICY if card.experts > 1 else None)
        self._group.start()
        try:
            load = Load(
                model=spec.model,
                directory=str(self._directory),
                plan=self._plan(spec),
                build=Build(precision=precision),
            )
            self._group.load(load)
            self._render(_short(spec))
            yield _Job(precision, *self._render(spec))
            if spec.guided:
                yield _Job(f"{precision}, cached", *self._render(spec, cache))
        finally:
            self._group.stop()

    def _plan(self, spec: GenerationSpec) -> ParallelPlan:
        if self._ranks == 1:
            return ParallelPlan(ranks=1)
        return ParallelPlan(ranks=2, cfg=2) if spec.guided else ParallelPlan(ranks=2, ulysses=2)

    def _render(
        self, spec: GenerationSpec, cache: CachePolicies | None = None
    ) -> tuple[float, dict[str, float]]:
        """Milliseconds of a job, and seconds of its phases."""
        self._number += 1
        order = Generate(
            video_id=f"video_{self._number}",
            attempt=1,
            spec=spec,
            plan=self._plan(spec),
            out=str(self._folder / f"{self._number}.mp4"),
            cache=cache,
        )
        began = time.monotonic()
        closing = self._group.generate(order, lambda _: None)
        while not closing.done():
            self._group.close_some()
        report = closing.result().report
        ms = (time.monotonic() - began) * 1000
        return ms, {phase.value: seconds for phase, seconds in report.phase_seconds.items()}


def _place(*, spare: bool) -> str:
    """Where diffusers renders: on the second GPU where there is one."""
    return f"cuda:{int(spare)}" if torch.cuda.is_available() else "cpu"


def _diffusers(directory: Path, spec: GenerationSpec, place: str) -> _Job:
    """Render with the whole pipeline in bf16; its pictures are in CPU memory at the end."""
    kind: Any = WanPipeline
    pipe = kind.from_pretrained(directory, dtype=torch.bfloat16).to(place)
    pipe.set_progress_bar_config(disable=True)
    told = {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "width": spec.width,
        "height": spec.height,
        "num_frames": spec.frames,
        "guidance_scale": spec.guidance_high,
        "guidance_scale_2": spec.guidance_low,
    }
    pipe(**told, num_inference_steps=2)
    began = time.monotonic()
    pipe(**told, num_inference_steps=spec.steps)
    return _Job(_THEIRS, (time.monotonic() - began) * 1000, {})


def _spec(model: str, steps: int | None, *, unguided: bool) -> GenerationSpec:
    """The model's own video; of A14B's sizes the smaller."""
    card = MODELS[model]
    size = min(card.native_sizes, key=lambda size: (size.width * size.height, -size.width))
    given = {"model": model, "prompt": "a lighthouse in a storm", "seed": 1}
    shape = {"width": size.width, "height": size.height, "steps": steps or card.steps}
    levels = ("guidance_high", "guidance_low")[: card.experts] if unguided else ()
    return GenerationSpec.model_validate(given | shape | dict.fromkeys(levels, 1.0))


def _short(spec: GenerationSpec) -> GenerationSpec:
    """The same with two steps."""
    return GenerationSpec.model_validate(spec.model_dump(exclude_unset=True) | {"steps": 2})


if __name__ == "__main__":
    main()
