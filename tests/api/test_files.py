"""Uploaded pictures: kept once, named by many videos, gone without taking anything along."""

import hashlib
import io
import json

import pytest
from PIL import Image
from sqlalchemy import update
from werkzeug.datastructures import FileStorage

from shared.jobs.ledger import in_seconds
from shared.machinery.tables import File
from tests.api.callers import Caller, caller_of, form, png

PICTURE = png()
VIDEO = {"prompt": "it moves", "model": "wan-tiny-i2v"}


def sent(caller: Caller, content: bytes = PICTURE, name: str = "boat.png", **fields: str):
    return caller.post("/v1/files", **form(file=FileStorage(io.BytesIO(content), name), **fields))


@pytest.fixture
def file(api: Caller) -> dict:
    return sent(api).json


def code_of(answer) -> tuple:
    error = answer.json["error"]
    assert len(error["message"]) <= 300
    return answer.status_code, error["code"], error["param"]


def left_s(farm, seconds: float) -> None:
    """Let all files expire so many seconds from now."""
    with farm.db.connect() as db:
        db.execute(update(File).values(expires_at=in_seconds(seconds)))


def test_a_picture_is_kept_and_sent_back_clean(api: Caller, farm, file):
    content = api.get(f"/v1/files/{file['id']}/content")

    assert (file["object"], file["purpose"], file["status"]) == ("file", "vision", "processed")
    assert (file["filename"], file["width"], file["height"]) == ("boat.png", 128, 96)
    assert file["expires_at"] - file["created_at"] == farm.settings.file_days * 86_400
    assert content.mimetype == "image/png"
    assert (len(content.data), hashlib.sha256(content.data).hexdigest()) == (
        file["bytes"], file["sha256"],
    )  # fmt: skip
    assert api.get(f"/v1/files/{file['id']}").json == file


def test_a_file_goes_by_its_content_not_by_its_name(api: Caller):
    out = io.BytesIO()
    Image.new("RGB", (200, 100)).save(out, "WEBP")

    made = sent(api, out.getvalue(), "../pictures/boat.exe", purpose="user_data").json

    assert (made["filename"], made["purpose"], made["width"]) == ("boat.exe", "user_data", 200)


def test_the_same_picture_is_the_same_file_and_kept_longer(api: Caller, stranger, farm, file):
    left_s(farm, 60)

    again = sent(api, name="another.png", purpose="evals").json

    assert again == file | {"expires_at": again["expires_at"]}
    assert again["expires_at"] >= file["expires_at"]
    others = sent(stranger).json
    assert (others["sha256"], others["id"] == file["id"]) == (file["sha256"], False)


WAYS = {
    "object": lambda name: {"json": VIDEO | {"input_reference": {"file_id": name}}},
    "bare": lambda name: {"json": VIDEO | {"input_reference": name}},
    "form": lambda name: {"data": VIDEO | {"input_reference[file_id]": name}},
    "JSON in a form": lambda name: {
        "data": VIDEO | {"input_reference": json.dumps({"file_id": name})}
    },
}


def test_a_video_starts_from_a_file(subtests, api: Caller, file):
    image = {name: file[name] for name in ("sha256", "width", "height")}
    for way, body in WAYS.items():
        with subtests.test(way):
            made = api.post("/v1/videos", **body(file["id"]))

            assert (made.status_code, made.json["spec"]["image"]) == (200, image)


def test_a_remix_may_start_from_a_file(api: Caller, file):
    video = api.make(model="wan-tiny-ti2v")

    changed = {"input_reference": {"file_id": file["id"]}}
    remix = api.post(f"/v1/videos/{video['id']}/remix", json=changed)

    assert remix.json["spec"]["image"]["sha256"] == file["sha256"]


def test_the_picture_by_its_file_is_the_same_request_as_by_its_bytes(api: Caller, file):
    key = {"headers": {"Idempotency-Key": "one"}}
    first = api.post("/v1/videos", json=VIDEO | {"input_reference": file["id"]}, **key)

    picture = {"input_reference": (io.BytesIO(PICTURE), "a.png")}
    again = api.post("/v1/videos", data=VIDEO | picture, **key)

    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json["id"] == first.json["id"]


