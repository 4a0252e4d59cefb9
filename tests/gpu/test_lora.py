"""On a GPU: adapters come and go without a trace in every precision class."""

import pytest
import torch

from shared.vocabulary.plan import Build
from tests.engine.adapters import kohya_keys, lora, pairs, saved
from tests.engine.rendering import Render, small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]


@pytest.mark.parametrize("precision", ["reference", "bf16", "fp8"])
def test_a_job_after_one_with_an_adapter_gives_its_own_bits(models, picture, tmp_path, precision):
    render = Render(models, picture, tmp_path, "cuda:0", Build(precision=precision))
    style = lora(saved(tmp_path / "style.safetensors", kohya_keys(pairs(5))))

    hashes = [
        render(small(), loras=loras)[1].latents_sha256 for loras in ((), (style,), (), (style,))
    ]

    assert hashes[0] == hashes[2] != hashes[1] == hashes[3]
