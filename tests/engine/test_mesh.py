"""Ranks over gloo that divide a video: its branches, its tokens by heads, its tokens in a ring."""

import pytest
import torch
from safetensors.torch import load_file

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import FailureKind
from tests.engine.ranks import REFERENCE, Group, job
from tests.engine.rendering import REF, small
from worker.ranks.messages import Cancel, Done, Failed, Probe, Probed, Step, Stopped

EAGER = CachePolicy(warmup=1, rdt=0.14, mc=-1, min_steps=0)
CACHED = CachePolicies(high=EAGER, low=EAGER)
SINGLE = CachePolicies(high=EAGER)
UNGUIDED = {"guidance_high": 1.0}
OWN = Build(precision="bf16")
BUILDS = {"reference": REFERENCE, "own": OWN}


@pytest.fixture(scope="module")
def groups(models, tmp_path_factory):
    """Two ranks and four, started when they are asked for."""
    started: dict[int, Group] = {}

    def of(count: int) -> Group:
        if count not in started:
            started[count] = Group(count, models, tmp_path_factory.mktemp(f"mesh{count}"))
        return started[count]

    yield of
    for group in started.values():
        group.end()


def order(spec, plan, folder, picture, cache=None, attempt=1):
    folder.mkdir(exist_ok=True)
    command = job(spec, plan, folder / f"{plan.active}.mp4", attempt=attempt)
    image = str(picture) if spec.image else None
    saves = {"save_to": str(folder / str(plan.active))}
    return command.model_copy(update={"cache": cache, "image": image} | saves)


def lanes(done) -> list:
    return [
        {name: (one.cached, one.reason) for name, one in step.branches.items()}
        for step in done.report.steps
    ]


CASES = {
    "ulysses": ((1, 2, 1), "wan-tiny-t2v", UNGUIDED, None),
    "ulysses-guided": ((1, 2, 1), "wan-tiny-t2v", {}, None),
    "ulysses-cached": ((1, 2, 1), "wan-tiny-t2v", {"steps": 8}, CACHED),
    "ulysses-odd-tokens": ((1, 2, 1), "wan-tiny-t2v", {"width": 80, "height": 80}, None),
    "ulysses-per-token-times": ((1, 2, 1), "wan-tiny-ti2v", {"image": REF}, None),
    "cfg-ulysses": ((2, 2, 1), "wan-tiny-t2v", {}, None),
    "cfg-ulysses-cached": ((2, 2, 1), "wan-tiny-ti2v", {"image": REF, "steps": 8}, SINGLE),
}


# our own kernels in every case; the reference's in the richest, and in all before a release
DIVIDED = [
    pytest.param(
        case,
        build,
        id=f"{case}-{name}",
        marks=() if name == "own" or case == "cfg-ulysses-cached" else (pytest.mark.long,),
    )
    for name, build in BUILDS.items()
    for case in CASES
]


@pytest.mark.parametrize(("case", "build"), DIVIDED)
def test_divided_heads_give_the_bits_and_decisions_of_one_rank(
    groups, tmp_path, picture, case, build
):
    (cfg, ulysses, ring), model, changes, cache = CASES[case]
    spec = small(model, **changes)
    ranks = cfg * ulysses * ring
    group = groups(ranks)
    group.hold(model, build)
    divided = ParallelPlan(ranks=ranks, cfg=cfg, ulysses=ulysses, ring=ring)

    done = group.ask(order(spec, divided, tmp_path, picture, cache))

    alone = group.ask(order(spec, ParallelPlan(ranks=ranks), tmp_path, picture, cache, attempt=2))
    assert isinstance(done, Done)
    assert lanes(done) == lanes(alone)
    assert done.report.latents_sha256 == alone.report.latents_sha256
    if cache:
        assert any(one.cached for step in done.report.steps for one in step.branches.values())


LATE_SWITCH = {"steps": 8, "boundary": 0.7}  # the second expert takes the eighth step alone


def saved(folder, plan) -> torch.Tensor:
    """The latents that a job saved when its experts took turns."""
    (path,) = (folder / str(plan.active)).glob("*.safetensors")
    return load_file(path)["latents"]


