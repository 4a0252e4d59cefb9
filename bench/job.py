"""What a job costs beside its steps, on a rank process: `python -m bench.job`.

The 5B model at its real size with random weights, written as a checkpoint and loaded as any other;
its text encoder has 2 layers.
"""

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click

from bench import checkpoints
from bench.timing import record
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import GenerationSpec
from worker.ranks.faults import RankStopped
from worker.ranks.group import Layout, Progress, RankGroup
from worker.ranks.messages import Generate, Load, PhaseBegan, Step

_ENGINE: Final = "worker.engine.engine:Engine"
_PLAN: Final = ParallelPlan(ranks=1)


@click.command()
@click.option(
    "--model", type=click.Choice(["wan2.2-ti2v-5b", "wan-tiny-ti2v"]), default="wan2.2-ti2v-5b",
    show_default=True,
)  # fmt: skip
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--steps", default=6, show_default=True, help="Denoising steps of each video.")
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/job.json"))
def main(model: str, device: str, steps: int, to: Path) -> None:
    """Render two videos in a row, then stop a third in the middle of a step."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.write(model, Path(folder))
        group = RankGroup(Layout(1, device, _ENGINE, start_s=120, load_s=600, hang_s=300))
        group.start()
        try:
            rows = _Jobs(group, Path(folder), model, steps).measure()
        finally:
            group.stop()
    for one in rows:
        print(f"{one['row']:34} {one['seconds'] * 1000:10.1f} ms", flush=True)
    record(to, rows)


class _Jobs:
    """What is asked of the ranks, and when they said what."""

    def __init__(self, group: RankGroup, folder: Path, model: str, steps: int) -> None:
        self._group = group
        self._folder = folder
        self._model = model
        self._steps = steps
        self._denoising: list[float] = []  # when each job's denoising began
        self._asked = 0.0  # when the third was asked to stop

    def measure(self) -> list[dict[str, Any]]:
        directory = str(self._folder / MODELS[self._model].directory)
        load = Load(
            model=self._model, directory=directory, plan=_PLAN, build=Build(precision="bf16")
        )
        loaded_s = self._group.load(load)
        began = time.monotonic()
        first = self._group.generate(self._order(1), self._hear)
        released = time.monotonic()
        second = self._group.generate(self._order(2), self._hear)
        while not (first.done() and second.done()):
            self._group.close_some()
        report = first.result().report.model_dump(mode="json")
        return [
            {"row": f"load {self._model}, just written", "seconds": loaded_s},
            {"row": f"job of {self._steps} steps", "seconds": released - began, "report": report},
            {"row": "idle between two jobs", "seconds": self._denoising[1] - released},
            {"row": "cancel to free", "seconds": self._cancel()},
        ]

    def _cancel(self) -> float:
        try:
            self._group.generate(self._order(3), self._stop)
        except RankStopped:
            return time.monotonic() - self._asked
        raise AssertionError("it was not stopped")

    def _hear(self, message: Progress) -> None:
        if isinstance(message, PhaseBegan) and message.phase.value == "denoise":
            self._denoising.append(time.monotonic())

    def _stop(self, message: Progress) -> None:
        if isinstance(message, Step) and message.step == 2:
            self._asked = time.monotonic()
            self._group.cancel(("video_3", 1))

    def _order(self, number: int) -> Generate:
        size = MODELS[self._model].native_sizes[0]
        given = {"width": size.width, "height": size.height, "steps": self._steps, "seed": number}
        spec = GenerationSpec.model_validate(
            {"model": self._model, "prompt": "a lighthouse"} | given
        )
        out = str(self._folder / f"{number}.mp4")
        return Generate(video_id=f"video_{number}", attempt=1, spec=spec, plan=_PLAN, out=out)


if __name__ == "__main__":
    main()
