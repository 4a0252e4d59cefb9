"""A video over HTTP, from the request to its end and its twin."""

import base64
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from shared.jobs.removal import image_key
from shared.machinery.settings import Settings
from tests.api.callers import Caller, Hand, caller_of, png, rows

PICTURE = "data:image/png;base64," + base64.b64encode(png(200, 100)).decode()


def test_a_bare_prompt_gets_exactly_the_models_own_values(api: Caller):
    video = api.make(prompt="  a paper boat ", model="Wan-AI/Wan2.2-T2V-A14B-Diffusers")

    assert (video["prompt"], video["model"]) == ("a paper boat", "wan2.2-t2v-a14b")
    assert (video["size"], video["num_frames"], video["fps"]) == ("1280x720", 81, 16)
    assert (video["seconds"], video["spec"]["steps"], video["quality"]) == ("5", 40, "standard")
    assert (video["spec"]["guidance_high"], video["spec"]["guidance_low"]) == (4.0, 3.0)
    assert (video["status"], video["progress"], video["warnings"]) == ("queued", 0, [])
    assert video["spec"]["seed"] >= 0


def test_a_new_video_says_where_it_is_and_when_to_ask_again(api: Caller):
    answer = api.post("/v1/videos", json={"prompt": "a"})

    assert answer.headers["Location"] == f"/v1/videos/{answer.json['id']}"
    assert 500 <= int(answer.headers["openai-poll-after-ms"]) <= 5000
    assert answer.json["queue"] == {
        "position": 1, "ahead_gpu_seconds": None, "reason": "no_group_for_model",
    }  # fmt: skip
    assert answer.json["urls"]["events"].endswith(f"{answer.json['id']}/events")


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"prompt": "a", "frames": 33, "metadata": {"k": "v"}, "cache": "off"}},
        {"data": {"prompt": "a", "frames": "33", "metadata[k]": "v", "cache[enabled]": "false"}},
        {"data": {"prompt": "a", "num_frames": "33", "metadata": '{"k":"v"}', "cache": "off"}},
        {
            "data": {"prompt": "a", "seconds": "2", "metadata[k]": "v", "enable_cache_dit": "0"},
            "content_type": "multipart/form-data",
        },
        {"json": {"prompt": "a", "seconds": "2", "extra_body": {"cache": "off", "user": None},
                  "extra_params": '{"metadata": {"k": "v"}, "n": 1}'}},
    ],
    ids=["json", "urlencoded", "dialect", "multipart", "extra"],
)  # fmt: skip
def test_every_wire_form_gives_the_same_video(api: Caller, body):
    video = api.post("/v1/videos", **body).json

    assert (video["num_frames"], video["metadata"]) == (33, {"k": "v"})
    assert video["spec"]["cache"] == "off"


KNOBS = {"fn": 2, "rdt": 0.1, "scm_compute_bins": [4, 1], "scm_cache_bins": [1, 2]}
KNOBS |= {"enabled": True, "secondary": {"bn": 1, "taylorseer": True, "ts_order": 2}}
THEIRS = {
    "Fn_compute_blocks": 2,
    "residual_diff_threshold": 0.1,
    "scm_compute_bins": [4, 1],
    "scm_cache_bins": [1, 2],
    "secondary": {"Bn_compute_blocks": 1, "enable_taylorseer": True, "taylorseer_order": 2},
}


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ({"json": {"cache": "fast"}}, "fast"),
        ({"json": {"quality": "draft"}}, "fast"),
        ({"json": {"enable_cache_dit": True}}, {"enabled": True}),
        ({"json": {"cache": KNOBS}}, KNOBS),
        ({"json": {"cache_dit_params": THEIRS}}, KNOBS),
        ({"json": {"cache_dit_params": THEIRS, "enable_cache_dit": True}}, KNOBS),
        ({"json": {"cache_dit_params": THEIRS, "enable_cache_dit": False}}, "off"),
        ({"data": {"cache": json.dumps(KNOBS)}}, KNOBS),
        (
            {
                "data": {
                    "cache[enabled]": "true",
                    "cache[fn]": "2",
                    "cache[rdt]": "0.1",
                    "cache[scm_compute_bins][]": ["4", "1"],
                    "cache[scm_cache_bins][]": ["1", "2"],
                    "cache[secondary][bn]": "1",
                    "cache[secondary][taylorseer]": "1",
                    "cache[secondary][ts_order]": "2",
                }
            },
            KNOBS,
        ),
    ],
    ids=["name", "draft", "dit", "knobs", "dit-params", "dit-both", "dit-off", "text", "brackets"],
)
def test_what_a_request_says_about_caching_is_kept_and_nothing_it_does_not(api: Caller, body, kept):
    for sent in body.values():
        sent["prompt"] = "a"

    video = api.post("/v1/videos", **body).json

    assert video["spec"]["cache"] == kept


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"prompt": "a", "input_reference": PICTURE}},
        {"json": {"prompt": "a", "input_reference": {"image_url": PICTURE}}},
        {"data": {"prompt": "a", "input_reference": (io.BytesIO(png(200, 100)), "x.bin")}},
        {"data": {"prompt": "a", "input_reference[image_url]": PICTURE}},
    ],
    ids=["bare", "object", "file", "brackets"],
)
def test_an_image_is_taken_however_it_is_sent(api: Caller, farm, body):
    video = api.post("/v1/videos", **body).json

    image = video["spec"]["image"]
    assert (video["model"], video["size"]) == ("wan-tiny-i2v", "176x80")
    assert (image["width"], image["height"]) == (200, 100)
    assert farm.storage.exists(image_key(image["sha256"]))


