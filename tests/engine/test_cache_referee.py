"""The block cache against cache-dit 1.5.3: the same decisions and the same bits."""

import hashlib
from itertools import product

import cache_dit
import pytest
import torch
from cache_dit import DBCacheConfig, ParamsModifier, TaylorSeerCalibratorConfig

from shared.vocabulary.cache import CachePolicies, CachePolicy
from tests.engine.rendering import Render, small
from tests.engine.test_equality import FLAVOURS, ask, set_up_like
from worker.engine.cache.blocks import install
from worker.engine.cache.courses import check, course_of
from worker.engine.cache.masks import scm_mask
from worker.engine.cache.state import ExpertCache
from worker.engine.denoise.schedule import Schedule
from worker.engine.faults import EngineFault

EXPERTS = {1: ("single",), 2: ("high", "low")}
STEPS = 13
POLICIES = {
    "defaults": {},
    "close": {"warmup": 1, "rdt": 0.14, "mc": -1},
    "first-2-last-1": {"fn": 2, "bn": 1, "warmup": 2, "rdt": 0.16},
    "few": {"warmup": 1, "mc": 2, "max_cached": 3},
    "every-second": {"warmup": 5, "warmup_interval": 2, "rdt": 0.2},
    "accumulated": {"warmup": 2, "mc": -1, "max_accumulated": 0.5},
    "taylor-1": {"warmup": 4, "rdt": 0.2, "taylorseer": True},
    "taylor-2-last-2": {"warmup": 3, "mc": 1, "bn": 2, "taylorseer": True, "ts_order": 2},
    "always": {"warmup": 2, "mc": 2, "rdt": "always"},
    "bins": {
        "warmup": 2,
        "rdt": 0.16,
        "mc": -1,
        "scm_compute_bins": (2, 1, 9),
        "scm_cache_bins": (3, 2),
    },
    "static-bins": {
        "scm_compute_bins": (2, 1, 1, 1),
        "scm_cache_bins": (1, 2, 3, 9),
        "scm_policy": "static",
        "taylorseer": True,
    },
}


def marks(flavour, name):
    """Every policy of one flavour, and a third of the others' each time; all before a release."""
    turn = [*POLICIES].index(name) + [*FLAVOURS].index(flavour)
    return () if flavour == "t2v" or turn % 3 == 0 else (pytest.mark.long,)


CASES = [
    pytest.param(
        flavour, STEPS, policy, policy, 4.0, id=f"{flavour}-{name}", marks=marks(flavour, name)
    )
    for flavour, (name, policy) in product(FLAVOURS, POLICIES.items())
]
CASES += [
    pytest.param("t2v", 12, {"scm_preset": "fast"}, {"scm_preset": "ultra"}, 4.0, id="presets"),
    pytest.param("t2v", 18, POLICIES["close"], POLICIES["taylor-2-last-2"], 4.0, id="t2v-pair"),
    pytest.param("i2v", 18, POLICIES["taylor-1"], POLICIES["close"], 4.0, id="i2v-pair"),
    *(
        pytest.param(flavour, STEPS, POLICIES[name], POLICIES[name], 1.0, id=f"{flavour}-unguided")
        for flavour, name in zip(
            FLAVOURS, ("close", "bins", "taylor-2-last-2", "first-2-last-1"), strict=True
        )
    ),
]


def both(high, low, spec):
    """Policies of a model; without `min_steps`, which is ours."""
    pair = [CachePolicy(min_steps=0, **knobs) for knobs in (high, low)]
    return CachePolicies(high=pair[0], low=pair[1] if spec.card.experts > 1 else None)


def steps_of(spec):
    high = Schedule.of(spec).high_steps
    return [high, spec.steps - high]


