"""LoRAs over HTTP: what the farm has, and what a request may name."""

import hashlib
import json
import re
import struct
from pathlib import Path

import pytest

from api.app import close, create_app
from shared.machinery.settings import Settings
from tests.api.callers import Caller


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One pair of adapters for the miniatures."""
    folder = tmp_path / "loras" / "film-grain"
    folder.mkdir(parents=True)
    header = {"k.lora_down.weight": {"dtype": "F32", "shape": [8, 2], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    for part in ("high", "low"):
        (folder / f"{part}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    (folder / "lora.json").write_text(json.dumps({"family": "wan-tiny", "source": "a friend"}))
    return folder.parent


@pytest.fixture
def settings(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"lora_dir": folder})


def test_the_farm_lists_its_adapters_and_hashes_the_one_that_is_looked_at(api: Caller, folder):
    listed = api.get("/v1/loras").json["data"]

    shown = api.get("/v1/loras/film-grain").json
    digest = hashlib.sha256((folder / "film-grain" / "low.safetensors").read_bytes()).hexdigest()
    assert shown["experts"]["low"] == {"sha256": digest, "rank": 8}
    assert (shown["family"], shown["source"]) == ("wan-tiny", "a friend")
    assert [one["name"] for one in listed] == ["film-grain"]
    assert listed[0]["experts"]["low"] == {"sha256": None, "rank": 8}
    assert api.get("/v1/loras").json["data"] == [shown]


def test_an_adapter_that_is_not_there_is_not_found(api: Caller):
    answer = api.get("/v1/loras/none")

    assert (answer.status_code, answer.json["error"]["code"]) == (404, "lora_not_found")


def test_a_video_keeps_its_adapters_and_a_remix_too(api: Caller):
    asked = {"name": "film-grain", "strength": 0.5, "target": "high"}

    made = api.make(loras=[asked])

    assert made["spec"]["loras"] == [asked]
    remix = api.post(f"/v1/videos/{made['id']}/remix", json={"seed": 5}).json
    assert remix["spec"]["loras"] == [asked]


def test_a_form_may_bring_adapters_as_bracket_keys(api: Caller):
    fields = {"prompt": "a boat", "loras[0][name]": "film-grain", "loras[0][strength]": "0.5"}

    made = api.post("/v1/videos", data=fields).json

    assert made["spec"]["loras"][0]["strength"] == 0.5


@pytest.mark.parametrize(
    "sent",
    [
        {"lora": {"name": "film-grain", "scale": 0.5}},
        {"loras": [{"name": "film-grain", "scale": 0.5}]},
        {"extra_body": {"lora": {"name": "film-grain", "strength": 0.5}}},
    ],
    ids=["one", "scale", "wrapped"],
)
def test_the_names_of_other_dialects_are_understood(api: Caller, sent):
    assert api.make(**sent)["spec"]["loras"] == [
        {"name": "film-grain", "strength": 0.5, "target": "both"}
    ]


def test_lora_and_loras_together_conflict(api: Caller):
    fields = {"prompt": "a boat", "lora": {"name": "a"}, "loras": [{"name": "b"}]}

    assert api.post("/v1/videos", json=fields).json["error"]["code"] == "conflicting_fields"


@pytest.mark.parametrize(
    ("lora", "code", "words"),
    [
        ({"name": "film-grian"}, "lora_not_found", "Did you mean 'film-grain'?"),
        ({"name": "film-grain", "target": "mid"}, "invalid_value", "loras.0.target is 'mid'"),
        ({"name": "../film-grain"}, "invalid_value", "loras.0.name is '../film-grain'"),
        ({"name": "film-grain", "strength": 5}, "invalid_value", "at most 4"),
        ({"name": "film-grain", "scale": 1, "strength": 1}, "unknown_field", "loras.0.scale"),
        ({"name": "film-grain", "path": "/a"}, "unknown_field", "loras.0.path"),
    ],
    ids=["unknown", "target", "traversal", "strength", "both-names", "path"],
)
def test_a_wrong_adapter_is_refused(api: Caller, lora, code, words):
    answer = api.post("/v1/videos", json={"prompt": "a boat", "loras": [lora]})

    assert (answer.status_code, answer.json["error"]["code"]) == (400, code)
    assert words in answer.json["error"]["message"]


def test_an_adapter_of_another_family_is_refused(api: Caller):
    fields = {"prompt": "a boat", "model": "wan-tiny-ti2v", "loras": [{"name": "film-grain"}]}

    error = api.post("/v1/videos", json=fields).json["error"]

    assert (error["code"], error["param"]) == ("lora_mismatch", "loras")


def test_a_remix_turns_to_distill4_and_back(folder: Path, api: Caller):
    (folder / "film-grain").rename(folder / "wan-tiny-t2v-distill4")
    slow = api.make(guidance_scale=6, loras=[])

    fast = api.post(f"/v1/videos/{slow['id']}/remix", json={"quality": "distill4"}).json

    assert (fast["quality"], fast["spec"]["steps"], fast["spec"]["guidance_high"]) == (
        "distill4", 4, 1.0,
    )  # fmt: skip
    again = api.post(f"/v1/videos/{fast['id']}/remix", json={"quality": "high"}).json
    assert (again["quality"], again["spec"]["steps"], again["spec"]["loras"]) == ("high", 20, [])
    assert (again["spec"]["guidance_high"], again["spec"]["sampler"]) == (4.0, "unipc")


def test_the_form_for_a_new_video_brings_the_adapters_of_the_job_it_starts_from(
    settings: Settings, api: Caller
):
    asked = {"name": "film-grain", "strength": 0.5, "target": "high"}
    video_id = api.make(loras=[asked])["id"]
    app = create_app(settings.model_copy(update={"auth": "none"}))

    page = app.test_client().get(f"/new?from={video_id}").text

    close(app)
    row = re.search(r'<div class="lora">(.*?)</div>', page, re.DOTALL)
    assert row
    assert re.findall(r"<option selected>(.*?)</option>", row[1]) == ["film-grain", "high"]
    assert 'name="loras[0][strength]"' in row[1]
    assert 'value="0.5"' in row[1]
