"""A job goes the whole way: row, ring, parent, ranks, file, row."""

import hashlib
import subprocess
from pathlib import Path

import imageio_ffmpeg

from shared.jobs import groups
from tests.farm.conftest import CAMERA


def test_a_video_is_rendered_stored_and_told(house, completes):
    house.start()

    row = completes(house.submit(width=128, height=64, frames=9, fps=8))

    result = row["result"]
    (path,) = house.results(row["id"])
    content = path.read_bytes()
    assert result["sha256"] == hashlib.sha256(content).hexdigest()
    assert result["bytes"] == len(content)
    assert content.index(b"moov") < content.index(b"mdat")
    assert read_back(path) == {"frames": 9, "size": "128x64", "frame_s": "1/8", "h264": True}
    assert sorted(result["files"]) == ["spritesheet", "thumbnail", "video"]
    for stored in result["files"].values():
        assert house.farm.storage.path(stored["key"]).stat().st_size == stored["bytes"]
    assert row["progress"] == 100
    assert row["attempts"][0]["report"]["pattern"] == {"high": {"cond": "XX", "uncond": "XX"}}


def test_one_parent_serves_all_its_models(house, completes):
    house.start()

    first = house.submit()
    second = house.submit(model="wan-tiny-ti2v", guidance_low=None, boundary=None)

    assert completes(first)["group_name"] == completes(second)["group_name"] == "g0"


def test_a_group_says_what_it_does_without_waiting_for_its_heartbeat(house, completes, eventually):
    house.start(engine=CAMERA, heartbeat_s=200, lease_s=600)

    def state():
        return next((group["state"] for group in groups.all_groups(house.farm)), None)

    eventually(lambda: state() == "idle", within=60)
    video_id = house.submit(prompt="wait", steps=30)
    eventually(lambda: state() == "busy", within=20)
    completes(video_id)
    eventually(lambda: state() == "idle", within=20)


def read_back(path: Path) -> dict:
    """What the file says when it is decoded again."""
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "framemd5", "-"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    facts = dict(line[1:].split(": ", 1) for line in lines if line.startswith("#") and ": " in line)
    return {
        "frames": sum(not line.startswith("#") for line in lines),
        "size": facts["dimensions 0"],
        "frame_s": facts["tb 0"],
        "h264": b"avc1" in path.read_bytes(),
    }
