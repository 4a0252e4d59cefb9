"""LoRAs in a request: checked by name, family and expert; the four-step preset; the directory."""

import json
import struct
from pathlib import Path

import pytest

from shared.machinery.loras import Loras, rank_of
from shared.vocabulary.adapters import Adapter
from shared.vocabulary.errors import RequestRejected
from shared.vocabulary.request import Overrides
from shared.vocabulary.resolve import Resolved, resolve

T2V, FIVE = "wan2.2-t2v-a14b", "wan2.2-ti2v-5b"
BOTH = frozenset({"high", "low"})
HERE = {
    one.name: one
    for one in (
        Adapter("film-grain", "wan2.2-a14b", BOTH, distilled=False),
        Adapter("arcane", None, frozenset({"low"}), distilled=False),
        Adapter("small", "wan2.2-5b", BOTH, distilled=False),
        Adapter("fast", "wan2.2-a14b", BOTH, distilled=True),
        Adapter(f"{T2V}-distill4", "wan2.2-a14b", BOTH, distilled=True),
    )
}


def settle(**fields) -> Resolved:
    request = Overrides.model_validate({"prompt": "a boat"} | fields)
    return resolve(request, default_text_model=T2V, default_image_model=T2V, adapters=HERE)


def test_adapters_stand_in_the_spec_as_they_were_asked_for():
    asked = [{"name": "film-grain", "strength": 0.8}, {"name": "arcane", "target": "low"}]

    resolved = settle(loras=asked)

    refs = [ref.model_dump() for ref in resolved.spec.loras]
    assert refs == [asked[0] | {"target": "both"}, asked[1] | {"strength": 1.0}]
    assert resolved.warnings == ()


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"loras": [{"name": "film-grian"}]}, "lora_not_found", "Did you mean 'film-grain'?"),
        ({"loras": [{"name": "xyz"}]}, "lora_not_found", "GET /v1/loras lists them."),
        ({"loras": [{"name": "small"}]}, "lora_mismatch", "is made for wan2.2-5b"),
        (
            {"loras": [{"name": "arcane"}]},
            "lora_mismatch",
            "expert 'high'. Set target to 'low'",
        ),
        ({"loras": [{"name": "arcane", "target": "high"}]}, "lora_mismatch", "expert 'high'"),
        (
            {"loras": [{"name": "small", "target": "low"}], "model": FIVE},
            "lora_mismatch",
            "has one expert. Leave target out",
        ),
        (
            {"loras": [{"name": "fast"}, {"name": "fast", "target": "low"}]},
            "conflicting_fields",
            "twice for one expert",
        ),
        (
            {"quality": "distill4", "model": FIVE},
            "lora_not_found",
            "pair 'wan2.2-ti2v-5b-distill4'",
        ),
    ],
    ids=["near", "far", "family", "half", "target", "one-expert", "twice", "preset"],
)
def test_an_adapter_that_cannot_be_worn_is_refused_by_name(fields, code, words):
    with pytest.raises(RequestRejected) as refused:
        settle(**fields)

    fault = refused.value.faults[0]
    assert fault.code == code
    assert words in fault.message
    assert len(fault.message) <= 300


def test_one_adapter_may_have_another_strength_for_each_expert():
    entries = [{"name": "fast", "strength": n, "target": t} for n, t in ((1, "high"), (0.5, "low"))]

    assert len(settle(loras=entries, guidance_scale=1).spec.loras) == 2


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({}, ["guidance_with_distilled"]),
        ({"guidance_scale": 1.5}, ["guidance_with_distilled"]),
        ({"guidance_scale": 1}, []),
    ],
    ids=["default", "above-1", "off"],
)
def test_guidance_with_a_distilled_adapter_is_warned_of(fields, codes):
    resolved = settle(loras=[{"name": "fast"}], **fields)

    assert [warning["code"] for warning in resolved.warnings] == codes


def test_distill4_is_four_steps_without_guidance_and_its_pair():
    resolved = settle(quality="distill4")

    spec = resolved.spec
    assert (spec.steps, spec.sigmas) == (4, (1.0, 0.75, 0.5, 0.25))
    assert (spec.guidance_high, spec.guidance_low, spec.sampler) == (1.0, 1.0, "euler")
    assert (spec.shift, spec.cache) == (5.0, "off")
    assert [ref.name for ref in spec.loras] == [f"{T2V}-distill4"]
    assert (resolved.warnings, resolved.asked) == ((), ("prompt", "quality"))


def test_what_a_request_says_beats_distill4():
    pair = {"name": f"{T2V}-distill4", "strength": 0.9}

    spec = settle(
        quality="distill4", steps=8, shift=8, loras=[{"name": "film-grain"}, pair], cache="fast"
    ).spec

    assert (spec.steps, spec.sigmas, spec.shift, spec.cache) == (8, None, 8, "fast")
    assert [(ref.name, ref.strength) for ref in spec.loras] == [
        ("film-grain", 1.0),
        (pair["name"], 0.9),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a pair, a single file, and things that are no adapters."""
    for name in ("pair/high", "pair/low", "lone/any-name", "two/a", "two/b", "Bad Name/high"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        header = {"k.lora_down.weight": {"dtype": "F32", "shape": [16, 2], "data_offsets": [0, 0]}}
        text = json.dumps({"__metadata__": {"a": "b"}} | header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text)
    card = {"family": "wan2.2-a14b", "distilled": True, "trigger": "Nfj1nx", "note": "mine"}
    (tmp_path / "pair" / "lora.json").write_text(json.dumps(card))
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "high.safetensors").touch()
    (tmp_path / "torn" / "lora.json").write_text("{")
    return tmp_path


def test_a_directory_with_weights_is_an_adapter(folder):
    loras = Loras(folder)

    assert list(loras) == ["lone", "pair"]
    assert loras["pair"] == Adapter("pair", "wan2.2-a14b", BOTH, distilled=True)
    assert loras["lone"] == Adapter("lone", None, BOTH, distilled=False)
    assert loras.find("pair").card.trigger == "Nfj1nx"
    assert loras.find("lone").file("low") == folder / "lone" / "any-name.safetensors"
    assert loras.find("pair").file("low") == folder / "pair" / "low.safetensors"


@pytest.mark.parametrize("name", ["../pair", "pair/../pair", "", ".", "none", "empty"])
def test_a_name_reaches_nothing_else(folder, name):
    assert Loras(folder / "pair").get(name) is None
    assert name not in Loras(folder)


def test_a_directory_that_is_not_there_holds_no_adapters(tmp_path):
    assert list(Loras(tmp_path / "none")) == []


def test_a_file_is_hashed_again_only_when_it_has_changed(folder):
    loras, path = Loras(folder), folder / "pair" / "low.safetensors"
    assert loras.sha256(path, known_only=True) is None

    first = loras.sha256(path)

    assert loras.sha256(path, known_only=True) == first
    path.write_bytes(b"another")
    assert loras.sha256(path, known_only=True) is None
    assert loras.sha256(path) != first


def test_the_rank_is_read_off_the_header(folder):
    assert rank_of(folder / "pair" / "high.safetensors") == 16
    assert rank_of(folder / "torn" / "high.safetensors") is None
