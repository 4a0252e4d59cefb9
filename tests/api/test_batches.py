"""Batches over HTTP: every setting with every seed, all or none, looked after as one."""

import base64
import io
import json

import pytest

from shared.machinery.settings import Settings
from shared.vocabulary.ids import new_id
from tests.api.callers import Caller, Hand, caller_of, png, rows

T2V = "wan2.2-t2v-a14b"
BOAT = {"prompt": "a paper boat"}
PICTURE = "data:image/png;base64," + base64.b64encode(png(200, 100)).decode()


def specs(api: Caller, made: dict) -> list[dict]:
    page = api.get(f"/v1/videos?batch={made['id']}&order=asc&limit=64").json
    assert [one["id"] for one in page["data"]] == [item["video_id"] for item in made["items"]]
    assert {one["batch_id"] for one in page["data"]} <= {made["id"]}
    return [one["spec"] for one in page["data"]]


def faults(answer) -> dict[str, str]:
    assert answer.status_code == 400, answer.text
    error = answer.json["error"]
    return {one["param"]: one["code"] for one in error["errors"]} or {error["param"]: error["code"]}


# --- made


def test_a_batch_is_every_setting_with_every_seed(api: Caller):
    grid = {"cache": ["off", None], "num_inference_steps": [5, 10]}
    answer = api.post(
        "/v1/batches",
        json={"request": BOAT | {"num_frames": 17}, "seeds": [1, 2], "grid": grid}
        | {"name": "boats", "metadata": {"shot": "1"}},
    )
    made = answer.json

    assert answer.headers["Location"] == f"/v1/batches/{made['id']}"
    assert made["axes"] == {"cache": ["off", None], "steps": [5, 10], "seed": [1, 2]}
    assert [[*item["set"].values()] for item in made["items"]] == [
        ["off", 5, 1], ["off", 5, 2], ["off", 10, 1], ["off", 10, 2],
        [None, 5, 1], [None, 5, 2], [None, 10, 1], [None, 10, 2],
    ]  # fmt: skip
    assert (made["status"], made["total"], made["counts"]["queued"]) == ("queued", 8, 8)
    assert (made["name"], made["metadata"], made["completed_at"]) == ("boats", {"shot": "1"}, None)
    assert made["urls"]["sheet"] is None
    for spec, item in zip(specs(api, made), made["items"], strict=True):
        cache = item["set"]["cache"] or "default"
        assert (spec["steps"], spec["seed"]) == (item["set"]["steps"], item["set"]["seed"])
        assert (spec["cache"], spec["frames"]) == (cache, 17)
    assert api.get(f"/v1/batches/{made['id']}").json == made


def test_drawn_seeds_are_recorded(api: Caller):
    made = api.make_batch(variations=3)
    named = api.make_batch(seeds=[-1, 7])

    seeds = made["axes"]["seed"]
    assert len({*seeds}) == 3
    assert [spec["seed"] for spec in specs(api, made)] == seeds
    assert named["axes"]["seed"][0] >= 0
    assert [spec["seed"] for spec in specs(api, named)] == named["axes"]["seed"]


@pytest.mark.parametrize("seed", [{}, {"seed": -1}, {"seed": None}, {"seed": 7}], ids=str)
def test_settings_are_compared_over_one_seed(api: Caller, seed):
    made = api.make_batch(request=BOAT | seed, grid={"steps": [5, 6, 7]})

    assert [*made["axes"]] == ["steps"]
    (only,) = {spec["seed"] for spec in specs(api, made)}
    assert only == 7 or seed.get("seed") != 7


def test_a_prompt_may_be_what_differs(api: Caller):
    made = api.make_batch(request={}, grid={"prompt": ["a boat", "a cat"]})

    page = api.get(f"/v1/videos?batch={made['id']}&order=asc").json["data"]
    assert [one["prompt"] for one in page] == ["a boat", "a cat"]


@pytest.mark.parametrize("form", ["json", "text", "brackets", "file"])
def test_a_batch_has_one_image_however_it_is_sent(api: Caller, form):
    shared = {"prompt": "it turns", "seconds": "1"}
    file = (io.BytesIO(png(200, 100)), "x.png")
    body = {
        "json": {"json": {"request": shared | {"input_reference": PICTURE}, "seeds": [1, 2]}},
        "text": {
            "data": {
                "request": json.dumps(shared | {"input_reference": PICTURE}),
                "seeds": "[1, 2]",
            }
        },
        "brackets": {
            "data": {f"request[{name}]": value for name, value in shared.items()}
            | {"request[input_reference]": PICTURE, "seeds[]": ["1", "2"]}
        },
        "file": {
            "data": {"request": json.dumps(shared), "seeds": "[1,2]", "input_reference": file}
        },
    }[form]

    answer = api.post("/v1/batches", **body)

    assert answer.status_code == 200, answer.text
    first, second = specs(api, answer.json)
    assert (first["model"], first["image"]["width"]) == ("wan-tiny-i2v", 200)
    assert first | {"seed": 2} == second


