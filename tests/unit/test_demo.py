"""The demo's last step: it believes a file only after decoding it."""

import subprocess

import imageio_ffmpeg
import pytest

from cli.demo import Clip, DemoFailed, inspect


@pytest.fixture
def clip(tmp_path):
    def make(*options):
        path = tmp_path / "clip.mp4"
        source = ["-f", "lavfi", "-i", "testsrc=size=128x96:rate=16", "-frames:v", "33"]
        program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source]
        subprocess.run([*program, "-pix_fmt", "yuv420p", *options, str(path)], check=True)
        return path

    return make


def test_a_clip_is_measured_by_decoding_it(clip):
    path = clip("-c:v", "libx264", "-movflags", "+faststart")

    assert inspect(path) == Clip("h264", 128, 96, 33, streams=True)


def test_an_index_at_the_end_is_noticed(clip):
    assert not inspect(clip("-c:v", "libx264")).streams


def test_another_codec_is_noticed(clip):
    assert inspect(clip("-c:v", "mpeg4")).codec == "mpeg4"


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_cut_file_is_refused(clip, share):
    path = clip("-c:v", "libx264", "-movflags", "+faststart")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    with pytest.raises(DemoFailed, match="could not be decoded"):
        inspect(path)
