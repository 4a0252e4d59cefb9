"""Adapters: merged as the referees merge them, routed by target, gone after the job to the bit."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor

from shared.vocabulary.plan import Build, ParallelPlan, Residency
from shared.vocabulary.spec import FailureKind
from tests.engine.adapters import (
    LAYERS,
    LAYOUTS,
    RANK,
    diffusers_keys,
    kohya_keys,
    lora,
    original_keys,
    pairs,
    saved,
)
from tests.engine.ranks import Group, job
from tests.engine.rendering import Render, small
from worker.engine.contract import Cancelled, LoraFiles
from worker.engine.faults import EngineFault
from worker.engine.kernels.precision import Linear8, lower_block, lowered
from worker.engine.model.lora import Adapters
from worker.engine.model.originals import Originals
from worker.ranks.messages import Lora


@pytest.fixture
def bare(models: Path) -> dict[str, WanTransformer3DModel]:
    """Both experts, as diffusers loads them."""
    folders = {"high": "transformer", "low": "transformer_2"}
    return {
        name: WanTransformer3DModel.from_pretrained(models / "wan-tiny-t2v" / folder)
        for name, folder in folders.items()
    }


@pytest.fixture
def adapters(bare, models) -> Adapters:
    return worn_by(bare, models)


def worn_by(experts, models) -> Adapters:
    originals = Originals(models / "wan-tiny-t2v", torch.float32)
    return Adapters(experts, torch.device("cpu"), originals, pin=False)


def weights(transformer: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in transformer.named_parameters()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strength", [1.0, -0.5, 0.0], ids=str)
def test_every_layout_adds_strength_times_b_times_a(adapters, bare, tmp_path, layout, strength):
    made = pairs()
    path = saved(tmp_path / "a.safetensors", LAYOUTS[layout](made))
    own = weights(bare["high"])

    adapters.wear((lora(path, strength=strength),))

    now = weights(bare["high"])
    for name in own:
        a, b = made.get(name.removesuffix(".weight"), (None, None))
        change = 0 if a is None else strength * (b @ a)
        torch.testing.assert_close(now[name], own[name] + change, rtol=0, atol=1e-6)


def test_the_merge_is_the_one_of_peft(models, adapters, bare, tmp_path):
    pipeline = WanPipeline.from_pretrained(models / "wan-tiny-t2v")
    path = saved(tmp_path / "a.safetensors", original_keys(pairs()))
    pipeline.load_lora_weights(str(path), adapter_name="style")
    pipeline.set_adapters(["style"], [0.7])
    pipeline.fuse_lora(components=["transformer"])
    pipeline.unload_lora_weights()

    adapters.wear((lora(path, strength=0.7, target="high"),))

    now, fused = weights(bare["high"]), weights(pipeline.transformer)
    assert now.keys() == fused.keys()
    for name in now:
        torch.testing.assert_close(now[name], fused[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "metadata"),
    [
        (lambda made: kohya_keys(made, alpha=RANK / 2), None),
        (diffusers_keys, {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 2})}),
    ],
    ids=["alpha-keys", "metadata"],
)
def test_alpha_over_rank_scales_the_change(adapters, bare, tmp_path, keys, metadata):
    own, made = weights(bare["low"]), pairs()

    adapters.wear((lora(saved(tmp_path / "a.safetensors", keys(made), metadata)),))

    a, b = made[LAYERS[3]]
    name = f"{LAYERS[3]}.weight"
    now = weights(bare["low"])[name]
    torch.testing.assert_close(now, own[name] + 0.5 * (b @ a), rtol=0, atol=1e-6)


PLAIN = {
    "blocks.2.cross_attn.k.diff_b": "blocks.2.attn2.to_k.bias",
    "blocks.2.attn1.to_v.lora_B.bias": "blocks.2.attn1.to_v.bias",
    "blocks.4.norm3.diff": "blocks.4.norm2.weight",
    "blocks.4.self_attn.norm_k.diff": "blocks.4.attn1.norm_k.weight",
    "blocks.1.modulation.diff": "blocks.1.scale_shift_table",
    "head.modulation.diff": "scale_shift_table",
    "head.head.diff": "proj_out.weight",
    "patch_embedding.diff_b": "patch_embedding.bias",
    "time_projection.1.diff_b": "condition_embedder.time_proj.bias",
    "text_embedding.2.diff": "condition_embedder.text_embedder.linear_2.weight",
}


def test_biases_norms_and_tables_are_changed_too(adapters, bare, tmp_path):
    own = weights(bare["high"])
    keys = {f"diffusion_model.{key}": torch.randn_like(own[home]) for key, home in PLAIN.items()}
    path = saved(tmp_path / "a.safetensors", keys)

    adapters.wear((lora(path, strength=2.0),))

    now = weights(bare["high"])
    assert {name for name in own if not torch.equal(own[name], now[name])} == {*PLAIN.values()}
    for key, home in PLAIN.items():
        change = 2 * keys[f"diffusion_model.{key}"]
        torch.testing.assert_close(now[home], own[home] + change, rtol=0, atol=1e-6)


def test_half_precision_weights_are_rounded_once(adapters, bare, tmp_path):
    made = [pairs(1), pairs(2)]
    paths = [saved(tmp_path / f"{i}.safetensors", diffusers_keys(m)) for i, m in enumerate(made)]
    high = bare["high"].to(torch.bfloat16)
    own = weights(high)

    adapters.wear(tuple(lora(path, name=path.stem) for path in paths))

    now = weights(high)
    for layer in LAYERS:
        (a, b), (c, d) = (m[layer] for m in made)
        exact = own[f"{layer}.weight"].float() + b @ a + d @ c
        assert torch.equal(now[f"{layer}.weight"], exact.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("target", "changed"),
    [("both", {"high", "low"}), ("high", {"high"}), ("low", {"low"})],
)
def test_the_target_decides_which_expert_changes(adapters, bare, tmp_path, target, changed):
    own = {name: weights(expert) for name, expert in bare.items()}
    high = saved(tmp_path / "high.safetensors", diffusers_keys(pairs(1)))
    low = saved(tmp_path / "low.safetensors", diffusers_keys(pairs(2)))

    adapters.wear((lora(high, low, target=target),))

    assert {name for name in bare if not equal(own[name], weights(bare[name]))} == changed
    assert adapters.hashes["style"].keys() == changed


def test_nothing_is_left_after_other_adapters_were_worn(adapters, bare, tmp_path):
    own = {name: weights(expert) for name, expert in bare.items()}
    paths = [saved(tmp_path / f"{n}.safetensors", kohya_keys(pairs(n), alpha=3)) for n in range(3)]
    first, second, third = (lora(path, name=f"n{n}") for n, path in enumerate(paths))
    adapters.wear((third,))
    alone = weights(bare["high"])

    adapters.wear((first, second))
    adapters.wear((third,))

    assert equal(weights(bare["high"]), alone)
    adapters.wear(())
    assert all(equal(own[name], weights(bare[name])) for name in bare)


def test_fp8_weights_are_lowered_anew_from_what_the_checkpoint_has(bare, models, tmp_path):
    exact, made = weights(bare["high"]), pairs()
    for block in bare["high"].blocks:
        lower_block(block, torch.device("cpu"))
    adapters = worn_by(bare, models)
    layers = [module for module in bare["high"].modules() if isinstance(module, Linear8)]
    own = [(layer.weight.clone(), layer.scale.clone()) for layer in layers]
    path = saved(tmp_path / "a.safetensors", original_keys(made))

    adapters.wear((lora(path, strength=0.01, target="high"),))

    layer = bare["high"].blocks[3].ffn.net[2]
    a, b = made["blocks.3.ffn.net.2"]
    weight, scale = lowered(exact["blocks.3.ffn.net.2.weight"] + 0.01 * (b @ a))
    assert torch.equal(layer.weight.float(), weight.float())
    assert torch.equal(layer.scale, scale)
    adapters.wear(())
    for layer, (weight, scale) in zip(layers, own, strict=True):
        assert torch.equal(layer.weight.float(), weight.float())
        assert torch.equal(layer.scale, scale)


def test_the_same_adapters_are_merged_once_and_a_new_file_again(adapters, bare, tmp_path):
    weight = bare["high"].blocks[0].attn1.to_q.weight
    path = saved(tmp_path / "a.safetensors", kohya_keys(pairs(1)))
    adapters.wear((lora(path),))
    written = weight._version

    adapters.wear((lora(path),))

    assert weight._version == written
    before = adapters.hashes["style"]["high"]
    saved(path, kohya_keys(pairs(2)))
    adapters.wear((lora(path),))
    assert weight._version > written
    assert adapters.hashes["style"]["high"] != before


def with_key(name: str, *shape: int):
    return lambda: kohya_keys(pairs()) | {name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (with_key("lora_unet_blocks_9_ffn_0.lora_up.weight", 4, 4), "blocks_9_ffn_0.lora_up"),
        (with_key("lora_te_encoder.lora_up.weight", 4, 4), "lora_te_encoder.lora_up.weight"),
        (with_key("blocks.0.attn1.to_q.lokr_w1", 4, 4), "blocks.0.attn1.to_q.lokr_w1"),
        (with_key("lora_unet_blocks_0_ffn_2.dora_scale", 48), "DoRA scale 'lora_unet_blocks_0"),
        (with_key("blocks.0.attn1.to_k.lora_A.weight", 4, 48), "half of a pair: 'blocks.0"),
        (with_key("blocks.0.attn1.to_k.alpha"), "half of a pair: 'blocks.0.attn1.to_k.alpha'"),
        (with_key("blocks.0.norm2.diff", 47), r"'blocks.0.norm2.diff' in a shape \[47\]"),
        (with_key("blocks.0.modulation.diff_b", 48), "'blocks.0.modulation.diff_b'"),
        (
            with_key("lora_unet_blocks_0_self_attn_q.lora_down.weight", RANK, 40),
            r"blocks_0_self_attn_q.lora_down.weight' in a shape \[4, 40\]",
        ),
        (
            with_key("lora_unet_blocks_0_self_attn_q.lora_up.weight", 48, 3),
            r"blocks_0_self_attn_q.lora_up.weight' in a shape \[48, 3\]",
        ),
        (dict, "holds no weights"),
    ],
    ids=["block", "encoder", "lokr", "dora", "half", "alpha", "diff", "bias", "down", "up", "none"],
)
def test_a_key_that_cannot_be_merged_is_named(adapters, bare, tmp_path, keys, words):
    own = weights(bare["low"])
    good = saved(tmp_path / "good.safetensors", kohya_keys(pairs()))
    bad = saved(tmp_path / "bad.safetensors", keys())
    adapters.wear((lora(good),))

    with pytest.raises(EngineFault, match=words) as fault:
        adapters.wear((lora(good), lora(bad, name="other")))

    assert fault.value.kind is FailureKind.BAD_LORA
    assert "LoRA 'other'" in fault.value.message
    assert len(fault.value.message) <= 300
    assert equal(own, weights(bare["low"]))
    assert adapters.hashes == {}


@pytest.mark.parametrize("content", [None, b"no safetensors"], ids=["missing", "torn"])
def test_a_missing_or_torn_file_is_told_without_its_path(adapters, tmp_path, content):
    path = tmp_path / "a.safetensors"
    if content:
        path.write_bytes(content)

    with pytest.raises(EngineFault, match="LoRA 'style' has") as fault:
        adapters.wear((lora(path),))

    assert fault.value.kind is FailureKind.BAD_LORA
    assert str(tmp_path) not in fault.value.message


@pytest.fixture
def style(tmp_path: Path) -> LoraFiles:
    return lora(saved(tmp_path / "style.safetensors", kohya_keys(pairs(5))))


def test_a_job_after_one_with_an_adapter_equals_a_job_in_a_fresh_engine(render: Render, style):
    plain = render(small())[1]

    dressed = render(small(), loras=(style,))[1]

    assert dressed.latents_sha256 != plain.latents_sha256
    assert dressed.loras["style"].keys() == {"high", "low"}
    assert render(small(), loras=(style,))[1].latents_sha256 == dressed.latents_sha256
    after = render(small())[1]
    assert after.latents_sha256 == plain.latents_sha256
    assert after.loras == {}


def test_our_own_forward_keeps_nothing_of_an_adapter(models, picture, style, tmp_path):
    render = Render(models, picture, tmp_path, build=Build(precision="bf16"))
    hashes = [
        render(small(), loras=loras)[1].latents_sha256 for loras in ((), (style,), (), (style,))
    ]

    assert hashes[0] == hashes[2] != hashes[1] == hashes[3]


@pytest.mark.parametrize("flag", ["experts", "layerwise"])
def test_adapters_are_merged_wherever_an_expert_rests(render: Render, style, flag):
    away = ParallelPlan(ranks=1, residency=Residency(**{flag: True}))
    plain, dressed = (render(small(), loras=loras)[1] for loras in ((), (style,)))

    moved = render(small(), loras=(style,), plan=away)[1]

    assert moved.latents_sha256 == dressed.latents_sha256
    assert render(small(), plan=away)[1].latents_sha256 == plain.latents_sha256
    merged = render(small(), loras=(style,), plan=away)[1]
    assert merged.latents_sha256 == dressed.latents_sha256


def test_an_expert_that_does_not_come_up_wears_nothing_that_shows(render: Render, style):
    plain = render(small(boundary=0.0))[1].latents_sha256

    low = lora(style.high, target="low")

    assert render(small(boundary=0.0), loras=(low,))[1].latents_sha256 == plain


def test_a_one_expert_model_takes_its_one_file(render: Render, style):
    spec = small("wan-tiny-ti2v")
    plain = render(spec)[1].latents_sha256

    dressed = render(spec, loras=(style,))[1]

    assert dressed.latents_sha256 != plain
    assert dressed.loras["style"].keys() == {"single"}


@pytest.mark.parametrize("end", ["cancel", "fault"])
def test_a_job_that_ends_badly_leaves_no_adapter_to_the_next(render: Render, style, end):
    plain = render(small())[1].latents_sha256
    answers = iter([False, False, True])

    if end == "cancel":
        with pytest.raises(Cancelled):
            render(small(), loras=(style,), cancelled=lambda: next(answers))
    else:
        with pytest.raises(EngineFault, match="left the numbers"):
            render(small(guidance_high=20), loras=(exploding(style),))

    assert render(small())[1].latents_sha256 == plain


def exploding(style: LoraFiles) -> LoraFiles:
    keys = load_file(style.high)
    path = style.high.with_name("exploding.safetensors")
    huge = {name: tensor * 1e30 for name, tensor in keys.items()}
    return lora(saved(path, huge), name="exploding")


def test_two_ranks_wear_what_one_wears(models, render: Render, style, tmp_path):
    pair = Group(2, models, tmp_path)
    try:
        pair.hold("wan-tiny-t2v")
        ref = {"name": "style", "strength": 1.0, "target": "both"}
        file = str(style.high)
        order = job(small(), ParallelPlan(ranks=2, cfg=2), tmp_path / "pair.mp4")
        worn = (Lora(ref=ref, high=file, low=file),)

        done = pair.ask(order.model_copy(update={"loras": worn}))

        assert done.report.latents_sha256 == render(small(), loras=(style,))[1].latents_sha256
    finally:
        pair.end()
