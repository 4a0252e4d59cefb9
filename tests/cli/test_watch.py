"""Following one video to its end, or all of them, against a real server."""

import json
import os
import pty
import select

import click
import pytest

from cli import render


def test_watch_gives_every_event_once_across_a_restart_of_the_farm(
    started, server, worker, claimed
):
    process = started("watch", claimed.fence.video_id, "--json")
    snapshot = json.loads(process.stdout.readline())
    worker.step(claimed, 1)
    first = json.loads(process.stdout.readline())

    server.stop()
    worker.step(claimed, 2)
    server.start()
    worker.step(claimed, 3)
    worker.complete(claimed)

    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    *events, last = [first, *map(json.loads, out.splitlines())]
    assert [event["id"] for event in events] == [first["id"] + i for i in range(len(events))]
    assert [event["step"] for event in events if event["type"] == "step"] == [1, 2, 3]
    assert events[-1]["to"] == "completed"
    assert (snapshot["status"], last["status"]) == ("in_progress", "completed")


def test_watch_all_tells_the_moves_of_all_videos_until_ctrl_c(started, server, wanfarm, eventually):
    process = started("watch", "--all", "--json")
    one = eventually(lambda: heard_of(process, wanfarm), within=20)
    assert (one["type"], one["from"], one["to"]) == ("state", None, "queued")

    server.stop()
    server.start()
    assert "What moves until it is back is not shown." in process.stderr.readline()
    again = eventually(lambda: heard_of(process, wanfarm), within=20)

    assert again["video_id"] > one["video_id"]
    process.send_signal(2)
    out, err = process.communicate(timeout=40)
    assert process.returncode == 130, err
    assert {json.loads(line)["to"] for line in out.splitlines()} <= {"queued"}


def heard_of(process, wanfarm) -> dict | None:
    """Submit a video, and give what the feed then says, once it listens."""
    assert wanfarm("submit", "a ball").code == 0
    ready, _, _ = select.select([process.stdout], [], [], 0.5)
    return json.loads(process.stdout.readline()) if ready else None


@pytest.mark.parametrize("words", [(), ("--all", "video_1")])
def test_watch_takes_one_video_or_all(wanfarm, words):
    said = wanfarm("watch", *words)

    assert said.code == 2
    assert "Name one VIDEO_ID, or --all." in said.err


def test_a_move_is_one_line():
    move = {"at": 1795000000.0, "video_id": "video_1", "to": "failed", "attempt": 2}

    line = render.move_line(move | {"error": {"message": "It is too odd."}})

    assert click.unstyle(line).split("  ")[1:] == [
        "video_1",
        "✕ failed",
        "attempt 2",
        "It is too odd.",
    ]


def test_in_a_terminal_one_line_is_redrawn(started, worker, claimed, eventually):
    parent, child = pty.openpty()
    process = started("watch", claimed.fence.video_id, stderr=child)
    worker.step(claimed, 7)
    os.close(child)
    shown = b""

    def saw_a_step() -> bool:
        nonlocal shown
        if select.select([parent], [], [], 0)[0]:
            shown += os.read(parent, 4096)
        return b"denoise 7/20" in shown

    eventually(saw_a_step)
    worker.complete(claimed)

    out, _ = process.communicate(timeout=20)
    os.close(parent)
    assert b"\r\x1b[K" in shown
    assert b"\n" not in shown
    assert "completed" in out
