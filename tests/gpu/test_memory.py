"""On a GPU: the same bits from parts in CPU memory, and peaks as they were predicted."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from bench.real_size import vae
from mini.build import pipeline
from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.memory import CONTEXT_BYTES, peak_bytes
from shared.vocabulary.plan import Build, ParallelPlan, Precision, Residency
from tests.engine.rendering import Render, small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]

FLAGS = ("text_encoder", "experts", "vae", "layerwise")
STREAMED = Residency(experts=True, vae=True, layerwise=True)
EVERY = Residency(**dict.fromkeys(FLAGS, True))
BUILDS = {"reference": Build(), "bf16": Build(precision="bf16")}


@pytest.fixture(scope="module", params=BUILDS)
def build(request) -> Build:
    return BUILDS[request.param]


@pytest.fixture(scope="module")
def cuda(models, picture, tmp_path_factory, build) -> Render:
    return Render(models, picture, tmp_path_factory.mktemp("cuda"), "cuda:0", build)


def placed(residency: Residency) -> ParallelPlan:
    return ParallelPlan(ranks=1, residency=residency)


@pytest.mark.parametrize("flag", [*FLAGS, "all"])
def test_parts_in_cpu_memory_give_the_same_bits(cuda, flag):
    residency = EVERY if flag == "all" else Residency(**{flag: True})
    spec = small(prompt=f"a ball, {flag}", steps=8)

    _, away = cuda(spec, plan=placed(residency))

    _, here = cuda(spec)
    assert away.latents_sha256 == here.latents_sha256


def test_nothing_is_on_the_device_between_two_jobs_with_all_parts_away(cuda):
    cuda(small(), plan=placed(EVERY))
    away = torch.cuda.memory_allocated()

    cuda(small())

    parts = cuda.engine._parts.modules.values()
    weights = sum(tensor.nbytes for part in parts for tensor in part.parameters())
    assert torch.cuda.memory_allocated() - away > 0.9 * weights


@dataclass(frozen=True, slots=True)
class Slice:
    """A checkpoint of real width with few layers: memory grows with layers as arithmetic says."""

    model: str
    family: str
    blocks: int
    transformer: dict
    vae_channels: int

    def missing(self, residency: Residency, precision: Precision) -> float:
        """Bytes on the device that a real checkpoint has on top."""
        card = MODELS[self.model]
        square, wide = card.width**2, card.width * card.ffn
        block = 2 * (8 * square + 2 * wide)
        if precision.startswith("fp8"):
            block -= 6 * square + 2 * wide
        kept = 0 if precision == "reference" else 2 * 2 * 512 * card.width * 2  # keys and values
        each = kept + (0 if residency.layerwise else block)
        blocks = (card.blocks - self.blocks) * card.experts
        return 2 * (card.text_parameters - TEXT_PARAMETERS) + blocks * each


SLICES = [
    Slice("wan2.2-t2v-a14b", "a14b", 3, {"num_attention_heads": 40, "ffn_dim": 13824}, 16),
    Slice("wan2.2-ti2v-5b", "5b", 3, {"num_attention_heads": 24, "ffn_dim": 14336}, 48),
]
TEXT = UMT5Config(
    vocab_size=128, d_model=4096, d_kv=64, d_ff=10240, num_layers=1, num_heads=64,
    feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
)  # fmt: skip
TEXT_PARAMETERS = 193_000_000


def write(sliced: Slice, folder: Path) -> None:
    def drawn(kind, *config, **more):
        with torch.device("cuda"):
            return kind(*config, **more).to(torch.bfloat16).eval()

    def expert() -> WanTransformer3DModel:
        channels = {"in_channels": sliced.vae_channels, "out_channels": sliced.vae_channels}
        config = sliced.transformer | channels | {"num_layers": sliced.blocks, "text_dim": 4096}
        return drawn(WanTransformer3DModel, **config)

    card = MODELS[sliced.model]
    mini = pipeline(MODELS["wan-tiny-t2v"])
    decoder: AutoencoderKLWan = vae(sliced.family)
    WanPipeline(
        tokenizer=mini.tokenizer,
        text_encoder=drawn(UMT5EncoderModel, TEXT),
        vae=decoder,
        scheduler=mini.scheduler,
        transformer=expert(),
        transformer_2=expert() if card.experts > 1 else None,
        boundary_ratio=card.boundary,
        expand_timesteps=card.expand_timesteps,
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=SLICES, ids=lambda sliced: sliced.family)
def sliced(request, tmp_path_factory) -> tuple[Slice, Path]:
    models = tmp_path_factory.mktemp("slices")
    write(request.param, models / MODELS[request.param.model].directory)
    torch.cuda.empty_cache()
    return request.param, models


POLICY = CachePolicy(warmup=1, taylorseer=True, min_steps=0)


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("residency", [Residency(), STREAMED], ids=["here", "streamed"])
def test_the_peak_is_within_a_tenth_of_the_prediction(
    sliced, picture, tmp_path, record_property, residency, cached, precision
):
    one, models = sliced
    build = Build(precision=precision)
    card = MODELS[one.model]
    low = POLICY if card.experts > 1 else None
    cache = CachePolicies(high=POLICY, low=low) if cached else None
    size = card.native_sizes[-1 if one.family == "5b" else 2]
    spec = small(
        one.model, width=size.width, height=size.height, frames=card.frames, steps=4,
        prompt="a " * 600, negative_prompt="no " * 600,
    )  # fmt: skip
    gc.collect()  # engines of earlier tests
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    render = Render(models, picture, tmp_path, "cuda:0", build)

    _, report = render(spec, plan=placed(residency), cache=cache)
    render.engine.close()

    predicted = peak_bytes(spec, placed(residency), build, cache) - CONTEXT_BYTES
    measured = report.peak_memory_bytes - before + one.missing(residency, precision)
    record_property("peak", {"measured": measured, "predicted": predicted})
    assert measured == pytest.approx(predicted, rel=0.1)