class Referee:
    """diffusers' pipelines under cache-dit, from the directory that our engine loads."""

    def __init__(self, models, picture, **loading):
        self.models, self.picture, self.loading = models, picture, loading
        self.kept = {}

    def plain(self, spec):
        return set_up_like(spec, self.models, self.kept, **self.loading)

    def __call__(self, spec, policies, **more):
        """The latents; and the cached steps and measured differences of each expert's branches."""
        pipe = self.plain(spec)
        given = [policy for policy in (policies.high, policies.low) if policy]
        modifiers = [modifier(*each, **more) for each in zip(given, steps_of(spec), strict=False)]
        cache_dit.enable_cache(pipe, cache_config=DBCacheConfig(**more), params_modifiers=modifiers)
        try:
            latents = ask(pipe, spec, self.picture, "latent")
            experts = [pipe.transformer, getattr(pipe, "transformer_2", None)][: len(given)]
            return latents, [seen(expert, cfg) for expert in experts for cfg in branches(spec)]
        finally:
            cache_dit.disable_cache(pipe)


def settings(policy, steps, **more):
    """One expert's policy in cache-dit's words."""
    mask = scm_mask(policy, steps)
    return DBCacheConfig(
        Fn_compute_blocks=policy.fn,
        Bn_compute_blocks=policy.bn,
        max_warmup_steps=policy.warmup,
        warmup_interval=policy.warmup_interval,
        residual_diff_threshold=1.0 if policy.rdt == "always" else policy.rdt,
        max_continuous_cached_steps=policy.mc,
        max_cached_steps=policy.max_cached,
        max_accumulated_residual_diff_threshold=policy.max_accumulated,
        steps_computation_mask=None if mask is None else [int(mark) for mark in mask],
        steps_computation_policy=policy.scm_policy,
        **more,
    )


def modifier(policy, steps, **more):
    cache = {"cache_config": settings(policy, steps, **more)}
    if not policy.taylorseer:
        return ParamsModifier(**cache)
    taylor = TaylorSeerCalibratorConfig(taylorseer_order=policy.ts_order)
    return ParamsModifier(**cache, calibrator_config=taylor)


def branches(spec):
    return ("cond", "uncond") if spec.guided else ("cond",)


def seen(expert, branch):
    kind = "" if branch == "cond" else "_cfg"
    diffs = getattr(expert, f"{kind}_residual_diffs")
    return getattr(expert, f"{kind}_cached_steps"), {int(n): diff for n, diff in diffs.items()}


def in_numbers(decisions):
    """Decisions of one branch in the same form."""
    cached = [n for n, decision in enumerate(decisions) if decision.cached]
    return cached, {n: made.diff for n, made in enumerate(decisions) if made.diff is not None}


def told(steps, spec):
    """What our report tells, in the same form."""
    return [
        in_numbers([step.branches[branch] for step in steps if step.expert == expert])
        for expert, branch in product(EXPERTS[spec.card.experts], branches(spec))
    ]


@pytest.fixture(scope="module")
def referee(models, picture):
    return Referee(models, picture)


@pytest.mark.parametrize(("flavour", "steps", "high", "low", "guidance"), CASES)
def test_decisions_and_latents_equal_those_of_cache_dit(
    render: Render, referee, flavour, steps, high, low, guidance
):
    model, image = FLAVOURS[flavour]
    spec = small(model, image=image, steps=steps, frames=5, guidance_high=guidance)
    policies = both(high, low, spec)

    _, report = render(spec, cache=policies)

    latents, theirs = referee(spec, policies, enable_separate_cfg=spec.guided)
    ours = told(report.steps, spec)
    assert [cached for cached, _ in ours] == [cached for cached, _ in theirs]
    assert [diffs for _, diffs in ours] == [pytest.approx(d, rel=1e-4) for _, d in theirs]
    assert report.latents_sha256 == hashlib.sha256(latents.numpy().tobytes()).hexdigest()


class Noting(ExpertCache):
    """Keeps all decisions."""

    def __init__(self, course):
        super().__init__(course)
        self.made = {"cond": [], "uncond": []}

    def branch(self, name):
        self.turn = name
        return super().branch(name)

    def note(self, *_):
        self.made[self.turn].append(self.decisions()[self.turn])


