"""Has the judge look at what a checkpoint makes of fresh prompts: `python -m mini.grade FOLDER`.

Its folder is named as in the catalogue, which says with what steps and guidance diffusers' own
pipelines run it; `--image` gives them the first picture too.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from PIL import Image

from mini import judge, lessons, world
from mini.judge import Verdict
from shared.vocabulary.catalog import MODELS, Model

FRESH: Final = 20_000_000  # seeds that training does not reach


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--prompts", default=500, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--image", is_flag=True, help="Give the scene's first picture as well.")
@click.option("--to", type=click.Path(path_type=Path), help="Write the shares here, as JSON.")
def main(checkpoint: Path, prompts: int, batch: int, *, image: bool, to: Path | None) -> None:
    """Print the share of prompts that are shown rightly, by property."""
    card = MODELS[checkpoint.name]
    kind: Any = WanImageToVideoPipeline if image else WanPipeline
    pipe = kind.from_pretrained(checkpoint)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu").set_progress_bar_config(disable=True)
    verdicts: list[Verdict] = []
    psnrs: list[float] = []
    for first in range(FRESH, FRESH + prompts, batch):
        scenes = lessons.scenes(first, min(batch, FRESH + prompts - first))
        for video, given, one in _videos(pipe, scenes, first, card, image=image):
            verdicts.append(judge.verdict(one, video))
            if given is not None:
                psnrs.append(_psnr(video[0], given))
        click.echo(f"{len(verdicts)} prompts: {_told(verdicts, psnrs)}")
    if to is not None:
        to.write_text(json.dumps(_shares(verdicts, psnrs), indent=1) + "\n")


def _videos(
    pipe: Any,  # noqa: ANN401
    scenes: list[world.Scene],
    seed: int,
    card: Model,
    *,
    image: bool,
) -> Iterator[tuple[np.ndarray, np.ndarray | None, world.Scene]]:
    """Render scenes from their captions; [F, H, W, 3] uint8 each, with the picture it was given."""
    told: dict[str, Any] = {
        "guidance_scale": card.guidance_high,
        "height": world.SIDE,
        "width": world.SIDE,
        "num_frames": card.frames,
        "num_inference_steps": card.steps,
        "output_type": "np",
    }
    prompts = [world.caption(one, seed + i, whole=True) for i, one in enumerate(scenes)]
    generator = torch.Generator("cpu").manual_seed(seed)
    if not image:
        made = pipe(prompt=prompts, negative_prompt="", generator=generator, **told).frames
        yield from zip(_bytes(made), [None] * len(scenes), scenes, strict=True)
        return
    firsts = world.clip(scenes, card.frames, part=slice(1))[:, :, 0].permute(0, 2, 3, 1)
    for one, prompt, given in zip(scenes, prompts, _bytes(firsts.numpy()), strict=True):
        picture = Image.fromarray(given)
        made = pipe(picture, prompt, negative_prompt="", generator=generator, **told).frames
        yield _bytes(made)[0], given, one


def _bytes(pictures: np.ndarray) -> np.ndarray:
    return (np.asarray(pictures) * 255).round().clip(0, 255).astype(np.uint8)


def _psnr(given: np.ndarray, right: np.ndarray) -> float:
    error = np.square(given.astype(np.float32) - right).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def _shares(verdicts: list[Verdict], psnrs: list[float]) -> dict[str, float]:
    shares = {
        name: sum(getattr(one, name) for one in verdicts) / len(verdicts)
        for name in (*Verdict._fields, "all")
    }
    return shares | ({"first_picture_db": float(np.median(psnrs))} if psnrs else {})


def _told(verdicts: list[Verdict], psnrs: list[float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in _shares(verdicts, psnrs).items())


if __name__ == "__main__":
    main()
