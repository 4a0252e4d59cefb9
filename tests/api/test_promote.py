"""Draft, look, promote: the same picture in full quality."""

import pytest

from tests.api.callers import Caller, rows

MODEL = "wan2.2-t2v-a14b"
SHAPE = ("size", "num_frames", "fps")
KEPT = ("seed", "guidance_high", "guidance_low", "shift", "negative_prompt")


def test_a_promoted_draft_keeps_its_picture_and_gets_the_models_steps(api: Caller):
    draft = api.make(
        model=MODEL, quality="draft", size="832x480", frames=17, seed=7, guidance_scale=5
    )

    final = api.post(f"/v1/videos/{draft['id']}/promote").json

    assert final["promoted_from_video_id"] == draft["id"]
    assert final["remixed_from_video_id"] is None
    assert [final[name] for name in SHAPE] == [draft[name] for name in SHAPE]
    assert [final["spec"][name] for name in KEPT] == [draft["spec"][name] for name in KEPT]
    assert (draft["spec"]["steps"], draft["spec"]["cache"]) == (20, "fast")
    assert (final["spec"]["steps"], final["spec"]["cache"]) == (40, "default")
    assert (final["quality"], final["warnings"]) == ("standard", [])


def test_a_promotion_may_change_what_it_names(api: Caller):
    draft = api.make(model=MODEL, quality="draft", seed=7)

    final = api.post(f"/v1/videos/{draft['id']}/promote", json={"quality": "high", "steps": 60})

    assert final.json["quality"] == "high"
    assert (final.json["spec"]["steps"], final.json["spec"]["cache"]) == (60, "off")


@pytest.mark.parametrize(
    ("change", "param"), [({"size": "1280x720"}, "size"), ({"frames": 33}, "frames")]
)
def test_another_shape_is_taken_with_a_warning(api: Caller, change, param):
    draft = api.make(model=MODEL, quality="draft", size="832x480", frames=17)

    final = api.post(f"/v1/videos/{draft['id']}/promote", json=change).json

    told = [(one["code"], one["param"]) for one in final["warnings"]]
    assert ("composition_changes", param) in told


def test_the_same_key_promotes_once(api: Caller):
    draft = api.make(model=MODEL, quality="draft")
    path, key = f"/v1/videos/{draft['id']}/promote", {"Idempotency-Key": "once"}

    first, second = (api.post(path, headers=key) for _ in range(2))

    assert first.json["id"] == second.json["id"]
    assert second.headers["Idempotency-Replayed"] == "true"


def test_nobody_promotes_anothers_draft(api: Caller, stranger: Caller, farm):
    draft = api.make(model=MODEL, quality="draft")

    refused = stranger.post(f"/v1/videos/{draft['id']}/promote")

    assert (refused.status_code, refused.json["error"]["code"]) == (404, "video_not_found")
    assert rows(farm) == 1
