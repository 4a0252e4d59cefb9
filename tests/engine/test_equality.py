"""Our loop against diffusers' own pipelines: the same bits."""

import hashlib

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
)
from PIL import Image

from tests.engine.rendering import REF, Render, small
from worker.engine.video import decode

FLAVOURS = {
    "t2v": ("wan-tiny-t2v", None),
    "i2v": ("wan-tiny-i2v", REF),
    "ti2v-text": ("wan-tiny-ti2v", None),
    "ti2v-image": ("wan-tiny-ti2v", REF),
}


def set_up_like(spec, models, kept=None, **loading):
    """diffusers' pipeline of a spec, loaded from the same directory and set up as it says."""
    kind = WanImageToVideoPipeline if spec.image else WanPipeline
    kept = {} if kept is None else kept
    if (kind, spec.model) not in kept:
        kept[kind, spec.model] = kind.from_pretrained(models / spec.card.directory, **loading)
    pipe = kept[kind, spec.model]
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = (
        UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=spec.shift
        )
        if spec.sampler == "unipc"
        else FlowMatchEulerDiscreteScheduler(shift=spec.shift)
    )
    return pipe


@pytest.fixture(scope="module")
def pipeline(models):
    """`set_up_like`, each pipeline loaded once."""
    kept = {}
    return lambda spec: set_up_like(spec, models, kept)


def ask(pipe, spec, picture, output_type):
    image = {"image": Image.open(picture).convert("RGB")} if spec.image else {}
    return pipe(
        **image,
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        height=spec.height,
        width=spec.width,
        num_frames=spec.frames,
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_high,
        guidance_scale_2=spec.guidance_low,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        output_type=output_type,
    ).frames


@pytest.mark.parametrize("seed", [1, 20260])
@pytest.mark.parametrize("guidance", [4.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("sampler", ["unipc", "euler"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_latents_equal_those_of_diffusers(
    render: Render, pipeline, picture, flavour, sampler, guidance, seed
):
    model, image = FLAVOURS[flavour]
    spec = small(model, image=image, sampler=sampler, guidance_high=guidance, seed=seed)

    _, report = render(spec)

    expected = ask(pipeline(spec), spec, picture, "latent")
    assert report.latents_sha256 == hashlib.sha256(expected.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_streamed_frames_equal_the_whole_decode_of_diffusers(
    render: Render, pipeline, picture, flavour
):
    model, image = FLAVOURS[flavour]
    spec = small(model, image=image)
    pipe = pipeline(spec)

    latents = ask(pipe, spec, picture, "latent")
    streamed = np.concatenate(list(decode.frames(pipe.vae, latents)))

    whole = ask(pipe, spec, picture, "np")[0]
    assert np.array_equal(streamed, (whole * 255).round().astype(np.uint8))


def test_both_experts_take_part(render: Render):
    seen = []

    render(small(steps=8), step=lambda done: seen.append(done.expert))

    assert seen == ["high"] * 6 + ["low"] * 2
