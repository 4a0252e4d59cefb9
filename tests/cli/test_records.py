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


def test_a_log_is_followed_to_the_end_without_a_line_lost_or_doubled(
    started, worker, claimed, wanfarm
):
    video_id = claimed.fence.video_id
    process = started("logs", video_id, "-f", "--tail", 1)
    first = process.stdout.readline()
    for step in range(1, 4):
        worker.step(claimed, step)
    worker.complete(claimed)

    rest = process.communicate(timeout=20)[0].splitlines(keepends=True)

    assert process.returncode == 0
    assert [first, *rest] == wanfarm("logs", video_id).out.splitlines(keepends=True)[1:]


def test_a_dry_run_tells_spec_and_estimate_and_stores_nothing(wanfarm):
    said = wanfarm("submit", "a ball", "--steps", 4, "--seed", 7, "--priority", 3, "--dry-run")

    assert said.code == 0, said.err
    assert "4 steps" in said.out
    assert "seed=7" in said.out
    assert wanfarm("ls", "--quiet").out == ""


def test_a_dry_run_of_a_batch_tells_each_of_its_videos(wanfarm):
    said = wanfarm("submit", "a ball", "--grid", "steps=4,6", "--dry-run")

    assert said.code == 0, said.err
    *each, sums = said.out.splitlines()
    assert [line.split()[-1] for line in each] == ["steps=4", "steps=6"]
    assert sums.startswith("2 videos: ")
    assert wanfarm("batch", "ls", "--quiet").out == ""


def test_a_dry_run_saves_no_file(wanfarm, tmp_path):
    said = wanfarm("submit", "a ball", "--dry-run", "-o", tmp_path / "ball.mp4")

    assert said.code == 2
    assert "Leave out --wait and -o" in said.err


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
