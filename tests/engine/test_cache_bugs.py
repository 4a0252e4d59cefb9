"""Mistakes that caches of others have made, each by its symptom."""

import contextlib
import weakref
from itertools import islice

import pytest
import torch
from diffusers import WanTransformer3DModel
from pydantic import ValidationError
from torch import nn

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.spec import FailureKind
from tests.engine.rendering import REF, Render, small
from worker.engine.cache.blocks import Blocks, blocks_of, install
from worker.engine.cache.courses import course_of
from worker.engine.cache.state import ExpertCache
from worker.engine.contract import Cancelled
from worker.engine.faults import EngineFault

SPEC = small(steps=12, frames=5)
ONE_EXPERT = small("wan-tiny-ti2v", steps=12, frames=5)
PAIR = CachePolicies(
    high=CachePolicy(warmup=2, min_steps=0),
    low=CachePolicy(warmup=1, min_steps=0, taylorseer=True),
)
ONE = CachePolicies(high=PAIR.high)


@pytest.fixture(scope="module")
def expected(render: Render):
    """What a request gives, by its latents."""
    return render(SPEC, cache=PAIR)[1].latents_sha256


def decisions(report, branch="cond"):
    return [step.branches[branch] for step in report.steps]


def patterns(report):
    made = [decisions(report, branch) for branch in report.steps[0].branches]
    return ["".join("c" if one.cached else "X" for one in branch) for branch in made]


def kept(render):
    """Every tensor that the caches of an engine hold on to, by expert and branch."""
    found = {}
    for name, expert in render.engine._parts.experts.items():
        cache = blocks_of(expert).cache
        for branch, memory in cache._branches.items() if cache else ():
            found[name, branch] = [memory._residual, *memory._taylor._terms]
    return found


def watch(render, seen):
    """A step hook that remembers, without holding on, what was kept when."""

    def step(done):
        tensors = [tensor for kept_here in kept(render).values() for tensor in kept_here]
        seen.append((done.expert, [weakref.ref(tensor) for tensor in tensors]))

    return step


def test_without_guidance_all_forwards_belong_to_one_branch(render: Render):
    spec = small(steps=13, frames=5, guidance_high=1.0)

    _, report = render(spec, cache=PAIR)

    assert patterns(report) == ["XXcccXccc" + "Xccc"]


def test_a_request_begins_with_nothing_of_the_one_before(render: Render, expected):
    render(small(steps=12, frames=5, seed=2, prompt="rain"), cache=PAIR)

    assert render(SPEC, cache=PAIR)[1].latents_sha256 == expected


def test_an_uncached_request_after_a_cached_one_computes_all(render: Render):
    _, before = render(SPEC)
    render(SPEC, cache=PAIR)

    _, after = render(SPEC)

    assert after.latents_sha256 == before.latents_sha256
    assert patterns(after) == ["X" * 12] * 2


def test_blocks_at_both_ends_are_never_run_twice(render: Render):
    with pytest.raises(EngineFault, match="The model has 6") as fault:
        render(ONE_EXPERT, cache=CachePolicies(high=CachePolicy(fn=4, bn=3)))

    assert fault.value.kind is FailureKind.BAD_INPUT


def test_two_engines_in_one_process_do_not_meet(
    render: Render, models, picture, tmp_path, expected
):
    other = Render(models, picture, tmp_path)
    alone = other(ONE_EXPERT, cache=ONE)[1].latents_sha256
    between = []

    def step(done):
        if done.step in (3, 10):
            between.append(other(ONE_EXPERT, cache=ONE)[1].latents_sha256)

    assert render(SPEC, cache=PAIR, step=step)[1].latents_sha256 == expected
    assert between == [alone, alone]


def test_the_memory_of_the_high_expert_is_free_when_the_low_one_begins(render: Render):
    seen = []

    render(SPEC, cache=PAIR, step=watch(render, seen))

    high = [one for expert, refs in seen if expert == "high" for one in refs]
    assert high
    assert [one for one in high if one() is not None] == []
    assert {expert for expert, refs in seen if refs} == {"high", "low"}


@pytest.mark.parametrize(
    ("knobs", "tensors"),
    [({}, 2), ({"taylorseer": True}, 3), ({"taylorseer": True, "ts_order": 2}, 4)],
    ids=["order-0", "order-1", "order-2"],
)
def test_a_branch_keeps_the_residual_and_one_term_per_order(render: Render, knobs, tensors):
    policies = CachePolicies(high=CachePolicy(warmup=6, **knobs))
    counts = []

    def step(done):
        if done.step == 8:
            counts.extend(map(len, kept(render).values()))
            for tensor in [tensor for branch in kept(render).values() for tensor in branch]:
                assert tensor.untyped_storage().nbytes() == tensor.nbytes

    render(ONE_EXPERT, cache=policies, step=step)

    assert counts == [tensors, tensors]


@pytest.mark.parametrize("end", ["done", "cancelled", "broken"])
@pytest.mark.parametrize("last", [3, 11])
def test_nothing_outlives_a_job(render: Render, expected, end, last):
    seen = []
    remember = watch(render, seen)

    def step(done):
        remember(done)
        if end == "broken" and done.step == last:
            raise ZeroDivisionError

    with contextlib.suppress(Cancelled, ZeroDivisionError):
        render(
            SPEC,
            cache=PAIR,
            step=step,
            cancelled=lambda: end == "cancelled" and len(seen) == last,
        )

    assert len(seen) == (12 if end == "done" else last)
    assert kept(render) == {}
    assert [one for _, refs in seen for one in refs if one() is not None] == []
    assert render(SPEC, cache=PAIR)[1].latents_sha256 == expected


