"""Jobs one after another on a rank process with the 5B model's real size: `python -m bench.job`.

Random weights, written as a checkpoint and loaded as any other; the text encoder has 2 layers.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from transformers import UMT5Config, UMT5EncoderModel

from bench import real_size
from bench.timing import record
from mini.build import tokenizer
from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import GenerationSpec
from worker.ranks.group import Layout, Progress, RankGroup, RankStopped
from worker.ranks.messages import Generate, Load, PhaseBegan, Step

_MODEL = "wan2.2-ti2v-5b"
_ENGINE = "worker.engine.engine:Engine"
_PLAN = ParallelPlan(ranks=1)


@click.command()
@click.option("--steps", default=6, show_default=True, help="Denoising steps of each video.")
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/job.json"))
def main(steps: int, to: Path) -> None:
    """Render two videos in a row, then stop a third in the middle of a step."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "model")
        group = RankGroup(Layout(1, "cuda", _ENGINE, start_s=120, load_s=600, hang_s=300))
        group.start()
        try:
            rows = _measure(group, Path(folder), steps)
        finally:
            group.stop()
    for one in rows:
        print(one)
    record(to, rows)


def _measure(group: RankGroup, folder: Path, steps: int) -> list[dict[str, Any]]:
    directory = str(folder / "model")
    command = Load(model=_MODEL, directory=directory, plan=_PLAN, build=Build(precision="bf16"))
    loaded_s = group.load(command)
    clock = _Clock()
    first = group.generate(_order(folder, 1, steps), clock.hear)
    released = time.monotonic()
    second = group.generate(_order(folder, 2, steps), clock.hear)
    idle_s = clock.denoising[1] - released
    while not (first.done() and second.done()):
        group.close_some()
    report = second.result().report
    return [
        {"row": "load", "seconds": loaded_s},
        {"row": "job", "report": report.model_dump(mode="json")},
        {"row": "idle between two jobs", "seconds": idle_s},
        {"row": "cancel to free", "seconds": _cancel(group, folder, steps)},
    ]


def _cancel(group: RankGroup, folder: Path, steps: int) -> float:
    asked: list[float] = []

    def hear(message: Progress) -> None:
        if isinstance(message, Step) and message.step == 2:
            asked.append(time.monotonic())
            group.cancel(("video_3", 1))

    try:
        group.generate(_order(folder, 3, steps), hear)
    except RankStopped:
        return time.monotonic() - asked[0]
    raise AssertionError("it was not stopped")


class _Clock:
    """When each job's denoising began."""

    def __init__(self) -> None:
        self.denoising: list[float] = []

    def hear(self, message: Progress) -> None:
        if isinstance(message, PhaseBegan) and message.phase.value == "denoise":
            self.denoising.append(time.monotonic())


def _order(folder: Path, number: int, steps: int) -> Generate:
    size = {"width": 1280, "height": 704, "steps": steps, "seed": number}
    spec = GenerationSpec.model_validate({"model": _MODEL, "prompt": "a lighthouse"} | size)
    out = str(folder / f"{number}.mp4")
    return Generate(video_id=f"video_{number}", attempt=1, spec=spec, plan=_PLAN, out=out)


def _write(directory: Path) -> None:
    """Write the checkpoint."""
    config = UMT5Config(
        vocab_size=256384,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=2,
        num_heads=64,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.device("cuda"):
        encoder: Any = UMT5EncoderModel(config)
    kind: Any = WanPipeline
    pipe = kind(
        tokenizer=tokenizer(),
        text_encoder=encoder.to(torch.bfloat16).eval(),
        vae=real_size.vae("5b"),
        scheduler=UniPCMultistepScheduler(),
        transformer=real_size.transformer("5b"),
        expand_timesteps=True,
    )
    pipe.save_pretrained(directory)


if __name__ == "__main__":
    main()
