"""Groups and the queue over HTTP: drained, paused and resumed by admins."""

import pytest

from shared.jobs import groups
from shared.jobs.groups import Identity, Reading
from shared.vocabulary.states import GroupState
from tests.services.test_estimates import group as made_group
from tests.services.test_estimates import ran

SMALL = {"model": "wan-tiny-t2v", "prompt": "a ball", "size": "64x64", "frames": 5, "steps": 2}


@pytest.fixture
def group(farm) -> str:
    groups.register(farm, Identity("g0", "life", "host", 4, "cuda", ("wan-tiny-t2v",)))
    return "/v1/groups/g0"


def test_a_group_is_drained_and_resumed(admin, group):
    drained = admin.post(f"{group}/drain", json={"mode": "requeue", "reason": "new driver"})
    assert drained.status_code == 200
    assert (drained.json["drain"], drained.json["drain_reason"]) == ("requeue", "new driver")
    assert admin.post(f"{group}/drain", json={}).json["drain"] == "finish"

    assert admin.post(f"{group}/resume").json["drain"] is None
    assert admin.get(group).json["drain"] is None


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/groups/g0/drain", {"mode": "now"}, 400, "mode"),
        ("/v1/groups/g0/drain", {"when": "now"}, 400, "when"),
        ("/v1/groups/g9/drain", {}, 404, None),
        ("/v1/groups/g9/resume", {}, 404, None),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(admin, path, body, status, param):
    answer = admin.post(path, json=body)

    assert (answer.status_code, answer.json["error"]["param"]) == (status, param)


def test_the_queue_is_paused_and_resumed(admin, api):
    told = admin.post("/v1/queue/pause", json={"what": "both", "reason": "moving house"}).json
    assert [one["what"] for one in told["paused"]] == ["dispatch", "intake"]
    refused = api.post("/v1/videos", json={"prompt": "a paper boat"})
    assert (refused.status_code, refused.json["error"]["code"]) == (503, "intake_paused")
    assert refused.headers["Retry-After"] == "60"

    told = admin.post("/v1/queue/resume", json={"what": "intake"}).json
    assert [one["what"] for one in told["paused"]] == ["dispatch"]
    assert api.make()["status"] == "queued"


def test_the_queue_is_told_by_model_and_by_door(admin, api):
    empty = admin.get("/v1/queue").json
    assert (empty["by_model"], empty["drains_at"], empty["oldest_queued_at"]) == ({}, None, None)
    assert (empty["intake"], empty["dispatch"]) == ("open", "open")
    made = api.make()

    admin.post("/v1/queue/pause", json={"what": "dispatch"})
    told = api.get("/v1/queue").json

    assert told["by_model"] == {made["model"]: {"queued": 1, "in_progress": 0}}
    assert (told["intake"], told["dispatch"]) == ("open", "paused")
    assert told["oldest_queued_at"] == made["created_at"]


def test_a_video_says_that_nothing_is_started(admin, api):
    first = api.make()
    assert first["queue"]["reason"] == "no_group_for_model"

    admin.post("/v1/queue/pause", json={"what": "dispatch"})

    for video in (api.get(f"/v1/videos/{first['id']}").json, api.make()):
        assert video["queue"]["reason"] == "dispatch_paused"
        assert video["eta"] is None


def test_a_video_tells_what_is_ahead_of_it(api, farm):
    for _ in range(9):
        ran(farm, 10)
    made_group(farm, "g0")

    first, second = api.make(**SMALL), api.make(**SMALL)

    assert first["queue"] == {
        "position": 1, "ahead_gpu_seconds": 0, "reason": "waiting_for_group",
    }  # fmt: skip
    assert second["queue"]["position"] == 2
    assert second["queue"]["ahead_gpu_seconds"] == pytest.approx(10, abs=0.5)


def test_only_admins_touch_the_farm(api, group):
    for path in (f"{group}/drain", f"{group}/resume", "/v1/queue/pause", "/v1/queue/resume"):
        assert api.post(path, json={}).status_code == 403, path


@pytest.mark.parametrize("state", GroupState)
def test_the_overview_shows_each_state_of_a_group_and_what_is_paused(admin, farm, state):
    life = Identity("g0", "life", "host", 4, "cuda", ("wan-tiny-t2v",))
    groups.register(farm, life)
    groups.beat(farm, life, Reading(state))
    admin.post("/v1/queue/pause", json={"what": "both", "reason": "moving house"})

    page = admin.get("/").text

    assert state.value in page
    assert "New videos are refused: paused by default-admin (moving house)." in page
    assert "No video is started: paused by default-admin (moving house)." in page
