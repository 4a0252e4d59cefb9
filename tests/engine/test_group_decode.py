"""Two real ranks that decode one video together: the pictures of one, and no rank left waiting."""

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import Phase
from tests.engine.ranks import Group, job
from tests.engine.rendering import Render, decoded, small
from worker.ranks.messages import Cancel, Done, Failed, PhaseBegan, Stopped

MODEL = "wan-tiny-t2v"
OWN = Build(precision="bf16")
PAIR = ParallelPlan(ranks=2, cfg=2)


@pytest.fixture(scope="module")
def pair(models, tmp_path_factory):
    """Two ranks whose engine has our own decoder."""
    ranks = Group(2, models, tmp_path_factory.mktemp("pair"))
    ranks.hold(MODEL, OWN)
    yield ranks
    ranks.end()


def decoding(pair, path: Path, attempt: int):
    """A job with very many frames, when it begins to decode."""
    command = job(small(frames=401, steps=1), PAIR, path, attempt)
    began = pair.ask(command, PhaseBegan)
    while began.phase is not Phase.DECODE:
        began = pair[0].hear(PhaseBegan)
    return command


def ffmpegs(parent: int) -> list[int]:
    """The processes that encode for a rank."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def test_two_ranks_make_the_pictures_of_one(pair, models, picture, tmp_path):
    spec = small()
    alone = Render(models, picture, tmp_path, build=OWN)

    done = pair.ask(job(spec, PAIR, tmp_path / "pair.mp4"))

    file, report = alone(spec)
    assert done.report.latents_sha256 == report.latents_sha256
    ours, one = (decoded(Path(path), 64, 64).astype(int) for path in (done.file.path, file.path))
    assert np.abs(ours - one).mean() < 0.1  # a byte may round the other way


def test_a_cancel_while_decoding_stops_both(pair, tmp_path):
    endless = decoding(pair, tmp_path / "endless.mp4", attempt=7)

    pair[0].say(Cancel(video_id=endless.video_id, attempt=7))

    assert pair[0].hear(Stopped, Done, Failed).step == 1
    assert list(tmp_path.iterdir()) == []
    assert isinstance(pair.ask(job(small(), PAIR, tmp_path / "next.mp4")), Done)


def test_a_dying_ffmpeg_is_told_and_stops_both(pair, tmp_path, eventually):
    decoding(pair, tmp_path / "endless.mp4", attempt=8)
    encoder = eventually(lambda: ffmpegs(pair[0].pid))[0]

    os.kill(encoder, signal.SIGKILL)

    assert pair[0].hear(Stopped, Done, Failed).kind is FailureKind.STORAGE
    assert list(tmp_path.iterdir()) == []
    assert isinstance(pair.ask(job(small(), PAIR, tmp_path / "next.mp4")), Done)
