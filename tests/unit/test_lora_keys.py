"""What a LoRA file may say of itself: whole or not, for which models, in whose names."""

import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from shared.machinery.headers import shapes_of
from shared.vocabulary.adapters import family_of
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.lora_keys import Misfit, Unusable, homes_of, layers_of
from shared.vocabulary.transformer import parameters_of
from tests.loras import adapter, tensors

A14B, FIVE = (MODELS[name] for name in ("wan2.2-t2v-a14b", "wan2.2-ti2v-5b"))
MOST = 2**20


def pair(place: str, outer: int, inner: int, rank: int = 32) -> dict[str, tuple[int, ...]]:
    return {f"{place}.lora_down.weight": (rank, inner), f"{place}.lora_up.weight": (outer, rank)}


def fit(shapes, model=A14B):
    return layers_of(shapes, homes_of(parameters_of(model)))


@pytest.mark.parametrize(
    "place",
    [
        "blocks.39.attn1.to_q",
        "transformer.blocks.39.attn1.to_q",
        "diffusion_model.blocks.39.self_attn.q",
        "base_model.model.blocks.39.self_attn.q",
        "lora_unet_blocks_39_self_attn_q",
    ],
)
def test_a_layer_is_known_by_all_its_names(place):
    (keys,) = fit(pair(place, 5120, 5120) | {f"{place}.alpha": ()}).values()

    assert keys.keys() == {"down", "up", "alpha"}


@pytest.mark.parametrize(
    ("shapes", "model"),
    [
        (pair("blocks.0.ffn.net.0.proj", 13824, 5120), A14B),
        (pair("blocks.0.ffn.2", 3072, 14336), FIVE),
        (pair("condition_embedder.text_embedder.linear_1", 5120, 4096), A14B),
        (pair("text_embedding.0", 3072, 4096), FIVE),
        ({"patch_embedding.diff": (5120, 36, 1, 2, 2)}, A14B),
        ({"blocks.3.norm3.diff_b": (5120,), "head.modulation.diff": (1, 2, 5120)}, A14B),
    ],
    ids=["ffn", "ffn-5b", "text", "text-5b", "image-channels", "plain"],
)
def test_shapes_are_held_against_the_model(shapes, model):
    fit(shapes, model)

    with pytest.raises(Misfit):
        fit(shapes, FIVE if model is A14B else A14B)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, "holds no weights"),
        ({"blocks.0.attn1.to_q.weight": (5120, 5120)}, "no home"),
        ({"blocks.0.attn1.to_q.dora_scale": (5120,)}, "DoRA"),
        ({"blocks.0.attn1.to_q.lora_A.weight": (4, 5120)}, "half of a pair"),
        (pair("blocks.0.attn1.to_q", 5120, 5120) | {"blocks.0.attn1.to_q.alpha": (2,)}, "alpha"),
    ],
    ids=["empty", "checkpoint", "dora", "half", "alpha"],
)
def test_what_fits_nowhere_is_told_apart_from_what_fits_another(shapes, words):
    with pytest.raises(Unusable, match=words) as found:
        fit(shapes)

    assert not isinstance(found.value, Misfit)


@pytest.mark.parametrize(
    "shapes",
    [
        pair("blocks.40.attn1.to_q", 5120, 5120),
        pair("blocks.0.attn1.to_q", 5120, 5120, rank=0),
        {"blocks.0.attn1.to_q.lora_A.weight": (), "blocks.0.attn1.to_q.lora_B.weight": ()},
        pair("blocks.0.attn1.to_q", 5120, 5120)
        | {"blocks.0.attn1.to_q.lora_up.weight": (5120, 32, 2)},
        {"blocks.0.attn1.norm_q.diff_b": (5120,)},
    ],
    ids=["block", "rank", "scalars", "kernel", "bias"],
)
def test_a_shape_that_cannot_be_merged_is_a_misfit(shapes):
    with pytest.raises(Misfit):
        fit(shapes)


HIGH = {"file_high": {k: v.shape for k, v in tensors().items()}}


@pytest.mark.parametrize(
    ("files", "wanted", "family"),
    [
        ({"file": pair("blocks.0.attn1.to_q", 5120, 5120)}, None, "wan2.2-a14b"),
        ({"file": pair("blocks.0.attn1.to_q", 3072, 3072)}, None, "wan2.2-5b"),
        ({"file": HIGH["file_high"]}, None, None),
        ({"file": HIGH["file_high"]}, "wan-tiny-one", "wan-tiny-one"),
        (HIGH, None, "wan-tiny"),
    ],
    ids=["a14b", "5b", "several", "named", "two-experts"],
)
def test_a_family_is_read_off_the_shapes_where_one_fits(files, wanted, family):
    assert family_of(files, wanted) == family


@pytest.mark.parametrize(
    ("files", "wanted", "words"),
    [
        ({"file": pair("blocks.0.attn1.to_q", 64, 64)}, None, "fits no family"),
        ({"file": pair("blocks.0.attn1.to_q", 64, 64)}, "wan2.2-5b", r"\[32, 64\]"),
        (HIGH, "wan-tiny-one", "one of two experts"),
    ],
    ids=["nobody", "not-this", "one-expert"],
)
def test_a_family_that_does_not_fit_is_refused(files, wanted, words):
    with pytest.raises(WanfarmError, match=words) as refused:
        family_of(files, wanted)

    assert (refused.value.code, refused.value.param) == ("lora_mismatch", next(iter(files)))
    assert len(refused.value.message) <= 300


def with_header(text: bytes, tensors: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + tensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def test_a_whole_file_tells_its_shapes(path):
    content = tensors() | {"half": np.zeros((2, 0), np.float16), "one": np.array(1.0)}
    path.write_bytes(save(content, {"note": "mine"}))

    assert shapes_of(path, most=MOST) == {name: one.shape for name, one in content.items()}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        adapter()[:-1],
        adapter() + b"\0",
        adapter().replace(b'"F32"', b'"F16"', 1),
        adapter().replace(b'"F32"', b'"F99"', 1),
        adapter().replace(b"[4,48]", b"[48,4.]"),
        struct.pack("<Q", MOST + 1) + bytes(100),
        struct.pack("<Q", 2**63) + b"{}",
        with_header(b"[]"),
        with_header(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}'),
        with_header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', bytes(8)),
        with_header(b'{"a":' * 5000),
        with_header(b"\xff\xff"),
    ],
    ids=[
        "empty", "short", "torn", "longer", "dtype", "unknown-dtype", "fraction", "header-too-long",
        "no-header", "list", "negative", "hole", "deep", "no-text",
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_refused(path, content):
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"^(does not begin|has a header|has \d+ bytes|gives)"):
        shapes_of(path, most=MOST)