def test_an_image_is_turned_upright_and_loses_its_metadata(api: Caller, farm):
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera with a name"
    Image.new("RGB", (200, 100)).save(out, "JPEG", exif=exif)
    out.seek(0)

    video = api.post("/v1/videos", data={"prompt": "a", "input_reference": (out, "a.png")}).json

    image = video["spec"]["image"]
    assert (image["width"], image["height"]) == (100, 200)
    assert b"camera" not in farm.storage.path(image_key(image["sha256"])).read_bytes()


def test_an_unchanged_video_is_not_sent_twice(api: Caller, hand: Hand):
    path = f"/v1/videos/{api.make()['id']}"
    tag = api.get(path).headers["ETag"]

    unchanged = api.get(path, headers={"If-None-Match": tag})
    hand.step(hand.claim(), 3)
    changed = api.get(path, headers={"If-None-Match": tag})

    assert tag.startswith('W/"')
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert (changed.status_code, changed.json["progress"]) == (200, 3)


def test_a_running_video_tells_its_step_and_a_finished_one_its_costs(api: Caller, hand: Hand):
    path = f"/v1/videos/{api.make()['id']}"
    claimed = hand.claim()
    hand.step(claimed, 5)

    running = api.get(path).json
    hand.complete(claimed)
    done = api.get(path).json

    assert (running["status"], running["progress_detail"]["step"]) == ("in_progress", 5)
    assert running["eta"]["basis"] == "measured"
    assert running["attempts"][0]["group"] == "g0"
    assert (done["status"], done["progress"], done["queue"]) == ("completed", 100, None)
    assert (done["peak_memory_mb"], done["inference_time_s"]) == (2, 2.0)
    assert done["timings"]["denoise"] == 2.0
    assert done["result"]["codec"] == "h264"
    assert done["expires_at"] > done["completed_at"]


def test_pages_go_on_while_their_videos_are_deleted(api: Caller):
    made = [api.make()["id"] for _ in range(7)]
    seen, after = [], None

    while True:
        query = {"limit": 2} | ({"after": after} if after else {})
        page = api.get("/v1/videos", query_string=query).json
        seen += [video["id"] for video in page["data"]]
        for video in page["data"]:
            assert api.delete(f"/v1/videos/{video['id']}").json["deleted"] is True
        after = page["last_id"]
        if not page["has_more"]:
            break

    assert seen == made[::-1]


def test_a_list_is_narrowed_by_what_videos_are(api: Caller):
    boat = api.make(prompt="a 100% boat", metadata={"shot": "1"})
    other = api.make(prompt="a cat")
    api.post(f"/v1/videos/{other['id']}/cancel")

    def ids(query: str) -> list[str]:
        return [video["id"] for video in api.get(f"/v1/videos?{query}").json["data"]]

    assert ids("q=100%25") == [boat["id"]]
    assert ids("metadata[shot]=1") == [boat["id"]]
    assert ids("status=cancelled,failed") == [other["id"]]
    assert ids("order=asc") == [boat["id"], other["id"]]
    assert ids("model=wan-tiny-i2v") == []
    assert ids(f"created_before={boat['created_at'] - 5}") == []
    assert ids("key=default-submit&created_after=5") == [other["id"], boat["id"]]