def test_a_file_that_is_not_there_cannot_be_named(subtests, api: Caller, stranger, farm, file):
    gone = sent(api, png(64, 64)).json["id"]
    api.delete(f"/v1/files/{gone}")
    theirs = sent(stranger, png(65, 65)).json["id"]
    for name in (gone, theirs, "file_1", "file_../../a"):
        with subtests.test(name):
            answer = api.post("/v1/videos", json=VIDEO | {"input_reference": {"file_id": name}})

            assert code_of(answer) == (400, "file_not_found", "input_reference")
    left_s(farm, -1)
    late = api.post("/v1/videos", json=VIDEO | {"input_reference": file["id"]})
    assert code_of(late) == (400, "file_not_found", "input_reference")
    assert code_of(api.get(f"/v1/files/{file['id']}"))[:2] == (404, "file_not_found")


def test_a_video_keeps_its_picture_when_the_file_goes(api: Caller, file):
    video = api.post("/v1/videos", json=VIDEO | {"input_reference": file["id"]}).json

    gone = api.delete(f"/v1/files/{file['id']}")

    assert gone.json == {"id": file["id"], "object": "file", "deleted": True}
    assert api.get(f"/jobs/{video['id']}/image").status_code == 200
    assert code_of(api.get(f"/v1/files/{file['id']}"))[:2] == (404, "file_not_found")
    assert code_of(api.delete(f"/v1/files/{file['id']}"))[:2] == (404, "file_not_found")
    assert sent(api).json["id"] != file["id"]


def test_pages_survive_deletions(api: Caller):
    ids = [sent(api, png(64 + n, 64), purpose="vision").json["id"] for n in range(3)]
    evals = sent(api, png(100, 64), purpose="evals").json["id"]

    first = api.get("/v1/files?limit=2").json
    api.delete(f"/v1/files/{first['last_id']}")
    rest = api.get(f"/v1/files?limit=2&after={first['last_id']}").json

    shown = [one["id"] for one in first["data"] + rest["data"]]
    assert (shown, first["has_more"], rest["has_more"]) == ([evals, *reversed(ids)], True, False)
    assert [one["id"] for one in api.get("/v1/files?order=asc&purpose=vision").json["data"]] == [
        ids[0], ids[1],
    ]  # fmt: skip
    empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert api.get("/v1/files?purpose=batch").json == empty
    assert code_of(api.get("/v1/files?after=video_1")) == (400, "invalid_cursor", "after")


def test_a_file_belongs_to_its_tenant(api: Caller, admin, stranger, file):
    path = f"/v1/files/{file['id']}"

    for ask in (stranger.get(path), stranger.get(f"{path}/content"), stranger.delete(path)):
        assert code_of(ask)[:2] == (404, "file_not_found")
    assert stranger.get("/v1/files").json["data"] == []
    assert admin.get("/v1/files").json["data"] == [file] == [admin.get(path).json]


def test_who_may_only_read_looks_and_changes_nothing(app, farm, file):
    reader = caller_of(app, farm, "read")

    assert reader.get(f"/v1/files/{file['id']}/content").status_code == 200
    assert code_of(sent(reader))[:2] == (403, "scope_missing")
    assert code_of(reader.delete(f"/v1/files/{file['id']}"))[:2] == (403, "scope_missing")


REFUSED = {
    "nothing": (form(purpose="vision"), (400, "missing_field", "file")),
    "text": (form(file="/etc/passwd"), (400, "invalid_value", "file")),
    "JSON": ({"json": {"file": "aGk="}}, (400, "invalid_value", "file")),
    "no picture": (form(file=b"hello"), (400, "invalid_image", "file")),
    "too small": (form(file=png(32, 32)), (400, "invalid_image", "file")),
    "16 bits": (form(file=png(mode="I;16")), (400, "invalid_image", "file")),
    "heavy": (form(file=bytes(17 * 2**20)), (413, "image_too_large", "file")),
    "purpose": (form(file=PICTURE, purpose="x"), (400, "invalid_value", "purpose")),
    "field": (form(file=PICTURE, name="x"), (400, "unknown_field", "name")),
    "two": (form(file=PICTURE, more=PICTURE), (400, "unknown_field", "more")),
}


def test_what_is_no_picture_is_refused(subtests, api: Caller, farm):
    for name, (body, refusal) in REFUSED.items():
        with subtests.test(name):
            assert code_of(api.post("/v1/files", **body)) == refusal

    assert farm.storage.names("images") == []
