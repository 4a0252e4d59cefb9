"""The verbs around one video, against a real server."""

import hashlib
import json
import os
import pty
import re
import subprocess
import threading
import time

import pytest

from shared.jobs import keys, lifecycle, running
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from tests.cli.conftest import CONTENT


def test_submit_prints_the_id_and_says_how_to_follow(wanfarm):
    said = wanfarm("submit", "a ball", "--seed", 7)

    video_id = said.out.strip()
    assert (said.code, video_id[:6]) == (0, "video_")
    assert f"wanfarm watch {video_id}" in said.err


def test_options_file_and_assignments_make_one_request(wanfarm, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"prompt": "from the file", "steps": 9, "seed": 1}))

    said = wanfarm(
        "submit", "--spec", spec, "--steps", 5, "--set", "metadata.shot=12b", "--set", "seed=3",
        "--guidance-high", 2.5, "--json",
    )  # fmt: skip

    video = json.loads(said.out)
    assert video["prompt"] == "from the file"
    assert video["metadata"] == {"shot": "12b"}
    asked = {name: video["spec"][name] for name in ("steps", "seed", "guidance_high")}
    assert asked == {"steps": 5, "seed": 3, "guidance_high": 2.5}


def test_a_prompt_may_come_from_a_file(wanfarm, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("a ball\n")

    said = wanfarm("submit", f"@{words}", "--json")

    assert json.loads(said.out)["prompt"] == "a ball"


def test_a_prompt_may_come_from_stdin(started):
    process = started("submit", "-", "--json", stdin=subprocess.PIPE)

    assert json.loads(process.communicate("a ball\n", timeout=20)[0])["prompt"] == "a ball"


def test_an_image_is_sent_along(wanfarm, tmp_path):
    from PIL import Image

    picture = tmp_path / "start.png"
    Image.new("RGB", (128, 128), "red").save(picture)

    said = wanfarm("submit", "it rolls", "--image", picture, "--json")

    video = json.loads(said.out)
    assert video["model"] == "wan-tiny-i2v"
    assert video["spec"]["image"]["width"] == 128


def test_without_a_prompt_it_is_a_usage_error(wanfarm):
    said = wanfarm("submit")

    assert said.code == 2
    assert "no prompt" in said.err


def test_every_fault_of_a_request_is_told_with_its_code_and_request_id(wanfarm):
    said = wanfarm("submit", "a ball", "--frames", 80, "--set", "num_frame=81")

    assert said.code == 8
    assert "unknown_field" in said.err or "invalid_value" in said.err
    assert "frames" in said.err
    assert "num_frame" in said.err
    assert "request req_" in said.err
    code = said.err.split()[1].rstrip(":")
    assert re.search(rf"see http://127\.0\.0\.1:\d+/docs/reference/errors#{code}\n", said.err)


def test_the_same_idempotency_key_gives_the_same_video(wanfarm):
    words = ("submit", "a ball", "--seed", 7, "--idempotency-key", "once", "-q")

    assert wanfarm(*words).out == wanfarm(*words).out


def test_wait_saves_the_very_bytes(started, worker, tmp_path, eventually):
    process = started("submit", "a ball", "--wait", "-o", "mine.mp4")

    claimed = eventually(worker.claim)
    worker.step(claimed, 3)
    worker.complete(claimed)

    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    saved = (tmp_path / "mine.mp4").read_bytes()
    assert hashlib.sha256(saved).hexdigest() == hashlib.sha256(CONTENT).hexdigest()
    assert out.strip() == claimed.fence.video_id
    assert "completed" in err
    assert "\x1b" not in out + err
    assert [path.name for path in tmp_path.glob(".*.part")] == []


def test_a_failed_job_is_exit_code_3(wanfarm, worker, claimed):
    lifecycle.give_back(worker.farm, claimed, JobFailure(FailureKind.BAD_INPUT, "It is too odd."))

    said = wanfarm("watch", claimed.fence.video_id)

    assert said.code == 3
    assert "invalid_input: It is too odd." in said.out
    assert said.err.endswith("/docs/reference/errors#invalid_input\n")


def test_a_cancelled_job_is_exit_code_4(wanfarm):
    video_id = wanfarm("submit", "a ball", "-q").out.strip()
    assert wanfarm("cancel", video_id).code == 0

    assert wanfarm("watch", video_id).code == 4


def test_a_wait_that_takes_too_long_is_exit_code_5(wanfarm):
    said = wanfarm("submit", "a ball", "--wait", "--timeout", 0.3)

    assert said.code == 5
    assert "The video goes on" in said.err


def test_nobody_there_is_exit_code_6(wanfarm, server):
    server.stop()

    said = wanfarm("ls")

    assert said.code == 6
    assert server.url in said.err


@pytest.mark.parametrize("key", ["wf_nobody00_0", "reader"])
def test_who_may_not_is_exit_code_7(wanfarm, farm, key):
    if key == "reader":
        key = keys.create(farm, "reader", "read")[1]

    said = wanfarm("submit", "a ball", key=key)

    assert said.code == 7
    assert "invalid_key" in said.err or "scope_missing" in said.err
    assert key not in said.err


def test_ctrl_c_leaves_the_video_alone_and_says_how_to_see_it_again(started, worker, eventually):
    process = started("submit", "a ball", "--wait")
    assert "queued" in process.stderr.readline()
    claimed = eventually(worker.claim)
    assert "in progress" in process.stderr.readline()

    process.send_signal(2)

    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"wanfarm watch {claimed.fence.video_id}" in err
    assert worker.state(claimed.fence.video_id) == "in_progress"


def test_get_shows_settings_attempts_and_the_file(wanfarm, worker, claimed):
    worker.complete(claimed)

    said = wanfarm("get", claimed.fence.video_id)

    rows = dict(line.split(None, 1) for line in said.out.splitlines())
    assert rows["id"] == claimed.fence.video_id
    assert rows["state"] == "✓ completed"
    assert hashlib.sha256(CONTENT).hexdigest() in rows["file"]
    assert rows["attempt"] == "1    group g0, completed"


def test_of_several_ids_the_worst_decides_and_the_others_are_shown(wanfarm):
    video_id = wanfarm("submit", "a ball", "-q").out.strip()

    said = wanfarm("get", "video_00000000000000000000000000", video_id, "-q")

    assert said.code == 1
    assert said.out.strip() == video_id
    assert "video_not_found" in said.err


def test_ls_filters_and_pages(wanfarm):
    ids = [wanfarm("submit", f"ball {i}", "--set", f"metadata.n={i}", "-q") for i in range(3)]
    newest = [said.out.strip() for said in reversed(ids)]

    assert wanfarm("ls", "-q").out.split() == newest
    assert wanfarm("ls", "-q", "--limit", 2).out.split() == newest[:2]
    assert wanfarm("ls", "-q", "--after", newest[0]).out.split() == newest[1:]
    assert wanfarm("ls", "-q", "--all", "--order", "asc").out.split() == newest[::-1]
    assert wanfarm("ls", "-q", "--search", "ball 1").out.split() == [newest[1]]
    assert wanfarm("ls", "-q", "--metadata", "n=2").out.split() == newest[:1]
    assert wanfarm("ls", "-q", "--status", "completed,failed").out == ""


def test_a_piped_list_is_plain_columns(wanfarm):
    wanfarm("submit", "two\tlines\nhere")

    head, row = wanfarm("ls").out.splitlines()

    assert head.split("\t") == ["id", "state", "model", "created", "prompt"]
    assert row.split("\t")[1:3] == ["○ queued", "wan-tiny-t2v"]
    assert row.split("\t")[-1] == "two lines here"


def test_a_list_in_a_narrow_terminal_keeps_ids_whole(started, wanfarm):
    video_id = wanfarm("submit", "a very long prompt " * 20, "-q").out.strip()
    parent, child = pty.openpty()

    process = started("ls", stdout=child)
    os.close(child)
    process.wait(20)
    shown = os.read(parent, 65536).decode()
    os.close(parent)

    assert f"\n{video_id}  " in shown
    assert "queued" in shown
    assert "a very long" in shown


def test_json_lists_are_one_object_a_line_with_the_keys_of_the_api(wanfarm):
    for word in ("one", "two"):
        wanfarm("submit", word)

    videos = [json.loads(line) for line in wanfarm("ls", "--json").out.splitlines()]

    assert [video["prompt"] for video in videos] == ["two", "one"]
    assert {video["object"] for video in videos} == {"video"}


def test_cancel_waits_until_the_worker_has_stopped(wanfarm, worker, claimed):
    video_id = claimed.fence.video_id

    def obey() -> None:
        while not running.renew(worker.farm, claimed.fence):
            threading.Event().wait(0.02)
        lifecycle.cancelled(worker.farm, claimed.fence, step=3)

    stopping = threading.Thread(target=obey)
    stopping.start()
    said = wanfarm("cancel", video_id, "--reason", "wrong ball")
    stopping.join(10)

    assert said.code == 0
    assert "cancelled at step 3" in said.out


def test_cancel_need_not_wait(wanfarm, claimed):
    began = time.monotonic()

    said = wanfarm("cancel", claimed.fence.video_id, "--no-wait")

    assert (said.code, "cancelling" in said.out) == (0, True)
    assert time.monotonic() - began < 5


def test_what_has_ended_cannot_be_cancelled(wanfarm, worker, claimed):
    worker.complete(claimed)

    said = wanfarm("cancel", claimed.fence.video_id)

    assert (said.code, "not_cancellable" in said.err) == (1, True)


def test_download_takes_the_poster_too(wanfarm, worker, claimed, tmp_path, monkeypatch):
    worker.complete(claimed)
    monkeypatch.chdir(tmp_path)
    video_id = claimed.fence.video_id

    assert wanfarm("download", video_id).out.strip() == f"{video_id}.mp4"
    assert wanfarm("download", video_id, "--poster").out.strip() == f"{video_id}.webp"
    assert wanfarm("download", video_id, "--provenance").out.strip() == f"{video_id}.json"

    assert (tmp_path / f"{video_id}.mp4").read_bytes() == CONTENT
    assert (tmp_path / f"{video_id}.webp").read_bytes() == b"a poster"
    assert json.loads((tmp_path / f"{video_id}.json").read_text())["id"] == video_id


def test_download_saves_one_file_at_a_time(wanfarm):
    said = wanfarm("download", "video_x", "--poster", "--provenance")

    assert (said.code, "Ask for one at a time" in said.err) == (2, True)


def test_download_writes_to_a_pipe(started, worker, claimed):
    worker.complete(claimed)

    process = started("download", claimed.fence.video_id, "-o", "-", text=False)

    assert process.communicate(timeout=20)[0] == CONTENT


def test_a_damaged_file_is_refused_and_nothing_is_left(wanfarm, worker, claimed, tmp_path):
    worker.complete(claimed)
    stored = worker.farm.storage.path(f"videos/{claimed.fence.video_id}/1/video.mp4")
    stored.write_bytes(b"x" + CONTENT[1:])

    said = wanfarm("download", claimed.fence.video_id, "-o", tmp_path / "out" / "a.mp4")
    assert "cannot be written" in said.err
    said = wanfarm("download", claimed.fence.video_id, "-o", tmp_path / "a.mp4")

    assert (said.code, "damaged" in said.err) == (1, True)
    assert list(tmp_path.glob("*a.mp4*")) == []


def test_download_of_an_unfinished_video_says_so(wanfarm, claimed, tmp_path):
    said = wanfarm("download", claimed.fence.video_id, "-o", tmp_path / "a.mp4")

    assert (said.code, "video_not_ready" in said.err) == (1, True)
    assert list(tmp_path.glob("*.mp4")) == []


def test_rm_removes(wanfarm):
    video_id = wanfarm("submit", "a ball", "-q").out.strip()

    assert wanfarm("rm", video_id).out.strip() == video_id
    assert "video_not_found" in wanfarm("get", video_id).err


def test_remix_keeps_the_recipe_and_takes_changes(wanfarm):
    first = json.loads(wanfarm("submit", "a ball", "--seed", 7, "--steps", 4, "--json").out)

    said = wanfarm("remix", first["id"], "--prompt", "a cube", "--steps", 5, "--json")

    again = json.loads(said.out)
    assert again["remixed_from_video_id"] == first["id"]
    assert again["prompt"] == "a cube"
    assert (again["spec"]["seed"], again["spec"]["steps"]) == (7, 5)
