"""Whose word counts for the block cache, knob by knob."""

import pytest

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.cache_levels import CacheEnvironment, as_request, settle
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.request import Overrides
from shared.vocabulary.resolve import resolve
from shared.vocabulary.spec import CacheWish, SecondaryCache

T2V, FIVE = MODELS["wan2.2-t2v-a14b"], MODELS["wan2.2-ti2v-5b"]
SILENT = CacheEnvironment()
ON = CacheWish(enabled=True)

# knob: what the winner says, what everyone below it says
PER_EXPERT = {
    "fn": (2, 3),
    "bn": (1, 2),
    "warmup": (0, 9),
    "rdt": ("always", 0.1),
    "mc": (-1, 0),
    "taylorseer": (True, False),
    "ts_order": (2, 1),
}
SHARED = {
    "warmup_interval": (2, 3),
    "max_cached": (0, 5),
    "max_accumulated": (0.5, 0.7),
    "scm_preset": ("slow", "ultra"),
    "scm_policy": ("static", "dynamic"),
    "force_last": (True, False),
}
LEVELS = ("request low", "request", "environment low", "environment", "default")


def said(knob: str, winner: str, values: tuple) -> dict[str, dict]:
    """Who says what: the winner one thing, everyone below it another, nobody above anything."""
    words: dict[str, dict] = {level: {} for level in LEVELS}
    for level in LEVELS[LEVELS.index(winner) :]:
        words[level] = {knob: values[0] if level == winner else values[1]}
    return words


def settled(words: dict[str, dict]) -> CachePolicies:
    wish = ON.model_copy(update=words["request"])
    wish = wish.model_copy(update={"secondary": SecondaryCache(**words["request low"])})
    low = SecondaryCache(**words["environment low"])
    environment = CacheEnvironment(**words["environment"], secondary=low)
    return settle(wish, environment, T2V).policies


@pytest.mark.parametrize("winner", LEVELS)
@pytest.mark.parametrize("knob", PER_EXPERT)
def test_the_low_noise_expert_takes_each_knob_from_the_nearest_word(knob, winner):
    words = said(knob, winner, PER_EXPERT[knob])

    low = settled(words).low

    default = getattr(CachePolicy(), knob)
    assert getattr(low, knob) == (default if winner == "default" else PER_EXPERT[knob][0])


@pytest.mark.parametrize("winner", ["request", "environment", "default"])
@pytest.mark.parametrize("knob", PER_EXPERT | SHARED)
def test_the_high_noise_expert_hears_the_request_then_the_environment(knob, winner):
    values = (PER_EXPERT | SHARED)[knob]
    words = said(knob, winner, values)
    if knob in PER_EXPERT:
        words["request low"] = words["environment low"] = {knob: values[1]}
    else:
        words["environment low"] = {}

    pair = settled(words)

    default = getattr(CachePolicy(), knob)
    assert getattr(pair.high, knob) == (default if winner == "default" else values[0])
    if knob in SHARED:
        assert getattr(pair.low, knob) == getattr(pair.high, knob)


def test_no_knob_is_left_out_of_the_tables_above():
    bins = {"scm_compute_bins", "scm_cache_bins"}

    assert {*PER_EXPERT, *SHARED, *bins, "min_steps"} == set(CachePolicy.model_fields)


FULL = CacheEnvironment(enabled=True, fn=8, warmup=8, scm_compute_bins=[4], scm_cache_bins=[1])


@pytest.mark.parametrize(
    ("wish", "environment", "is_on"),
    [
        ("off", FULL, False),
        ("default", SILENT, False),
        ("default", CacheEnvironment(fn=8), False),
        ("default", FULL, True),
        ("fast", SILENT, True),
        (CacheWish(), SILENT, False),
        (CacheWish(), FULL, True),
        (CacheWish(enabled=False, fn=2), FULL, False),
        (CacheWish(enabled=True), SILENT, True),
        (CacheWish(mc=2), SILENT, True),
        (CacheWish(secondary=SecondaryCache(bn=1)), SILENT, True),
        (CacheWish(secondary=SecondaryCache()), SILENT, False),
    ],
)
def test_caching_is_on_for_whoever_asks_for_it(wish, environment, is_on):
    assert (settle(wish, environment, T2V) is not None) is is_on


