"""Two real ranks over gloo: the same video as one, and nothing left after a cancel."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import FailureKind
from tests.engine.ranks import Group, job, load
from tests.engine.rendering import small
from tests.engine.test_resume import eight, until
from worker.ranks.messages import Cancel, Done, Failed, Loaded, Saved, Step, Stopped

PAIR = ParallelPlan(ranks=2, cfg=2)
SOLO = ParallelPlan(ranks=2)


def start(models, scratch) -> Group:
    """Two ranks with the text-to-video miniature."""
    ranks = Group(2, models, scratch)
    ranks.hold("wan-tiny-t2v")
    return ranks


@pytest.fixture(scope="module")
def pair(models, tmp_path_factory):
    """Two ranks that live through all tests of this file and leave politely."""
    ranks = start(models, tmp_path_factory.mktemp("pair"))
    yield ranks
    ranks.leave()
    ranks.end()


def test_two_ranks_render_what_one_renders(pair, render, tmp_path):
    spec = small()

    done = pair.ask(job(spec, PAIR, tmp_path / "pair.mp4"))

    _, alone = render(spec)
    assert done.report.latents_sha256 == alone.latents_sha256
    assert (tmp_path / "pair.mp4").read_bytes() == (render.scratch / "video.mp4").read_bytes()


def test_two_ranks_cache_the_steps_that_one_caches(pair, render, tmp_path):
    policy = CachePolicy(warmup=1, rdt=0.14, mc=-1, min_steps=0)
    policies = CachePolicies(high=policy, low=policy)
    spec = small(steps=13)
    command = job(spec, PAIR, tmp_path / "pair.mp4").model_copy(update={"cache": policies})

    done = pair.ask(command)

    _, alone = render(spec, cache=policies)
    assert done.report.latents_sha256 == alone.latents_sha256
    assert [step.branches for step in done.report.steps] == [step.branches for step in alone.steps]
    assert {one.reason for step in alone.steps for one in step.branches.values()} >= {"d", "D"}
    assert done.report.warnings == alone.warnings


def test_one_rank_stands_by_without_guidance(pair, render, tmp_path):
    spec = small(guidance_high=1.0)

    done = pair.ask(job(spec, SOLO, tmp_path / "solo.mp4"))

    _, alone = render(spec)
    assert done.report.latents_sha256 == alone.latents_sha256


def test_a_cancel_stops_both_and_the_next_job_is_as_in_a_fresh_process(pair, render, tmp_path):
    spec = small()
    endless = job(small(steps=100), PAIR, tmp_path / "endless.mp4", attempt=7)
    assert pair.ask(endless, Step).step == 1
    pair[0].say(Cancel(video_id=endless.video_id, attempt=7))
    assert 1 <= pair[0].hear(Stopped).step < 100
    assert list(tmp_path.iterdir()) == []

    done = pair.ask(job(spec, PAIR, tmp_path / "next.mp4"))

    assert done.report.latents_sha256 == render(spec)[1].latents_sha256


def test_a_plan_for_two_branches_without_guidance_is_refused_by_both(pair, tmp_path):
    failed = pair.ask(job(small(guidance_high=1.0), PAIR, tmp_path / "refused.mp4"))

    assert failed.kind == pair[1].hear(Failed).kind == "bad_input"
    assert isinstance(pair.ask(job(small(), PAIR, tmp_path / "after.mp4")), Done)


def test_one_rank_goes_on_from_what_two_have_saved(pair, render, tmp_path):
    spec = small(steps=60)
    command = job(spec, PAIR, tmp_path / "out.mp4", attempt=8)
    assert pair.ask(command.model_copy(update={"save_to": str(tmp_path)}), Step).step == 1
    pair[0].say(Cancel(video_id=command.video_id, attempt=8, save=True))
    saved, stopped = pair[0].hear(Saved), pair[0].hear(Stopped)

    _, report = render(spec, resume=tmp_path / "latents.safetensors")

    assert report.resumed_at == saved.step == stopped.step
    assert report.latents_sha256 == render(spec)[1].latents_sha256


def test_two_ranks_go_on_from_what_one_has_saved(pair, render, tmp_path):
    saved = until(render, eight(), 4, tmp_path)
    command = job(eight(), PAIR, tmp_path / "out.mp4", attempt=9)

    done = pair.ask(command.model_copy(update={"resume": str(saved)}))

    assert done.report.resumed_at == 4
    assert done.report.latents_sha256 == render(eight())[1].latents_sha256


def test_two_ranks_begin_anew_when_the_saved_latents_are_damaged(pair, render, tmp_path):
    saved = until(render, eight(), 4, tmp_path)
    saved.write_bytes(b"half")
    command = job(eight(), PAIR, tmp_path / "out.mp4", attempt=10)

    done = pair.ask(command.model_copy(update={"resume": str(saved)}))

    assert done.report.resumed_at is None
    assert done.report.latents_sha256 == render(eight())[1].latents_sha256


def test_numbers_that_one_rank_loses_end_the_job_on_both_and_the_next_job_runs(
    pair, render, models, tmp_path
):
    ill = tmp_path / "wan-tiny-t2v"
    shutil.copytree(models / "wan-tiny-t2v", ill)
    shard = ill / "transformer/diffusion_pytorch_model.safetensors"
    weights = load_file(shard)
    save_file(weights | {"proj_out.bias": weights["proj_out.bias"] * float("nan")}, shard)
    pair[1].say(load("wan-tiny-t2v", ill, ranks=2))
    pair[1].hear(Loaded)

    failed = pair.ask(job(small(), PAIR, tmp_path / "ill.mp4"))

    assert failed.kind == pair[1].hear(Failed).kind == "non_finite"
    assert "at step 1" in failed.message
    pair[1].say(load("wan-tiny-t2v", models / "wan-tiny-t2v", ranks=2))
    pair[1].hear(Loaded)
    done = pair.ask(job(small(), PAIR, tmp_path / "well.mp4"))
    assert done.report.latents_sha256 == render(small())[1].latents_sha256


def test_a_rank_that_loses_the_other_says_so(models, tmp_path):
    pair = start(models, tmp_path)
    try:
        pair.ask(job(small(steps=100), PAIR, tmp_path / "out.mp4"), Step)

        pair[1].kill()

        assert pair[0].hear(Failed).kind is FailureKind.COLLECTIVE
    finally:
        pair.end()
