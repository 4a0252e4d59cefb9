"""Weights divided over two real ranks: what one rank computes, from a share of the memory each."""

from pathlib import Path

import pytest
import torch

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.plan import Build, ParallelPlan, Residency
from tests.engine.ranks import Group, job, side_by_side
from tests.engine.rendering import small
from worker.engine.contract import Seat
from worker.engine.model import loading
from worker.engine.model.offload import Placement, resting
from worker.engine.parallel.ranks import Ranks
from worker.ranks.messages import Done

PAIR = ParallelPlan(ranks=2, cfg=2)
WEIGHTS, TEXT = Build(shard_weights=True), Build(shard_text=True)
BOTH = Build(shard_weights=True, shard_text=True)
MODEL = "wan-tiny-t2v"
PROMPTS = ["a red ball", "", "grey"]
CPU = torch.device("cpu")
# the two branches decide for themselves: one may skip blocks that the other runs
CACHED = CachePolicies(
    high=CachePolicy(warmup=1, rdt=0.12515, min_steps=0),
    low=CachePolicy(warmup=1, rdt=0.2, min_steps=0),
)


@pytest.fixture(scope="module")
def pair(models, tmp_path_factory):
    """Two ranks with nothing loaded."""
    ranks = Group(2, models, tmp_path_factory.mktemp("pair"))
    yield ranks
    ranks.leave()
    ranks.end()


def rendered(pair, tmp_path, spec, build: Build, plan=PAIR, **more):
    pair.hold(MODEL, build)
    return pair.ask(job(spec, plan, tmp_path / "out.mp4").model_copy(update=more))


@pytest.mark.parametrize("way", [{"cfg": 2}, {"ulysses": 2}], ids=lambda way: next(iter(way)))
def test_divided_weights_give_the_bits_of_one_rank(pair, models, render, tmp_path, way):
    spec = small()

    done = rendered(pair, tmp_path, spec, WEIGHTS, ParallelPlan(ranks=2, **way))

    assert done.report.latents_sha256 == render(spec)[1].latents_sha256


def test_ranks_that_skip_different_blocks_still_meet(pair, models, render, tmp_path):
    spec = small(steps=12)

    done = rendered(pair, tmp_path, spec, WEIGHTS, cache=CACHED)

    alone = render(spec, cache=CACHED)[1]
    steps = [step.branches for step in alone.steps]
    assert any(step["cond"].cached != step["uncond"].cached for step in steps)
    assert [step.branches for step in done.report.steps] == steps
    assert done.report.latents_sha256 == alone.latents_sha256


def test_divided_weights_and_parts_in_cpu_memory_go_together(pair, models, render, tmp_path):
    spec = small(prompt="both at once")
    residency = Residency(text_encoder=True, experts=True, vae=True, layerwise=True)
    plan = PAIR.model_copy(update={"residency": residency})

    done = rendered(pair, tmp_path, spec, BOTH, plan)

    again = pair.ask(job(spec, plan, tmp_path / "again.mp4"))
    assert done.report.latents_sha256 == again.report.latents_sha256


def test_a_plan_that_leaves_an_owner_out_is_refused(pair, models, tmp_path):
    spec = small(guidance_high=1.0)

    failed = rendered(pair, tmp_path, spec, WEIGHTS, ParallelPlan(ranks=2))

    assert failed.kind == "bad_input"
    assert isinstance(rendered(pair, tmp_path, small(), WEIGHTS), Done)


def encode(rank: int, scratch: Path, model: Path) -> None:
    """One of two ranks that encode together; a process of its own."""
    ranks = Ranks(Seat(rank, 2, scratch / "rendezvous", "cpu", threads=1))
    away = resting(Residency(), BOTH)
    parts = loading.load(model, CPU, BOTH, with_text=True, resting=away)
    whole = sum(p.nbytes for p in parts.high.parameters())
    Placement(parts, CPU, BOTH, ranks.shares).settle(Residency())
    with torch.no_grad():
        made = parts.prompts.embed(PROMPTS)
    held = sum(p.nbytes for p in parts.prompts.encoder.parameters())
    ratio = sum(p.nbytes for p in parts.high.parameters()) / whole
    torch.save({"made": made, "held": held, "ratio": ratio}, scratch / f"{rank}.pt")
    ranks.leave()


@pytest.fixture(scope="module")
def divided(models, tmp_path_factory) -> list[dict]:
    """What two ranks with everything divided have made and hold."""
    scratch = tmp_path_factory.mktemp("divided")
    side_by_side(encode, [(rank, scratch, models / MODEL) for rank in range(2)])
    return [torch.load(scratch / f"{rank}.pt") for rank in range(2)]


def test_a_divided_text_encoder_gives_what_the_whole_one_does(divided, models):
    whole = loading.load(models / MODEL, CPU, Build(), with_text=True).prompts

    with torch.no_grad():
        expected = whole.embed(PROMPTS)

    for one, other, wanted in zip(*(rank["made"] for rank in divided), expected, strict=True):
        assert one.equal(other)
        assert torch.allclose(one, wanted, rtol=1e-5, atol=1e-6)


def test_each_rank_holds_its_part_only(divided, models):
    whole = loading.load(models / MODEL, CPU, Build(), with_text=True)
    encoder = whole.prompts.encoder
    alone = sum(p.nbytes for p in encoder.parameters())
    not_divided = encoder.shared.weight.nbytes

    for rank in divided:
        assert rank["held"] - not_divided < 0.55 * (alone - not_divided)
        assert rank["ratio"] < 0.2  # at rest, a block's own tensors are empty
