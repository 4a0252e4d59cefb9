"""The file that comes out: its shape, its codec, and that it is whole or not there."""

import json
import os
import re
import signal
import struct
import subprocess

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from shared.vocabulary.spec import FailureKind
from tests.engine.rendering import Render, decoded, small
from worker.engine.faults import EngineFault
from worker.engine.video import mp4

CELLS = [(row, column) for row in range(4) for column in range(4)]


def probe(path):
    told = subprocess.run([get_ffmpeg_exe(), "-i", path], capture_output=True, text=True).stderr
    return next(line for line in told.splitlines() if "Video:" in line)


def film(**fields):
    """64x48, ten pictures, which no model makes."""
    return small(width=64, height=48, fps=24).model_copy(update={"frames": 10} | fields)


def write(pictures, path, before=lambda _: None):
    """Far more pictures than a pipe holds."""
    with mp4.writing(path, film()) as file:
        before(file)
        for _ in range(100):
            file.write(pictures)


def atoms(path):
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        names.append(name.decode())
        at += size
    return names


@pytest.fixture
def pictures():
    """Ten frames of a slope that moves."""
    row = np.linspace(0, 255, 64)
    return (
        np.stack([np.repeat(np.roll(row, i)[None, :, None], 48, 0) for i in range(10)])
        .repeat(3, axis=3)
        .astype(np.uint8)
    )


def test_a_rendered_video_is_what_the_spec_says(render: Render):
    spec = small(width=96, height=64, frames=13, fps=16)

    file, _ = render(spec)

    path = render.scratch / "video.mp4"
    assert (file.width, file.height, file.frames, file.fps) == (96, 64, 13, 16)
    assert re.search(r"h264 .*yuv420p.* 96x64.* 16 fps", probe(path))
    assert len(decoded(path, 96, 64)) == 13


def test_the_file_tells_how_it_was_made_where_that_is_asked_for(pictures, tmp_path):
    prompt = 'a "red" ball; #1 = größer\\n'
    for name, told in (("silent.mp4", False), ("telling.mp4", True)):
        with mp4.writing(tmp_path / name, film(prompt=prompt, embed_provenance=told)) as file:
            file.write(pictures)

    assert comment(tmp_path / "silent.mp4") is None
    said = json.loads(comment(tmp_path / "telling.mp4"))
    assert (said["prompt"], said["seed"]) == (prompt, 1)
    silent, telling = (decoded(tmp_path / f"{n}.mp4", 64, 48) for n in ("silent", "telling"))
    assert np.array_equal(silent, telling)


def comment(path):
    """What a file says of itself, as another program reads it."""
    argv = [get_ffmpeg_exe(), "-loglevel", "error", "-i", path, "-f", "ffmetadata", "-"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^comment=((?:[^\\\n]|\\.)*)$", text, re.MULTILINE | re.DOTALL)
    return found and re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL)


def test_it_can_be_played_while_it_is_fetched(pictures, tmp_path):
    with mp4.writing(tmp_path / "a.mp4", film()) as file:
        file.write(pictures)

    names = atoms(tmp_path / "a.mp4")
    assert names.index("moov") < names.index("mdat")


def test_pictures_survive(pictures, tmp_path):
    with mp4.writing(tmp_path / "a.mp4", film()) as file:
        file.write(pictures[:1])
        file.write(pictures[1:])

    back = decoded(tmp_path / "a.mp4", 64, 48).astype(int)
    assert np.abs(back - pictures).mean() < 6


@pytest.mark.parametrize("frames", [1, 5, 10])
def test_stills_are_made_beside_it(pictures, tmp_path, frames):
    with mp4.writing(tmp_path / "a.mp4", film(frames=frames)) as file:
        file.write(pictures[:frames])

    with Image.open(mp4.stills(tmp_path / "a.mp4")["thumbnail"]) as middle:
        assert (middle.format, middle.size) == ("WEBP", (64, 48))
        shown = np.asarray(middle.convert("RGB")).astype(int)
    assert np.abs(shown - pictures[frames // 2]).mean() < 8
    with Image.open(mp4.stills(tmp_path / "a.mp4")["spritesheet"]) as sheet:
        assert (sheet.format, sheet.size) == ("JPEG", (4 * 160, 4 * 120))
        cell = np.asarray(sheet.crop((0, 0, 160, 120)).resize((64, 48)).convert("RGB")).astype(int)
    assert np.abs(cell - pictures[0]).mean() < 12


def test_the_sheet_of_a_long_video_spans_it(tmp_path):
    grey = np.repeat(np.arange(0, 240, 2, np.uint8), 48 * 64 * 3).reshape(-1, 48, 64, 3)
    with mp4.writing(tmp_path / "a.mp4", film(frames=len(grey))) as file:
        file.write(grey)

    with Image.open(mp4.stills(tmp_path / "a.mp4")["spritesheet"]) as sheet:
        cells = [sheet.convert("L").getpixel((80 + 160 * i, 60 + 120 * j)) for j, i in CELLS]
    assert cells == pytest.approx([14 * n for n in range(16)], abs=4)


def test_a_dying_ffmpeg_is_a_fault_without_a_file(pictures, tmp_path):
    with pytest.raises(EngineFault, match="could not be written") as fault:
        write(pictures, tmp_path / "a.mp4", lambda file: os.kill(file.pid, signal.SIGKILL))

    assert fault.value.kind is FailureKind.STORAGE
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_in_ffmpegs_words(pictures, tmp_path):
    with pytest.raises(EngineFault, match="No such file") as fault:
        write(pictures, tmp_path / "nowhere" / "a.mp4")

    assert str(tmp_path) not in fault.value.message


def test_an_exception_while_writing_leaves_nothing(pictures, tmp_path):
    def stumble(file):
        file.write(pictures)
        raise KeyError

    with pytest.raises(KeyError):
        write(pictures, tmp_path / "a.mp4", stumble)

    assert list(tmp_path.iterdir()) == []