def test_one_idempotency_key_makes_one_video(app, api: Caller, farm):
    together = threading.Barrier(20)

    def send(_: int):
        caller = Caller(app.test_client(), api.key)
        together.wait(10)
        return caller.post("/v1/videos", json={"prompt": "a"}, headers={"Idempotency-Key": "one"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert rows(farm) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 19


def test_an_idempotency_key_names_one_request(api: Caller):
    headers = {"Idempotency-Key": "one"}
    api.post("/v1/videos", json={"prompt": "a"}, headers=headers)

    answer = api.post("/v1/videos", json={"prompt": "b"}, headers=headers)

    assert (answer.status_code, answer.json["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("ask", ["query", "header"])
def test_an_answer_is_held_until_the_video_ends(api: Caller, hand: Hand, ask):
    path = f"/v1/videos/{api.make()['id']}"
    claimed = hand.claim()
    threading.Timer(0.5, hand.complete, [claimed]).start()

    if ask == "query":
        answer = api.get(f"{path}?wait=20")
    else:
        answer = api.get(path, headers={"Prefer": "respond-async, wait=20"})

    assert answer.json["status"] == "completed"
    assert answer.headers["Preference-Applied"] == "wait=20"


def test_a_wait_ends_with_its_time(api: Caller):
    answer = api.post("/v1/videos?wait=1", json={"prompt": "a"})

    assert (answer.status_code, answer.json["status"]) == (200, "queued")
    assert answer.headers["Preference-Applied"] == "wait=1"


def test_a_waiting_video_is_cancelled_at_once_and_again(api: Caller):
    path = f"/v1/videos/{api.make()['id']}/cancel"

    first, second = api.post(path, json={"reason": "wrong prompt"}), api.post(path)

    assert (first.json["status"], second.json["status"]) == ("cancelled", "cancelled")
    assert "wrong prompt" in first.json["error"]["message"]


def test_a_running_video_is_asked_to_stop(api: Caller, hand: Hand):
    made = api.make()
    hand.claim()

    answer = api.post(f"/v1/videos/{made['id']}/cancel")

    assert answer.json["status"] == "in_progress"
    assert answer.json["cancel_requested_at"] is not None


def test_a_finished_video_cannot_be_cancelled(api: Caller, finished):
    answer = api.post(f"/v1/videos/{finished}/cancel")

    assert (answer.status_code, answer.json["error"]["code"]) == (409, "not_cancellable")


def test_a_deleted_video_is_gone_with_its_files(api: Caller, finished, farm):
    folder = farm.storage.path(f"videos/{finished}")

    answer = api.delete(f"/v1/videos/{finished}")

    assert answer.json == {"id": finished, "object": "video.deleted", "deleted": True}
    assert api.get(f"/v1/videos/{finished}").status_code == 404
    assert not folder.exists()


def test_a_remix_without_changes_is_the_same_recipe(api: Caller):
    first = api.make(seconds="1", guidance_scale=2, quality="draft", input_reference=PICTURE)

    second = api.post(f"/v1/videos/{first['id']}/remix", json={}).json

    assert second["spec"] == first["spec"]
    assert second["remixed_from_video_id"] == first["id"]


def test_a_remix_changes_what_it_names_and_null_means_the_models_own(api: Caller):
    first = api.make(frames=33, steps=5, shift=9.0, seed=7)

    changes = {"prompt": "a cat", "seconds": "1", "shift": None}
    second = api.post(f"/v1/videos/{first['id']}/remix", json=changes).json

    assert (second["prompt"], second["num_frames"]) == ("a cat", 17)
    assert (second["spec"]["shift"], second["spec"]["steps"]) == (12.0, 5)
    assert second["spec"]["seed"] == 7


def test_a_remix_for_another_model_keeps_only_what_was_asked(api: Caller):
    first = api.make(steps=5)

    changes = {"model": "wan-tiny-ti2v"}
    second = api.post(f"/v1/videos/{first['id']}/remix", json=changes).json

    assert (second["model"], second["spec"]["steps"]) == ("wan-tiny-ti2v", 5)
    assert second["spec"]["guidance_low"] is None


class TestAFullQueue:
    """A key may have two videos waiting."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_queued_per_key": 2})

    def test_it_says_when_to_come_back(self, api: Caller):
        api.make()
        api.make()

        answer = api.post("/v1/videos", json={"prompt": "a"})

        assert (answer.status_code, answer.json["error"]["code"]) == (429, "queue_full")
        assert (answer.headers["Retry-After"], answer.headers["x-should-retry"]) == ("30", "true")


def test_another_tenants_video_does_not_exist(api: Caller, stranger: Caller, admin: Caller):
    video_id = api.make()["id"]
    path = f"/v1/videos/{video_id}"

    refused = [
        stranger.get(path),
        stranger.delete(path),
        stranger.post(f"{path}/cancel"),
        stranger.post(f"{path}/remix", json={}),
        stranger.get(f"{path}/content"),
        stranger.get(f"{path}/events"),
    ]

    assert {answer.status_code for answer in refused} == {404}
    assert stranger.get("/v1/videos").json["data"] == []
    assert admin.get(path).json["id"] == video_id


def test_a_reader_may_look_and_not_touch(app, farm, api: Caller):
    reader = caller_of(app, farm, "read")
    path = f"/v1/videos/{api.make()['id']}"

    answer = reader.post("/v1/videos", json={"prompt": "a"})

    assert reader.get(path).status_code == 200
    assert (answer.status_code, answer.json["error"]["code"]) == (403, "scope_missing")
    assert reader.delete(path).status_code == 403
