"""On a GPU, in bf16: the same bits as diffusers, the same bits again, and no memory left behind."""

import hashlib

import pytest
import torch

from tests.engine.rendering import Render, small
from tests.engine.test_equality import FLAVOURS, ask, set_up_like

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]


@pytest.fixture(scope="module")
def cuda(models, picture, tmp_path_factory) -> Render:
    return Render(models, picture, tmp_path_factory.mktemp("cuda"), device="cuda:0")


@pytest.mark.parametrize("guidance", [4.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_latents_on_a_gpu_equal_those_of_diffusers(cuda, models, picture, flavour, guidance):
    model, image = FLAVOURS[flavour]
    spec = small(model, image=image, guidance_high=guidance)

    _, report = cuda(spec)

    pipe = set_up_like(spec, models, dtype=torch.bfloat16).to("cuda")
    expected = ask(pipe, spec, picture, "latent").cpu()
    assert report.latents_sha256 == hashlib.sha256(expected.numpy().tobytes()).hexdigest()


def test_a_job_leaves_no_memory_behind(cuda):
    spec = small()
    cuda(spec)
    before = torch.cuda.memory_allocated()

    _, first = cuda(spec)
    _, second = cuda(spec)

    assert torch.cuda.memory_allocated() == before
    assert first.latents_sha256 == second.latents_sha256
    assert first.peak_memory_bytes == second.peak_memory_bytes > before
