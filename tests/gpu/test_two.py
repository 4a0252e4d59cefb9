"""On two GPUs over NCCL: the bits, the decisions and the pictures of one."""

import pytest
import torch

from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.plan import Build, ParallelPlan
from tests.engine.ranks import REFERENCE, Group
from tests.engine.rendering import REF, decoded, small
from tests.engine.test_mesh import (
    BUILDS,
    CACHED,
    LATE_SWITCH,
    OWN,
    SINGLE,
    UNGUIDED,
    lanes,
    order,
    saved,
)
from worker.ranks.messages import Cancel, Done, Step, Stopped

pytestmark = [
    pytest.mark.gpu2,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA GPUs"),
]

PAIR, HEADS = ParallelPlan(ranks=2, cfg=2), ParallelPlan(ranks=2, ulysses=2)
ALONE = ParallelPlan(ranks=2)
CASES: dict[str, tuple[ParallelPlan, str, dict, CachePolicies | None]] = {
    "cfg": (PAIR, "wan-tiny-t2v", {}, None),
    "cfg-image": (PAIR, "wan-tiny-i2v", {"image": REF}, None),
    "cfg-cached": (PAIR, "wan-tiny-t2v", {"steps": 8}, CACHED),
    "ulysses": (HEADS, "wan-tiny-t2v", {}, None),
    "ulysses-odd-tokens": (HEADS, "wan-tiny-t2v", {"width": 80, "height": 80}, None),
    "ulysses-cached": (HEADS, "wan-tiny-ti2v", {"image": REF, "steps": 8}, SINGLE),
}


@pytest.fixture(scope="module")
def group(models, tmp_path_factory):
    """A rank on each GPU."""
    ranks = Group(2, models, tmp_path_factory.mktemp("two"), device="cuda:{}")
    yield ranks
    ranks.end()


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("case", CASES)
def test_two_gpus_give_the_bits_and_decisions_of_one(group, tmp_path, picture, case, build):
    plan, model, changes, cache = CASES[case]
    spec = small(model, **changes)
    group.hold(model, build)

    done = group.ask(order(spec, plan, tmp_path, picture, cache))

    alone = group.ask(order(spec, ALONE, tmp_path, picture, cache, attempt=2))
    assert isinstance(done, Done)
    assert lanes(done) == lanes(alone)
    assert done.report.latents_sha256 == alone.report.latents_sha256


@pytest.mark.parametrize("cache", [None, CACHED], ids=["plain", "cached"])
def test_a_ring_gives_the_decisions_of_one_and_nearly_its_latents(group, tmp_path, picture, cache):
    spec = small(**LATE_SWITCH, **UNGUIDED)
    group.hold("wan-tiny-t2v", REFERENCE)
    ring = ParallelPlan(ranks=2, ring=2)

    done = group.ask(order(spec, ring, tmp_path, picture, cache))

    alone = group.ask(order(spec, ALONE, tmp_path, picture, cache, attempt=2))
    assert lanes(done) == lanes(alone)
    given, right = saved(tmp_path, ring), saved(tmp_path, ALONE)
    assert ((given - right).norm() / right.norm()).item() < 0.01  # bf16


def test_two_gpus_decode_the_pictures_of_one(group, tmp_path, picture):
    spec = small()
    group.hold("wan-tiny-t2v", OWN)

    group.ask(order(spec, PAIR, tmp_path, picture))

    group.ask(order(spec, ALONE, tmp_path, picture, attempt=2))
    both, one = (
        decoded(tmp_path / f"{n}.mp4", spec.width, spec.height).astype(int) for n in (2, 1)
    )
    assert abs(both - one).mean() < 0.1  # a byte may round the other way, as on the CPU


@pytest.mark.parametrize("sharded", ["shard_weights", "shard_text"])
def test_divided_weights_give_what_whole_ones_do(group, models, tmp_path, picture, sharded):
    spec = small()
    group.hold("wan-tiny-t2v", REFERENCE)
    whole = group.ask(order(spec, PAIR, tmp_path / "whole", picture))

    group.hold("wan-tiny-t2v", Build(**{sharded: True}))
    divided = group.ask(order(spec, PAIR, tmp_path / "divided", picture, attempt=2))

    if sharded == "shard_weights":
        assert divided.report.latents_sha256 == whole.report.latents_sha256
    given, right = (saved(tmp_path / folder, PAIR) for folder in ("divided", "whole"))
    assert ((given - right).norm() / right.norm()).item() < 0.01  # the text is a sum of two parts


def test_a_cancel_stops_both_and_the_next_job_is_as_ever(group, tmp_path, picture):
    group.hold("wan-tiny-t2v", REFERENCE)
    before = group.ask(order(small(), PAIR, tmp_path, picture))
    group.say(order(small(steps=100), PAIR, tmp_path, picture, attempt=2))
    group[0].hear(Step)

    group[0].say(Cancel(video_id="video_1", attempt=2))

    assert group[0].hear(Stopped, Done).type == "stopped"
    after = group.ask(order(small(), PAIR, tmp_path, picture, attempt=3))
    assert after.report.latents_sha256 == before.report.latents_sha256
