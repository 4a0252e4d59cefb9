"""LoRAs that come and go over HTTP: whole or not at all, and only what can be merged."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.numpy import save

from api.app import close, create_app
from tests.api.callers import Caller, caller_of, form
from tests.loras import adapter, tensors

FILE = adapter()
CHECKPOINT = save({"blocks.0.attn1.to_q.weight": tensors()["blocks.0.attn1.to_q.lora_A.weight"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "loras"


@pytest.fixture
def settings(settings, folder):
    return settings.model_copy(update={"lora_dir": folder, "max_lora_bytes": 40 * 2**20})


def sent(caller: Caller, **parts: bytes | str):
    """Upload; bytes go as file parts, an adapter named `style` unless it is said otherwise."""
    named = {"name": "style"} | parts
    return caller.post("/v1/loras", **form(**{n: part for n, part in named.items() if part != ""}))


def code_of(answer) -> tuple:
    error = answer.json["error"]
    assert len(error["message"]) <= 300
    return answer.status_code, error["code"], error["param"]


def test_an_uploaded_pair_is_listed_and_worn(admin: Caller, api: Caller, folder):
    low = adapter(blocks__0__norm3__diff=(48,))

    made = sent(admin, file_high=FILE, file_low=low, title="Korn, grob", trigger="grainy").json

    assert (made["name"], made["family"], made["source"]) == ("style", "wan-tiny", "upload")
    assert (made["title"], made["trigger"], made["distilled"]) == ("Korn, grob", "grainy", False)
    assert made["experts"] == {
        expert: {"sha256": hashlib.sha256(content).hexdigest(), "rank": 4}
        for expert, content in (("high", FILE), ("low", low))
    }
    assert made["bytes"] == len(FILE) + len(low)
    assert api.get("/v1/loras/style").json == made
    assert api.make(loras=[{"name": "style"}])["spec"]["loras"][0]["name"] == "style"
    assert [path.name for path in folder.iterdir()] == ["style"]


def test_one_file_serves_every_expert(admin: Caller, folder):
    made = sent(admin, file=FILE, family="wan-tiny-one", distilled="true", source="a friend").json

    assert (made["family"], made["distilled"], made["source"]) == ("wan-tiny-one", True, "a friend")
    assert made["experts"].keys() == {"single"}
    card = json.loads((folder / "style" / "lora.json").read_text())
    assert card == {"family": "wan-tiny-one", "source": "a friend", "distilled": True}


def test_half_a_pair_is_an_adapter_for_one_expert(admin: Caller, api: Caller):
    assert sent(admin, file_low=FILE).json["experts"].keys() == {"low"}

    wrong = api.post("/v1/videos", json={"prompt": "a boat", "loras": [{"name": "style"}]})
    assert code_of(wrong) == (400, "lora_mismatch", "loras")


def test_an_upload_may_be_larger_than_other_bodies(admin: Caller, settings):
    large = adapter(blocks__0__ffn__2__lora_down__weight=(60_000, 96),
                    blocks__0__ffn__2__lora_up__weight=(48, 60_000))  # fmt: skip

    made = sent(admin, file=large)

    assert made.json["bytes"] == len(large) > settings.max_body_bytes


REFUSED = {
    "no file": ({}, (400, "missing_field", "file")),
    "no name": ({"file": FILE, "name": ""}, (400, "missing_field", "name")),
    "path": ({"file": FILE, "name": "../style"}, (400, "invalid_value", "name")),
    "dots": ({"file": FILE, "name": "a..b"}, (400, "invalid_value", "name")),
    "hidden": ({"file": FILE, "name": ".part"}, (400, "invalid_value", "name")),
    "capital": ({"file": FILE, "name": "Style"}, (400, "invalid_value", "name")),
    "long": ({"file": FILE, "name": "a" * 65}, (400, "invalid_value", "name")),
    "server path": ({"file": "/etc/passwd"}, (400, "invalid_value", "file")),
    "both kinds": ({"file": FILE, "file_low": FILE}, (400, "conflicting_fields", "file")),
    "unknown file": ({"file": FILE, "weights": FILE}, (400, "unknown_field", "weights")),
    "unknown field": ({"file": FILE, "triger": "a"}, (400, "unknown_field", "triger")),
    "unknown family": ({"file": FILE, "family": "sdxl"}, (400, "invalid_value", "family")),
    "NUL": ({"file": FILE, "title": "a\0"}, (400, "invalid_value", "title")),
    "empty": ({"file": b""}, (400, "invalid_lora", "file")),
    "torn": ({"file_high": FILE, "file_low": FILE[:-1]}, (400, "invalid_lora", "file_low")),
    "pickle": ({"file": b"\x80\x04}\x94." * 99}, (400, "invalid_lora", "file")),
    "checkpoint": ({"file": CHECKPOINT}, (400, "invalid_lora", "file")),
    "other model": (
        {"file": FILE, "family": "wan2.2-a14b"},
        (400, "lora_mismatch", "file"),
    ),
    "one expert": (
        {"file_high": FILE, "family": "wan-tiny-one"},
        (400, "lora_mismatch", "file_high"),
    ),
}


def test_what_cannot_be_used_is_refused_and_leaves_nothing(subtests, admin: Caller, folder):
    for name, (parts, refusal) in REFUSED.items():
        with subtests.test(name):
            assert code_of(sent(admin, **parts)) == refusal
            assert list(folder.iterdir()) == []


BODIES = {
    "json": ("application/json", b'{"name":"style"}', (415, "unsupported_media_type", None)),
    "no boundary": ("multipart/form-data", b"--x--", (400, "invalid_form", None)),
    "broken off": ("multipart/form-data; boundary=x", b"--x\r\nCont", (400, "invalid_form", None)),
}


def test_a_body_that_is_no_form_is_refused(subtests, admin: Caller, folder):
    for name, (kind, body, refusal) in BODIES.items():
        with subtests.test(name):
            answer = admin.post("/v1/loras", data=body, content_type=kind)

            assert code_of(answer) == refusal
            assert list(folder.iterdir()) == []


def test_too_large_an_upload_is_refused(subtests, admin: Caller, folder):
    for parts in ({"file": bytes(42 * 2**20)}, {"file": FILE, "title": "x" * 70_000}):
        with subtests.test([*parts][-1]):
            answer = sent(admin, **parts)

            assert code_of(answer) == (413, "lora_too_large", None)
            assert "40 MiB" in answer.json["error"]["message"]
            assert list(folder.iterdir()) == []


def test_a_name_stays_what_it_was(admin: Caller):
    first = sent(admin, file=FILE).json

    assert code_of(sent(admin, file=adapter(proj_out__diff_b=(1,)))) == (409, "lora_exists", "name")
    assert admin.get("/v1/loras/style").json == first


def test_a_folder_that_somebody_fills_by_hand_is_not_replaced(admin: Caller, folder):
    (folder / "style").mkdir(parents=True)
    (folder / "style" / "half-copied").touch()

    assert code_of(sent(admin, file=FILE))[1] == "lora_exists"


def test_an_adapter_goes_when_no_video_needs_it_any_more(admin: Caller, api: Caller, hand, folder):
    sent(admin, file=FILE)
    sent(admin, file=FILE, name="other")
    waiting = api.make(loras=[{"name": "style", "strength": 0.5}], priority=-1)["id"]
    running = api.make(loras=[{"name": "other"}, {"name": "style"}])["id"]
    claim = hand.claim()

    refused = admin.delete("/v1/loras/style")
    assert code_of(refused)[:2] == (409, "lora_in_use")
    assert any(video in refused.json["error"]["message"] for video in (waiting, running))
    api.post(f"/v1/videos/{waiting}/cancel")
    assert code_of(admin.delete("/v1/loras/style"))[:2] == (409, "lora_in_use")
    hand.complete(claim)

    gone = admin.delete("/v1/loras/style")
    assert gone.json == {"name": "style", "object": "lora.deleted", "deleted": True}
    assert code_of(admin.get("/v1/loras/style"))[:2] == (404, "lora_not_found")
    assert code_of(admin.delete("/v1/loras/style"))[:2] == (404, "lora_not_found")
    assert [path.name for path in folder.iterdir()] == ["other"]


def test_only_admins_add_and_remove(admin: Caller, api: Caller):
    sent(admin, file=FILE)

    assert code_of(sent(api, file=FILE, name="mine"))[:2] == (403, "scope_missing")
    assert code_of(api.delete("/v1/loras/style"))[:2] == (403, "scope_missing")


def test_where_nothing_can_be_written_the_operator_is_told(admin: Caller, folder):
    folder.touch()  # a file where the directory should be

    answer = sent(admin, file=FILE)

    assert code_of(answer)[:2] == (503, "not_ready")
    assert "WANFARM_LORA_DIR" in answer.json["error"]["message"]


def test_an_upload_that_finds_no_room_takes_none(small_disk: Path, farm, settings):
    app = create_app(settings.model_copy(update={"lora_dir": small_disk}))
    admin = caller_of(app, farm, "admin")

    answer = sent(admin, file=bytes(5 * 2**20))

    assert code_of(answer)[:2] == (503, "storage_full")
    assert list(small_disk.iterdir()) == []
    assert sent(admin, file=FILE).status_code == 200
    close(app)
