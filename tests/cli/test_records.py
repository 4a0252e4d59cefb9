"""The verbs that read, against a real server."""

import json


def test_an_estimate_is_told_in_words_and_stores_nothing(wanfarm):
    said = wanfarm("estimate", "a ball", "--frames", 9, "--steps", 4)

    assert said.code == 0, said.err
    assert "9 frames, 4 steps" in said.out
    assert "no group that runs now" in said.out
    assert json.loads(wanfarm("estimate", "a ball", "--json").out)["object"] == "video.estimate"
    assert wanfarm("ls", "--quiet").out == ""


def test_an_estimate_of_what_cannot_be_made_is_refused(wanfarm):
    said = wanfarm("estimate", "a ball", "--frames", 8)

    assert said.code == 8
    assert "frames is 8." in said.err


def test_a_log_has_a_line_an_event(wanfarm):
    video_id = wanfarm("submit", "a ball").out.strip()
    wanfarm("cancel", video_id)

    said = wanfarm("logs", video_id)

    assert [line.split()[2] for line in said.out.splitlines()] == ["state", "state"]
    assert wanfarm("logs", video_id, "--tail", 1).out == said.out.splitlines(keepends=True)[-1]


def test_what_was_not_made_has_no_provenance(wanfarm):
    video_id = wanfarm("submit", "a ball").out.strip()

    said = wanfarm("provenance", video_id)

    assert said.code == 1
    assert "Wait for completed." in said.err


def test_a_draft_is_promoted(wanfarm):
    draft = json.loads(wanfarm("submit", "a ball", "--quality", "draft", "--json").out)

    final = json.loads(wanfarm("promote", draft["id"], "--json").out)

    assert final["promoted_from_video_id"] == draft["id"]
    assert final["spec"]["seed"] == draft["spec"]["seed"]
    assert final["spec"]["steps"] > draft["spec"]["steps"]
