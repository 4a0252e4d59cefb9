"""How far two videos are apart: measured on real files, checked against plain arithmetic."""

import json
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

SIZE = "64x64"
FRAMES = 9
BLOTTED = "drawbox=x=8:y=8:w=40:h=40:color=black:t=fill:enable='eq(n,3)'"  # the fourth frame


def film(path, picture=f"testsrc2=size={SIZE}:rate=16", change="null"):
    """A short clip, and one that differs from it where `change` says."""
    source = ["-f", "lavfi", "-i", picture, "-frames:v", str(FRAMES), "-vf", change]
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source]
    subprocess.run([*program, "-crf", "12", "-pix_fmt", "yuv420p", str(path)], check=True)
    return path.read_bytes()


def planes(content, path):
    """All bytes of every frame, as they are stored: luma, then chroma."""
    path.write_bytes(content)
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    raw = subprocess.run([*program, "-f", "rawvideo", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(FRAMES, -1).astype(float)


@pytest.fixture
def make(wanfarm, worker):
    """A finished video of some bytes; gives its id."""

    def finish(content, *options):
        asked = ("--seed", 7, "--size", SIZE, "--frames", FRAMES, *options)
        video_id = wanfarm("submit", "a ball", *asked, "-q").out.strip()
        worker.complete(worker.claim(), content)
        return video_id

    return finish


def test_the_distance_the_worst_frame_and_the_settings_that_differ(wanfarm, make, tmp_path):
    sharp, blotted = film(tmp_path / "a.mp4"), film(tmp_path / "b.mp4", change=BLOTTED)
    a, b = make(sharp, "--steps", 4), make(blotted, "--steps", 5)

    said = wanfarm("compare", a, b, "--json")
    found = json.loads(said.out)

    assert said.code == 0
    assert found["settings"] == {"steps": [4, 5]}
    assert (found["frames"], found["worst_frame"]["frame"], found["identical"]) == (9, 4, False)
    apart = planes(sharp, tmp_path / "x.mp4") - planes(blotted, tmp_path / "y.mp4")
    error = (apart**2).mean(axis=1)
    assert found["psnr_db"] == pytest.approx(10 * np.log10(255**2 / error.mean()), abs=0.05)
    worst = 10 * np.log10(255**2 / error[3])
    assert found["worst_frame"]["psnr_db"] == pytest.approx(worst, abs=0.05)
    assert 0 < found["worst_frame"]["ssim"] < found["ssim"] < 1


def test_people_read_a_line_for_each_fact(wanfarm, make, tmp_path):
    a = make(film(tmp_path / "a.mp4"), "--steps", 4)
    b = make(film(tmp_path / "b.mp4", change=BLOTTED), "--steps", 5)

    lines = dict(line.split(None, 1) for line in wanfarm("compare", a, b).out.splitlines())

    assert lines["psnr"].endswith("dB over 9 frames")
    assert lines["worst"].split()[:2] == ["frame", "4:"]
    assert lines["steps"] == "4 | 5"
    assert lines["gpu-seconds"].count("|") == 1


def test_equal_pictures_have_no_distance(wanfarm, make, tmp_path):
    a, b = (make(film(tmp_path / "a.mp4")) for _ in range(2))

    found = json.loads(wanfarm("compare", a, b, "--json").out)

    assert (found["identical"], found["psnr_db"], found["ssim"]) == (True, None, 1.0)
    assert found["settings"] == {}
    assert "the same pixels over 9 frames" in wanfarm("compare", a, b).out


def test_other_times_are_paired_by_the_clock_and_said(wanfarm, make, tmp_path):
    a = make(film(tmp_path / "a.mp4"), "--fps", 16)
    b = make(film(tmp_path / "b.mp4", f"testsrc2=size={SIZE}:rate=32"), "--fps", 32)

    said = wanfarm("compare", a, b)

    assert "A has 9 frames at 16 fps, B 9 frames at 32 fps" in said.err
    assert "over 5 frames" in said.out


def test_other_sizes_are_refused_with_the_way_to_one(wanfarm, make, tmp_path):
    a = make(film(tmp_path / "a.mp4"))
    b = make(film(tmp_path / "b.mp4", "testsrc2=size=96x64:rate=16"), "--size", "96x64")

    said = wanfarm("compare", a, b)

    assert (said.code, said.out) == (1, "")
    assert f"wanfarm remix {b} --size {SIZE}" in said.err


def test_a_video_without_a_file_is_named_with_what_to_do(wanfarm, make, tmp_path):
    done = make(film(tmp_path / "a.mp4"))
    waiting = wanfarm("submit", "a ball", "-q").out.strip()

    said = wanfarm("compare", done, waiting)

    assert said.code == 1
    assert f"{waiting} has no file. It is queued." in said.err
    assert f"wanfarm watch {waiting}" in said.err
