"""What of a video may change after it was sent."""

import pytest

from tests.api.callers import Caller, Hand


def test_a_waiting_video_moves_in_its_queue(admin: Caller, hand: Hand):
    first, second = admin.make(), admin.make()

    changed = admin.patch(f"/v1/videos/{second['id']}", json={"priority": 3})

    assert (changed.status_code, changed.json["priority"]) == (200, 3)
    assert changed.json["queue"]["position"] == 1
    assert hand.claim().fence.video_id == second["id"]
    assert hand.claim().fence.video_id == first["id"]


def test_labels_change_at_any_time_and_the_ledger_tells(api: Caller, finished: str):
    changed = api.patch(f"/v1/videos/{finished}", json={"metadata": {"shot": "12"}}).json

    assert changed["metadata"] == {"shot": "12"}
    assert api.get("/v1/videos?metadata[shot]=12").json["data"][0]["id"] == finished
    last = api.get(f"/v1/videos/{finished}/events").json["data"][-1]
    assert (last["type"], last["metadata"]) == ("change", {"shot": "12"})


def test_what_does_not_wait_has_no_place_to_change(api: Caller, finished: str):
    both = {"priority": -3, "metadata": {"k": "v"}}

    refused = api.patch(f"/v1/videos/{finished}", json=both)

    assert (refused.status_code, refused.json["error"]["code"]) == (409, "not_queued")
    assert refused.json["error"]["param"] == "priority"
    assert api.get(f"/v1/videos/{finished}").json["metadata"] == {}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"priority": 1}, 403, "priority_not_allowed"),
        ({"priority": 11}, 400, "invalid_value"),
        ({"prompt": "another"}, 400, "unknown_field"),
        ({"metadata": {"": "v"}}, 400, "invalid_value"),
    ],
)
def test_what_may_not_change_is_refused_by_name(api: Caller, body, status, code):
    video = api.make()

    refused = api.patch(f"/v1/videos/{video['id']}", json=body)

    assert (refused.status_code, refused.json["error"]["code"]) == (status, code)
    assert refused.json["error"]["param"].startswith(next(iter(body)))
    assert api.get(f"/v1/videos/{video['id']}").json["priority"] == 0


def test_nobody_changes_anothers_video(api: Caller, stranger: Caller):
    video = api.make()

    refused = stranger.patch(f"/v1/videos/{video['id']}", json={"metadata": {}})

    assert (refused.status_code, refused.json["error"]["code"]) == (404, "video_not_found")
