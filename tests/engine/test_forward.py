"""Our own forward: diffusers' mathematics, on the CPU and whatever stands between the blocks."""

from collections import Counter

import pytest
import torch

from shared.vocabulary.plan import Build
from shared.vocabulary.spec import FailureKind
from tests.engine.rendering import ALONE, REF, Render, small
from worker.engine.cache.blocks import blocks_of
from worker.engine.contract import Seat
from worker.engine.engine import Engine
from worker.engine.faults import EngineFault

OWN = Build(precision="bf16")


@pytest.fixture(scope="module")
def own(models, picture, tmp_path_factory) -> Render:
    """Render with our forward."""
    return Render(models, picture, tmp_path_factory.mktemp("own"), build=OWN)


def final_latents(render: Render, spec, **more) -> torch.Tensor:
    """What the VAE is given, taken from the saved state of the last step."""
    seen: list[torch.Tensor] = []
    render.load(spec.model)
    vae = render.engine._parts.vae
    handle = vae.post_quant_conv.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        render(spec, **more)
    finally:
        handle.remove()
    return torch.cat(seen, 2)


CASES = {
    "t2v": small(),
    "t2v-unguided": small(guidance_high=1.0),
    "i2v": small("wan-tiny-i2v", image=REF),
    "ti2v-text": small("wan-tiny-ti2v"),
    "ti2v-image": small("wan-tiny-ti2v", image=REF),
}


@pytest.mark.parametrize("case", CASES)
def test_our_forward_gives_the_latents_of_diffusers(case, own, render):
    ours = final_latents(own, CASES[case])

    plain = final_latents(render, CASES[case])

    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_a_prompts_keys_and_values_are_forgotten_with_its_job(own):
    own(small())

    texts = [expert.forward._texts for expert in own.engine._parts.experts.values()]

    assert [len(kept) for kept in texts] == [0, 0]


def test_both_branches_of_a_step_share_the_first_blocks_self_attention(own):
    own.load("wan-tiny-ti2v")
    first, second = blocks_of(own.engine._parts.high).inner[:2]
    calls = Counter()
    handles = [
        block.attn1.to_q.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, block in (("first", first), ("second", second))
    ]

    own(small("wan-tiny-ti2v", steps=5))

    for handle in handles:
        handle.remove()
    assert calls == {"first": 5 + 1, "second": 2 * 5}  # a job's first step does not know of two


def test_a_gpu_that_is_not_here_is_refused_by_name(tmp_path):
    with pytest.raises(EngineFault, match=r"The device is cuda:99, .* GPUs here. Set WANFARM_DEV"):
        Engine(Seat(0, 1, tmp_path / "rendezvous", "cuda:99", threads=1))


@pytest.mark.parametrize("precision", ["fp8", "fp8_attn"])
def test_fp8_on_the_cpu_is_refused_by_name(models, own, precision):
    with pytest.raises(EngineFault) as refused:
        own.anew().load(models / "wan-tiny-t2v", ALONE, Build(precision=precision))

    assert refused.value.kind is FailureKind.BAD_INPUT
    assert precision in refused.value.message


def test_another_attention_for_the_reference_is_refused_by_name(models, own):
    build = Build(attention="flash")

    with pytest.raises(EngineFault, match="'flash' was asked for with precision reference"):
        own.anew().load(models / "wan-tiny-t2v", ALONE, build)


def test_a_report_tells_what_made_the_video(own):
    _, report = own(small())

    assert report.build["precision"] == "bf16"
    assert report.build["attention"] == "native"
    assert len(report.build["weights"]) == 64


def test_an_attention_that_is_not_here_is_refused_by_name(models, own):
    with pytest.raises(EngineFault, match="'fa3' cannot be used: fa3 does not run here"):
        own.anew().load(models / "wan-tiny-t2v", ALONE, OWN.model_copy(update={"attention": "fa3"}))