def test_the_next_request_may_have_another_size(render: Render, expected):
    wide = small(steps=12, width=96, frames=5)
    _, first = render(wide, cache=PAIR)
    render(SPEC, cache=PAIR)

    _, second = render(wide, cache=PAIR)

    assert second.latents_sha256 == first.latents_sha256
    assert second.latents_sha256 != expected


def test_a_preset_that_does_not_fit_an_expert_leaves_it_unmasked(render: Render):
    masked = CachePolicy(warmup=2, min_steps=0, scm_preset="fast")

    _, report = render(small(steps=20, frames=5), cache=CachePolicies(high=masked, low=masked))

    reasons = [
        {step.branches["cond"].reason for step in report.steps if step.expert == name}
        for name in ("high", "low")
    ]
    assert ["s" in given for given in reasons] == [True, False]
    assert [told for told in report.warnings if told.startswith("scm_off")] == [
        "scm_off: The low expert ran unmasked. Its 7 steps do not fit the mask."
    ]


@pytest.mark.parametrize("image", [None, REF], ids=["text", "image"])
def test_a_model_with_one_expert_is_cached_too(render: Render, image):
    _, report = render(small("wan-tiny-ti2v", steps=12, frames=5, image=image), cache=ONE)

    assert patterns(report) == ["XXcccXcccXcc"] * 2


def test_a_cache_that_never_takes_effect_says_so(render: Render):
    blind = CachePolicies(high=CachePolicy(rdt=0.001))

    _, report = render(ONE_EXPERT, cache=blind)

    assert patterns(report) == ["X" * 12] * 2
    assert report.warnings == [
        "cache_inert: The model cached no step: no residual difference was below rdt."
    ]


def test_a_threshold_that_would_mean_always_is_refused():
    with pytest.raises(ValidationError):
        CachePolicy(rdt=1.5)


def test_a_policy_is_left_as_it_was_given(render: Render):
    before = PAIR.model_dump()

    _, report = render(SPEC, cache=PAIR)

    assert PAIR.model_dump() == before
    assert report.cache == PAIR


@torch.no_grad()
def test_without_a_cache_the_wrapper_changes_no_bit_and_no_weight(models):
    expert = WanTransformer3DModel.from_pretrained(models / "wan-tiny-ti2v" / "transformer")
    torch.manual_seed(1)
    given = torch.randn(1, 48, 2, 4, 4), torch.tensor([500]), torch.randn(1, 7, 32)
    bare, names = expert(*given).sample, expert.state_dict().keys()

    install(expert)

    assert torch.equal(expert(*given).sample, bare)
    wrapped = [name.replace("blocks.0.inner.", "blocks.") for name in expert.state_dict()]
    assert wrapped == list(names)


class Block(nn.Module):
    """A block that turns its input a little."""

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.runs = 0

    def forward(self, hidden_states, *_):
        self.runs += 1
        return hidden_states.roll(1, -1) * 0.1 + hidden_states + self.number


class Plugs:
    """A split in one piece and a stream of what is there; both remember what they are asked."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.spans, self.sums = [], 0

    def through(self, first, last):
        self.spans.append((first, last))
        return islice(self.blocks.inner, first, last)

    def split(self, hidden_states, temb, rotary_emb):
        return hidden_states[:, :5], temb, rotary_emb

    def gather(self, hidden_states):
        return hidden_states.repeat(1, 2, 1)

    def sum(self, sums):
        self.sums += 1
        assert sums.shape == (2,)
        assert sums.dtype == torch.float32
        return sums


def forwards(blocks, count):
    torch.manual_seed(1)
    hidden = torch.randn(1, 10, 4)
    given = []
    for _ in range(count):
        with blocks.branch("cond"):
            given.append(blocks(hidden.clone(), None, None, None))
    return given


def test_a_skipped_block_is_neither_run_nor_fetched():
    blocks = Blocks(nn.ModuleList(map(Block, range(6))))
    blocks.cache = ExpertCache(course_of(CachePolicy(fn=2, bn=1, warmup=1), 13, 6))
    blocks.stream = plugs = Plugs(blocks)

    forwards(blocks, 5)

    computed, cached = [(0, 2), (2, 5), (5, 6)], [(0, 2), (5, 6)]
    assert plugs.spans == [*computed, *cached * 3, *computed]
    assert [block.runs for block in blocks.inner] == [5, 5, 2, 2, 2, 5]


def test_ranks_of_one_sequence_add_up_only_where_a_difference_decides():
    blocks = Blocks(nn.ModuleList(map(Block, range(6))))
    blocks.cache = ExpertCache(course_of(CachePolicy(warmup=2, mc=2), 13, 6))
    blocks.sequence = plugs = Plugs(blocks)

    given = forwards(blocks, 8)

    assert blocks.inner[-1].runs == 4
    assert plugs.sums == 4
    assert {tuple(one.shape) for one in given} == {(1, 10, 4)}
    share = blocks.cache.branch("cond")._residual
    assert share.untyped_storage().nbytes() == share.nbytes
