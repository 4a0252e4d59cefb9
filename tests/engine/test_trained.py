"""The trained miniatures: diffusers runs them as they are, and they show what a prompt says."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from mini import judge, lessons, world
from mini.build import LORAS, TRAINED
from mini.judge import Verdict
from shared.machinery.loras import Loras
from shared.vocabulary.catalog import MINIATURES, MODELS
from shared.vocabulary.spec import ImageRef
from tests.engine.rendering import Render, decoded, small
from worker.engine.contract import LoraFiles

SIDE, FRAMES = world.SIDE, MODELS[MINIATURES[0]].frames
SHOWN = 20_000_001  # the seed of a scene that nobody was taught


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render with the checkpoints of the repository."""
    scratch = tmp_path_factory.mktemp("trained")
    return Render(TRAINED, scratch / "given.png", scratch)


def asked(model: str, prompt: str, **fields: object):
    shape = {"width": SIDE, "height": SIDE, "frames": FRAMES, "negative_prompt": ""}
    return small(model, prompt=prompt, **(shape | fields))


def test_they_are_small_enough_for_a_repository():
    files = [path for path in TRAINED.rglob("*") if path.is_file() and not path.is_symlink()]

    assert sum(path.stat().st_size for path in files) < 24_000_000


@pytest.mark.parametrize("model", MINIATURES)
def test_the_catalogue_knows_what_is_in_them(model):
    card, folder = MODELS[model], TRAINED / model
    parts = {
        name: json.loads((folder / name).read_text())
        for name in (
            "model_index.json",
            "scheduler/scheduler_config.json",
            "transformer/config.json",
        )
    }
    index, scheduler, expert = parts.values()
    heads = expert["num_attention_heads"]

    assert index["boundary_ratio"] == card.boundary
    assert index["expand_timesteps"] == card.expand_timesteps
    assert scheduler["flow_shift"] == card.shift
    assert (expert["num_layers"], heads, expert["ffn_dim"]) == (card.blocks, card.heads, card.ffn)
    assert heads * expert["attention_head_dim"] == card.width
    assert card.frames == lessons.FRAMES


@pytest.mark.parametrize("model", MINIATURES)
def test_diffusers_finds_its_pipeline_and_makes_the_same_latents(render: Render, model):
    spec = asked(model, "a red ball moves left over a white background", steps=4, frames=5)
    pipe = DiffusionPipeline.from_pretrained(TRAINED / model)
    pipe.set_progress_bar_config(disable=True)
    levels = {} if spec.guidance_low is None else {"guidance_scale_2": spec.guidance_low}

    _, report = render(spec)

    expected = pipe(
        prompt=spec.prompt,
        height=SIDE,
        width=SIDE,
        num_frames=spec.frames,
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_high,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        output_type="latent",
        **levels,
    ).frames
    assert report.latents_sha256 == hashlib.sha256(expected.numpy().tobytes()).hexdigest()


def test_a_file_shows_what_its_prompt_says(render: Render):
    one = world.scene(SHOWN)

    file, _ = render(asked("wan-mini-ti2v", world.caption(one, SHOWN, whole=True), steps=20))

    assert judge.verdict(one, decoded(file.path, SIDE, SIDE)) == Verdict(True, True, True, True)


@pytest.mark.long
def test_an_adapter_draws_outlines_and_leaves_no_trace(render: Render):
    one = world.scene(SHOWN)
    spec = asked("wan-mini-t2v", world.caption(one, 1, whole=True), steps=20)
    short = asked("wan-mini-t2v", spec.prompt, steps=2, frames=5)
    style = Loras(LORAS).find("outlined")
    pair = LoraFiles("outlined", 1.0, "both", style.file("high"), style.file("low"))
    plain, _ = render(short)
    before = Path(plain.path).read_bytes()

    file, _ = render(spec, loras=(pair,))

    video = decoded(file.path, SIDE, SIDE)
    assert judge.outlined(video)
    assert judge.verdict(one, video).colour
    again, _ = render(short)
    assert Path(again.path).read_bytes() == before


@pytest.mark.long
def test_a_given_picture_moves_as_the_prompt_says(render: Render):
    one = world.scene(20_000_003, "left")
    first = world.clip([one], FRAMES, part=slice(1))[0, :, 0].permute(1, 2, 0)
    picture = render.scratch / "given.png"
    Image.fromarray(first.mul(255).round().byte().numpy()).save(picture)
    image = ImageRef(sha256="0" * 64, width=SIDE, height=SIDE)

    file, _ = render(
        asked("wan-mini-ti2v", world.caption(one, 1, whole=True), image=image, steps=20)
    )

    video = decoded(file.path, SIDE, SIDE)
    error = (torch.from_numpy(video[0] / 255.0) - first).square().mean()
    assert -10 * torch.log10(error) > 25
    assert judge.verdict(one, video).motion
