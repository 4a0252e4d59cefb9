"""One job in one process: refusals, cancel, and numbers that stop being numbers."""

import shutil

import pytest
import torch

from shared.vocabulary.plan import Build
from shared.vocabulary.spec import FailureKind
from tests.engine.rendering import ALONE, REF, Render, small
from worker.engine.contract import Cancelled
from worker.engine.faults import EngineFault


@pytest.mark.parametrize("forwards", [0, 1, 5, 10, 12])
def test_a_job_after_a_cancel_equals_a_job_in_a_fresh_process(render: Render, forwards):
    fresh = render(small())[1].latents_sha256
    answers = iter([False] * forwards + [True])

    with pytest.raises(Cancelled) as stopped:
        render(small(seed=2), cancelled=lambda: next(answers))

    assert stopped.value.step == min(forwards // 2, 5)
    assert render(small())[1].latents_sha256 == fresh


def test_a_cancelled_job_leaves_no_file(render: Render):
    (render.scratch / "video.mp4").unlink(missing_ok=True)
    answers = iter([False] * 11 + [True])  # five steps of two forwards, then while decoding

    with pytest.raises(Cancelled):
        render(small(), cancelled=lambda: next(answers))

    assert not list(render.scratch.glob("*video.mp4*"))


def test_the_prompt_and_the_seed_decide_the_video(render: Render):
    hashes = {
        render(spec)[1].latents_sha256
        for spec in (small(), small(), small(seed=3), small(prompt="a blue square"))
    }

    assert len(hashes) == 3


def test_non_finite_latents_end_the_job(render: Render):
    render.load("wan-tiny-t2v")
    bias = render.engine._parts.high.proj_out.bias
    kept = bias.detach().clone()
    (render.scratch / "video.mp4").unlink(missing_ok=True)

    with torch.no_grad():
        bias.fill_(float("nan"))
    try:
        with pytest.raises(EngineFault, match="at step 1") as fault:
            render(small())
    finally:
        with torch.no_grad():
            bias.copy_(kept)

    assert fault.value.kind is FailureKind.NON_FINITE
    assert not list(render.scratch.glob("*video.mp4*"))


def test_an_unreadable_image_is_told(render: Render, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")

    with pytest.raises(EngineFault, match="image cannot be read") as fault:
        render(small("wan-tiny-ti2v", image=REF), picture=broken)

    assert fault.value.kind is FailureKind.BAD_INPUT


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "transformer_2"), "has no transformer_2"),
        (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
        (
            lambda folder: (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"?"),
            "has a vae that cannot be read",
        ),
        (
            lambda folder: (folder / "text_encoder/model.safetensors").unlink(),
            "has a text_encoder that cannot be read",
        ),
        (
            lambda folder: (folder / "tokenizer/tokenizer.json").unlink(),
            "has a tokenizer that cannot be read",
        ),
    ],
    ids=["no-expert", "no-index", "torn-vae", "no-weights", "no-vocabulary"],
)
def test_a_damaged_checkpoint_is_named(render: Render, tmp_path, damage, words):
    folder = tmp_path / "wan-tiny-t2v"
    shutil.copytree(render.models / "wan-tiny-t2v", folder)
    damage(folder)

    with pytest.raises(EngineFault, match=words) as fault:
        render.anew().load(folder, ALONE, Build())

    assert fault.value.kind is FailureKind.BAD_CHECKPOINT
    assert str(tmp_path) not in fault.value.message