def test_the_fast_policy_is_the_same_on_every_group_but_for_its_shortest_run():
    environment = FULL.model_copy(update={"min_steps": 3})

    here, there = settle("fast", SILENT, T2V), settle("fast", environment, T2V)

    assert here.policies.high == CachePolicy(warmup=2, taylorseer=True, scm_preset="fast")
    assert here.policies.low == here.policies.high
    assert there.policies.high == here.policies.high.model_copy(update={"min_steps": 3})


def test_a_preset_of_a_request_sets_the_bins_of_the_environment_aside():
    policy = settle(CacheWish(scm_preset="slow"), FULL, T2V).policies.low

    assert (policy.scm_preset, policy.scm_compute_bins, policy.fn) == ("slow", None, 8)
    assert settle(CacheWish(mc=1), FULL, T2V).policies.low.scm_compute_bins == (4,)


def test_a_model_with_one_expert_has_no_second_policy():
    environment = CacheEnvironment(enabled=True, secondary=SecondaryCache(fn=3))

    settled = settle("default", environment, FIVE)

    assert settled.policies == CachePolicies(high=CachePolicy())
    assert settled.sources == {"high": {}}


def test_each_knob_says_who_chose_it():
    wish = CacheWish(rdt=0.1, secondary=SecondaryCache(mc=1))
    environment = CacheEnvironment(warmup=2, secondary=SecondaryCache(warmup=3))

    settled = settle(wish, environment, T2V)

    assert settled.record()["sources"] == {
        "high": {"rdt": "cache.rdt", "warmup": "WANFARM_CACHE_WARMUP"},
        "low": {
            "rdt": "cache.rdt",
            "mc": "cache.secondary.mc",
            "warmup": "WANFARM_CACHE_SECONDARY_WARMUP",
        },
    }
    assert set(settle("fast", environment, T2V).sources["low"].values()) == {"fast"}


@pytest.mark.parametrize(
    ("wish", "environment", "params"),
    [
        (CacheWish(fn=30, bn=11), SILENT, ["cache.bn"]),
        (CacheWish(fn=41), SILENT, ["cache.fn"]),
        (CacheWish(secondary=SecondaryCache(fn=41)), SILENT, ["cache.secondary.fn"]),
        (CacheWish(fn=30, secondary=SecondaryCache(bn=11)), SILENT, ["cache.secondary.bn"]),
        (CacheWish(fn=39), CacheEnvironment(bn=2), ["WANFARM_CACHE_BN"]),
        (CacheWish(fn=20, bn=20), SILENT, []),
    ],
)
def test_more_blocks_than_the_model_has_are_told_by_who_asked_for_them(wish, environment, params):
    faults = settle(wish, environment, T2V).faults(T2V)

    assert [fault.param for fault in faults] == params
    assert all("40 blocks per expert" in fault.message for fault in faults)


def test_recorded_policies_are_a_request_that_gets_them_again_anywhere():
    wish = CacheWish(scm_preset="fast", force_last=True, secondary=SecondaryCache(rdt="always"))
    policies = settle(wish, CacheEnvironment(mc=-1), T2V).policies
    elsewhere = CacheEnvironment(enabled=False, mc=2, secondary=SecondaryCache(fn=9))

    request = Overrides.model_validate({"prompt": "a", "cache": as_request(policies)}, strict=True)
    spec = resolve(request, default_text_model=T2V.id, default_image_model=T2V.id).spec

    assert settle(spec.cache, elsewhere, T2V).policies == policies
    assert as_request(None) == "off"