@pytest.mark.parametrize("cache", [None, CACHED], ids=["plain", "cached"])
def test_a_ring_gives_the_decisions_of_one_rank_and_nearly_its_latents(
    groups, tmp_path, picture, cache
):
    spec = small(**LATE_SWITCH, **UNGUIDED)
    group = groups(2)
    group.hold("wan-tiny-t2v", REFERENCE)
    ring, solo = ParallelPlan(ranks=2, ring=2), ParallelPlan(ranks=2)

    done = group.ask(order(spec, ring, tmp_path, picture, cache))

    alone = group.ask(order(spec, solo, tmp_path, picture, cache, attempt=2))
    assert lanes(done) == lanes(alone)
    assert done.report.switch_step == alone.report.switch_step == 8
    torch.testing.assert_close(saved(tmp_path, ring), saved(tmp_path, solo), rtol=1e-4, atol=1e-4)


def test_an_attention_without_its_log_sum_exp_is_refused_in_a_ring(groups, tmp_path, picture):
    group = groups(2)
    group.hold("wan-tiny-t2v", OWN)
    ring = ParallelPlan(ranks=2, ring=2)

    failed = group.ask(order(small(**UNGUIDED), ring, tmp_path, picture))

    assert failed.kind is FailureKind.BAD_INPUT
    assert "attention 'native' gives no log-sum-exp" in failed.message
    assert isinstance(group[1].hear(Failed), Failed)


def test_a_cancel_stops_four_ranks_and_the_next_job_is_as_ever(groups, tmp_path, picture):
    group = groups(4)
    group.hold("wan-tiny-t2v", REFERENCE)
    plan = ParallelPlan(ranks=4, cfg=2, ulysses=2)
    before = group.ask(order(small(), plan, tmp_path, picture))
    group.say(order(small(steps=50), plan, tmp_path, picture, attempt=2))
    group[0].hear(Step)

    group[0].say(Cancel(video_id="video_1", attempt=2))

    assert group[0].hear(Stopped, Done).type == "stopped"
    after = group.ask(order(small(), plan, tmp_path, picture, attempt=3))
    assert after.report.latents_sha256 == before.report.latents_sha256


def test_ranks_that_were_told_different_policies_end_the_job_on_both(groups, tmp_path, picture):
    group = groups(2)
    group.hold("wan-tiny-t2v", REFERENCE)
    plan = ParallelPlan(ranks=2, ulysses=2)
    never = CachePolicies(**dict.fromkeys(("high", "low"), CachePolicy(warmup=9, min_steps=0)))

    for rank, cache in zip(group, (None, never), strict=True):
        rank.say(order(small(), plan, tmp_path, picture, cache))

    heard = [rank.hear(Failed, Done) for rank in group]
    assert [(one.type, one.kind) for one in heard] == [("failed", FailureKind.COLLECTIVE)] * 2
    assert isinstance(group.ask(order(small(), plan, tmp_path, picture, attempt=2)), Done)


def test_two_groups_at_once_do_not_disturb_each_other(groups, models, tmp_path, picture):
    group, other = groups(2), Group(2, models, tmp_path)
    try:
        for each in (group, other):
            each.hold("wan-tiny-t2v", REFERENCE)
        red, blue = small(seed=2), small(seed=3)
        branches, heads = ParallelPlan(ranks=2, cfg=2), ParallelPlan(ranks=2, ulysses=2)

        group.say(order(red, branches, tmp_path / "red", picture))
        other.say(order(blue, heads, tmp_path / "blue", picture))

        made = [each[0].hear(Done).report.latents_sha256 for each in (group, other)]
        solo = ParallelPlan(ranks=2)
        alone = [group.ask(order(spec, solo, tmp_path, picture)) for spec in (red, blue)]
        assert made == [one.report.latents_sha256 for one in alone]
        assert made[0] != made[1]
    finally:
        other.end()


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_pass_their_self_test_together(groups, count):
    group = groups(count)

    group.say(Probe())

    assert [one.hear(Probed).rank for one in group] == list(range(count))