# --- refused


def test_a_fault_in_the_last_video_refuses_all(api: Caller, farm):
    answer = api.post(
        "/v1/batches",
        json={"request": BOAT, "seeds": [1, 2]}
        | {"grid": {"steps": [5, 500], "num_frames": [17, 33, 80]}},
    )

    assert faults(answer) == {
        "grid.steps[1]": "invalid_value",
        "grid.num_frames[2]": "invalid_value",
    }
    assert rows(farm) == 0
    assert api.get("/v1/batches").json["data"] == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, {"request": "missing_field"}),
        ({"request": "a boat"}, {"request": "invalid_value"}),
        ({"request": {}}, {"request.prompt": "missing_field"}),
        ({"request": BOAT | {"step": 5}}, {"request.step": "unknown_field"}),
        (
            {"request": BOAT | {"shift": 99}, "grid": {"steps": [5, 500]}},
            {"request.shift": "invalid_value", "grid.steps[1]": "invalid_value"},
        ),
        ({"request": BOAT | {"n": 2}}, {"request.n": "use_batches"}),
        ({"request": BOAT, "seed": 1}, {"seed": "unknown_field"}),
        ({"request": BOAT, "seeds": []}, {"seeds": "invalid_value"}),
        ({"request": BOAT, "seeds": [1, "2"]}, {"seeds[1]": "invalid_value"}),
        ({"request": BOAT, "seeds": [1] * 65}, {"seeds": "invalid_value"}),
        ({"request": BOAT, "variations": 0}, {"variations": "invalid_value"}),
        ({"request": BOAT, "variations": 65}, {"variations": "invalid_value"}),
        ({"request": BOAT, "variations": 2, "seeds": [1]}, {"variations": "conflicting_fields"}),
        (
            {"request": BOAT | {"seed": 0}, "variations": 2},
            {"request.seed": "conflicting_fields"},
        ),
        ({"request": BOAT, "grid": {}}, {"grid": "invalid_value"}),
        ({"request": BOAT, "grid": {"steps": []}}, {"grid.steps": "invalid_value"}),
        ({"request": BOAT, "grid": {"stepz": [5]}}, {"grid.stepz": "unknown_field"}),
        ({"request": BOAT, "grid": {"seed": [5]}}, {"grid.seed": "unsupported_feature"}),
        (
            {"request": BOAT, "grid": {"input_reference": [PICTURE]}},
            {"grid.input_reference": "unsupported_feature"},
        ),
        (
            {"request": BOAT | {"steps": 5}, "grid": {"num_inference_steps": [5]}},
            {"grid.num_inference_steps": "conflicting_fields"},
        ),
        (
            {"request": BOAT, "grid": {"steps": [5], "num_inference_steps": [6]}},
            {"grid": "conflicting_fields"},
        ),
        (
            {"request": BOAT, "variations": 13, "grid": {"steps": [1, 2, 3, 4, 5]}},
            {"grid": "invalid_value"},
        ),
        (
            {
                "request": BOAT | {"model": "wan2.2-t2v-a14b", "seconds": 5},
                "grid": {"frames": [81, 77]},
            },
            {"request.seconds": "conflicting_fields"},
        ),
        (
            {"request": BOAT, "grid": {"cache": ["off", {"secondary": {"bn": -1}}]}},
            {"grid.cache[1].secondary.bn": "invalid_cache_policy"},
        ),
        (
            {"request": BOAT, "grid": {"model": ["wan-tiny-t2v", "nobody"]}},
            {"grid.model[1]": "model_not_found"},
        ),
        (
            {"request": BOAT | {"input_reference": "file_1"}},
            {"request.input_reference": "file_not_found"},
        ),
        ({"request": BOAT, "name": "x" * 201}, {"name": "invalid_value"}),
        ({"request": BOAT, "metadata": {"a": 1}}, {"metadata.a": "invalid_value"}),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, dict) else None,
)
def test_a_faulty_batch_is_refused_by_place(api: Caller, farm, body, found):
    assert faults(api.post("/v1/batches", json=body)) == found
    assert rows(farm) == 0


def test_what_only_administrators_may_ask_for_is_refused_in_a_grid_too(api: Caller, admin: Caller):
    body = {"request": BOAT, "grid": {"priority": [0, 5]}}

    error = api.post("/v1/batches", json=body).json["error"]

    assert (error["code"], error["param"]) == ("priority_not_allowed", "grid.priority[1]")
    assert admin.post("/v1/batches", json=body).json["total"] == 2