def ours_in_their_loop(pipe, spec, policies, picture):
    """Our blocks in diffusers' own pipeline: what they decide."""
    given = [policy for policy in (policies.high, policies.low) if policy]
    experts = [pipe.transformer, getattr(pipe, "transformer_2", None)][: len(given)]
    caches = []
    for expert, policy, steps in zip(experts, given, steps_of(spec), strict=False):
        blocks = install(expert)
        blocks.cache = Noting(course_of(policy, steps, len(blocks.inner)))
        blocks.register_forward_hook(blocks.cache.note)
        caches.append(blocks.cache)
    ask(pipe, spec, picture, "latent")
    for expert in experts:
        expert.blocks = expert.blocks[0].inner
        del expert.cache_context
    return [in_numbers(cache.made[branch]) for cache in caches for branch in branches(spec)]


@pytest.fixture(scope="module")
def rounded(models, picture):
    return Referee(models, picture, dtype=torch.bfloat16)


ROUNDED = [
    pytest.param(flavour, name, marks=marks(flavour, name))
    for flavour, name in product(FLAVOURS, ("defaults", "first-2-last-1", "taylor-2-last-2"))
]


@pytest.mark.parametrize(("flavour", "name"), ROUNDED)
def test_decisions_equal_those_of_cache_dit_in_bf16(rounded, picture, flavour, name):
    model, image = FLAVOURS[flavour]
    spec = small(model, image=image, steps=STEPS, frames=5)
    policies = both(POLICIES[name], POLICIES[name], spec)

    ours = ours_in_their_loop(rounded.plain(spec), spec, policies, picture)

    _, theirs = rounded(spec, policies, enable_separate_cfg=True)
    assert [cached for cached, _ in ours] == [cached for cached, _ in theirs]
    assert [diffs for _, diffs in ours] == [pytest.approx(d, rel=1e-2) for _, d in theirs]


def test_presets_give_the_masks_of_cache_dit():
    for preset, steps in product(("slow", "medium", "fast", "ultra"), (4, 6, *range(8, 101))):
        ours = scm_mask(CachePolicy(scm_preset=preset), steps)

        assert list(ours) == cache_dit.steps_mask(mask_policy=preset, total_steps=steps)


ALONE = small("wan-tiny-ti2v", steps=STEPS, frames=5)


def test_cache_dit_takes_forwards_without_guidance_for_two_branches(render: Render, referee):
    spec = ALONE.model_copy(update={"guidance_high": 1.0})
    policies = both(POLICIES["defaults"], {}, spec)

    _, report = render(spec, cache=policies)

    _, one_branch = referee(spec, policies, enable_separate_cfg=False)
    _, its_default = referee(spec, policies)
    ours = [cached for cached, _ in told(report.steps, spec)]
    assert ours == [cached for cached, _ in one_branch]
    assert ours != [cached for cached, _ in its_default]


def test_cache_dit_on_a_bare_transformer_begins_with_what_the_last_request_left(
    render: Render, referee
):
    policies = both({}, {}, ALONE)
    pipe = referee.plain(ALONE)
    cache_dit.enable_cache(pipe.transformer, cache_config=settings(policies.high, STEPS))

    theirs = [ask(pipe, ALONE, referee.picture, "latent") for _ in range(2)]
    cache_dit.disable_cache(pipe.transformer)

    assert not torch.equal(*theirs)
    first, second = (render(ALONE, cache=policies)[1].latents_sha256 for _ in range(2))
    assert first == second == hashlib.sha256(theirs[0].numpy().tobytes()).hexdigest()


def test_cache_dit_runs_blocks_twice_when_both_ends_overlap(referee):
    nothing_cached = both({"fn": 4, "bn": 3, "rdt": 1e-9}, {}, ALONE)

    theirs, _ = referee(ALONE, nothing_cached, enable_separate_cfg=True)

    assert not torch.equal(theirs, ask(referee.plain(ALONE), ALONE, referee.picture, "latent"))
    with pytest.raises(EngineFault):
        check(nothing_cached, 6)
