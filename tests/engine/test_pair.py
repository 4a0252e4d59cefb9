"""Two real ranks over gloo: the same video as one, and nothing left after a cancel."""

import pytest

from shared.vocabulary.spec import FailureKind, ParallelPlan
from tests.engine.ranks import Rank, job, load
from tests.engine.rendering import small
from worker.ranks.messages import Cancel, Done, Failed, Hello, Loaded, Step, Stop, Stopped

PAIR = ParallelPlan(ranks=2, cfg=2)
SOLO = ParallelPlan(ranks=2)


def start(models, scratch):
    """Two ranks with the text-to-video miniature."""
    ranks = [Rank(number, 2, scratch) for number in range(2)]
    for rank in ranks:
        rank.hear(Hello)
        rank.say(load("wan-mini-t2v", models / "wan-mini-t2v", ranks=2))
    for rank in ranks:
        assert isinstance(rank.hear(), Loaded)
    return ranks


@pytest.fixture(scope="module")
def pair(models, tmp_path_factory):
    """Two ranks that live through all tests of this file and leave politely."""
    ranks = start(models, tmp_path_factory.mktemp("pair"))
    yield ranks
    for rank in ranks:
        rank.say(Stop())
    assert [rank.process.wait(10) for rank in ranks] == [0, 0]
    for rank in ranks:
        rank.end()


def ask(pair, command, *kinds):
    for rank in pair:
        rank.say(command)
    return pair[0].hear(*(kinds or (Done, Failed)))


def test_two_ranks_render_what_one_renders(pair, render, tmp_path):
    spec = small()

    done = ask(pair, job(spec, PAIR, tmp_path / "pair.mp4"))

    _, alone = render(spec)
    assert done.report.latents_sha256 == alone.latents_sha256
    assert (tmp_path / "pair.mp4").read_bytes() == (render.scratch / "video.mp4").read_bytes()


def test_one_rank_stands_by_without_guidance(pair, render, tmp_path):
    spec = small(guidance_high=1.0)

    done = ask(pair, job(spec, SOLO, tmp_path / "solo.mp4"))

    _, alone = render(spec)
    assert done.report.latents_sha256 == alone.latents_sha256


def test_a_cancel_stops_both_and_the_next_job_is_as_in_a_fresh_process(pair, render, tmp_path):
    spec = small()
    endless = job(small(steps=100), PAIR, tmp_path / "endless.mp4", attempt=7)
    assert ask(pair, endless, Step).step == 1
    pair[0].say(Cancel(video_id=endless.video_id, attempt=7))
    assert 1 <= pair[0].hear(Stopped).step < 100
    assert list(tmp_path.iterdir()) == []

    done = ask(pair, job(spec, PAIR, tmp_path / "next.mp4"))

    assert done.report.latents_sha256 == render(spec)[1].latents_sha256


def test_a_plan_for_two_branches_without_guidance_is_refused_by_both(pair, tmp_path):
    failed = ask(pair, job(small(guidance_high=1.0), PAIR, tmp_path / "refused.mp4"))

    assert failed.kind == pair[1].hear(Failed).kind == "bad_input"
    assert isinstance(ask(pair, job(small(), PAIR, tmp_path / "after.mp4")), Done)


def test_a_rank_that_loses_the_other_says_so(models, tmp_path):
    pair = start(models, tmp_path)
    try:
        ask(pair, job(small(steps=100), PAIR, tmp_path / "out.mp4"), Step)

        pair[1].process.kill()

        assert pair[0].hear(Failed).kind is FailureKind.COLLECTIVE
    finally:
        for rank in pair:
            rank.end()