class TestAFullQueue:
    """A key may have three videos waiting."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_queued_per_key": 3})

    def test_all_videos_of_a_batch_count(self, api: Caller):
        refused = api.post("/v1/batches", json={"request": BOAT, "variations": 4})

        assert (refused.status_code, refused.json["error"]["code"]) == (429, "queue_full")
        assert "these are 4" in refused.json["error"]["message"]
        assert api.make_batch(variations=3)["total"] == 3
        assert api.post("/v1/videos", json=BOAT).status_code == 429


def test_a_repeat_with_its_key_gives_the_same_batch(api: Caller, farm):
    body = {"request": BOAT, "variations": 2}
    headers = {"Idempotency-Key": "once"}
    first, again = (api.post("/v1/batches", json=body, headers=headers) for _ in range(2))

    other = api.post("/v1/batches", json=body | {"variations": 3}, headers=headers)
    single = api.post("/v1/videos", json=BOAT, headers=headers)
    api.delete(f"/v1/batches/{first.json['id']}")
    gone = api.post("/v1/batches", json=body, headers=headers)

    assert again.json == first.json
    assert (first.headers.get("Idempotency-Replayed"), rows(farm)) == (None, 0)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert {other.status_code, single.status_code} == {422}
    assert (gone.status_code, gone.json["error"]["code"]) == (404, "batch_not_found")


# --- looked after


def test_batches_are_listed_in_pages(api: Caller, stranger: Caller, admin: Caller):
    made = [api.make_batch(variations=1)["id"] for _ in range(3)]

    first = api.get("/v1/batches?limit=2").json
    rest = api.get(f"/v1/batches?limit=2&after={first['last_id']}").json

    assert [one["id"] for one in first["data"] + rest["data"]] == made[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [one["id"] for one in admin.get("/v1/batches?order=asc").json["data"]] == made
    assert stranger.get("/v1/batches").json["data"] == []
    wrong = api.get("/v1/batches?after=video_1")
    assert wrong.json["error"]["code"] == "invalid_cursor"


def test_another_tenants_batch_does_not_exist(api, stranger, admin, app, farm):
    path = f"/v1/batches/{api.make_batch(variations=2)['id']}"
    reader = caller_of(app, farm, "read")

    refused = [
        stranger.get(path),
        stranger.post(f"{path}/cancel"),
        stranger.delete(path),
        stranger.get(f"{path}/sheet"),
        api.get(f"/v1/batches/{new_id('batch')}"),
        api.get("/v1/batches/nonsense"),
    ]

    assert {one.json["error"]["code"] for one in refused} == {"batch_not_found"}
    assert {one.status_code for one in refused} == {404}
    assert admin.get(path).json["total"] == reader.get(path).json["total"] == 2
    assert reader.post(f"{path}/cancel").status_code == 403
    assert reader.post("/v1/batches", json={"request": BOAT}).status_code == 403
    assert stranger.get(f"/v1/videos?batch={path.rpartition('/')[2]}").json["data"] == []


def test_a_cancel_reaches_every_video(api: Caller, hand: Hand):
    made = api.make_batch(variations=3)
    hand.complete(hand.claim())
    hand.claim()

    stopped = api.post(f"/v1/batches/{made['id']}/cancel", json={"reason": "wrong boat"}).json
    again = api.post(f"/v1/batches/{made['id']}/cancel").json

    assert (stopped["status"], again) == ("in_progress", stopped)
    assert [item["status"] for item in stopped["items"]] == [
        "completed",
        "in_progress",
        "cancelled",
    ]
    running, waiting = (api.get(f"/v1/videos/{one['video_id']}").json for one in made["items"][1:])
    assert running["cancel_requested_at"] is not None
    assert "wrong boat" in waiting["error"]["message"]


def test_a_deleted_batch_is_gone_with_its_videos(api: Caller, hand: Hand, farm):
    made = api.make_batch(variations=3)
    hand.complete(hand.claim())
    folder = farm.storage.path(f"videos/{made['items'][0]['video_id']}")
    hand.claim()  # this one goes when its GPU has stopped

    answer = api.delete(f"/v1/batches/{made['id']}")

    assert answer.json == {"id": made["id"], "object": "batch.deleted", "deleted": True}
    assert api.get(f"/v1/batches/{made['id']}").status_code == 404
    assert api.get("/v1/videos").json["data"] == []
    assert not folder.exists()
    assert rows(farm) == 1


def test_a_batch_goes_on_without_the_videos_that_were_deleted(api: Caller, hand: Hand):
    made = api.make_batch(variations=3)
    hand.complete(hand.claim())
    first, second, third = (item["video_id"] for item in made["items"])

    api.delete(f"/v1/videos/{second}")

    left = api.get(f"/v1/batches/{made['id']}").json
    assert (left["total"], left["counts"]["completed"], left["counts"]["queued"]) == (2, 1, 1)
    assert [item["video_id"] for item in left["items"]] == [first, third]
    assert left["axes"] == made["axes"]
    api.post(f"/v1/videos/{third}/cancel")
    over = api.get(f"/v1/batches/{made['id']}").json
    assert (over["status"], over["completed_at"] is not None) == ("completed", True)
