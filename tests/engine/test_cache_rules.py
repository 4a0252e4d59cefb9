"""What the block cache decides from counters, policy and differences alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.vocabulary.cache import CachePolicies, CachePolicy
from worker.engine.cache.courses import check, course_of, findings
from worker.engine.cache.masks import scm_mask
from worker.engine.cache.rules import History, decide
from worker.engine.cache.state import ExpertCache, residual_sums
from worker.engine.cache.taylor import Taylor
from worker.engine.faults import EngineFault
from worker.engine.result import Decision, StepRecord

DEPTH = 6


def policy(**knobs):
    return CachePolicy(**{"min_steps": 0} | knobs)


STATIC = {"scm_compute_bins": (5,), "scm_cache_bins": (8,), "scm_policy": "static"}


def play(course, diffs):
    """Decide a whole expert, measuring these differences in order of the steps."""
    history, made = History(), []
    for diff in diffs[: course.steps]:
        computed = any(not decision.cached for decision in made)
        made.append(decide(course, history, stored=computed, measure=lambda diff=diff: diff))
        history = history.after(made[-1])
    return made


def pattern(made):
    return "".join("c" if decision.cached else "X" for decision in made)


def reasons(made):
    return "".join(decision.reason for decision in made)


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, "wwwwdddmdddmd"),
        ({"rdt": 0.1}, "wwwwDDDDDDDDD"),
        ({"mc": 0}, "wwwwmmmmmmmmm"),
        ({"mc": -1}, "wwwwddddddddd"),
        ({"max_cached": 2}, "wwwwddMMMMMMM"),
        ({"warmup": 0}, "ndddmdddmdddm"),
        ({"warmup": 6, "warmup_interval": 3}, "wddwdddmdddmd"),
        ({"warmup": 1, "mc": -1, "max_accumulated": 0.5}, "wdddaaaaaaaaa"),
        ({"rdt": "always"}, "wwwwAAAmAAAmA"),
        ({"mc": -1, "force_last": True}, "wwwwddddddddL"),
        ({"scm_compute_bins": (2, 1, 2), "scm_cache_bins": (4, 4)}, "wwdddmsdddmss"),
        (
            {"scm_compute_bins": (5,), "scm_cache_bins": (8,), "scm_policy": "static"},
            "wwwwsSSSSSSSS",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_the_first_rule_that_holds_decides(knobs, expected):
    made = play(course_of(policy(**knobs), 13, DEPTH), [0.2] * 13)

    assert reasons(made) == expected


def test_the_default_policy_computes_every_fourth_step_after_four():
    made = play(course_of(policy(), 13, DEPTH), [0.0] * 13)

    assert pattern(made) == "XXXXcccXcccXc"


@pytest.mark.parametrize(
    ("diff", "expected"), [(0.2399, "d"), (0.24, "D"), (math.nan, "D"), (math.inf, "D")]
)
def test_only_a_difference_below_the_threshold_caches(diff, expected):
    made = play(course_of(policy(warmup=1), 2, DEPTH), [0, diff])

    assert made[1].reason == expected


def test_a_streak_begins_anew_after_a_step_that_the_mask_computes():
    masked = policy(warmup=2, scm_compute_bins=(2, 1, 1), scm_cache_bins=(2, 3, 3))

    made = play(course_of(masked, 12, DEPTH), [0.0] * 12)

    assert pattern(made) == "XXccXcccXccc"


KNOBS = st.fixed_dictionaries(
    {
        "warmup": st.integers(0, 12),
        "warmup_interval": st.integers(1, 4),
        "rdt": st.floats(0.01, 0.99) | st.just("always"),
        "mc": st.integers(-1, 5),
        "max_cached": st.integers(-1, 10),
        "max_accumulated": st.none() | st.floats(0.1, 5),
        "scm_preset": st.sampled_from(["none", "slow", "medium", "fast", "ultra"]),
        "scm_policy": st.sampled_from(["dynamic", "static"]),
        "force_last": st.booleans(),
    }
)
DIFFS = st.lists(st.floats(0, 2, allow_nan=False) | st.just(math.nan), min_size=1, max_size=60)


@given(KNOBS, DIFFS)
def test_limits_hold_whatever_is_measured(knobs, diffs):
    limits = policy(**knobs)
    course = course_of(limits, len(diffs), DEPTH)

    made = play(course, diffs)

    assert not made[0].cached
    assert not (limits.force_last and made[-1].cached)
    warmup = min(
        [
            limits.warmup,
            *([course.mask.index(False)] if course.mask and not all(course.mask) else []),
        ]
    )
    assert not any(decision.cached for decision in made[: warmup : limits.warmup_interval])
    if course.mask:
        assert not any(one.cached for one, mark in zip(made, course.mask, strict=True) if mark)
    if not course.mask or limits.scm_policy == "dynamic":
        streaks = pattern(made).split("X")
        assert limits.mc < 0 or max(map(len, streaks)) <= limits.mc
        assert limits.max_cached < 0 or sum(map(len, streaks)) <= limits.max_cached


@given(st.permutations(["cond"] * 12 + ["uncond"] * 12), st.integers(0, 2**16))
def test_branches_do_not_know_of_each_other(turns, seed):
    torch.manual_seed(seed)
    outputs = {name: torch.rand(12, 1, 2, 3) for name in ("cond", "uncond")}
    course = course_of(policy(warmup=1), 12, DEPTH)

    def decisions(order):
        cache, made, at = ExpertCache(course), {"cond": [], "uncond": []}, dict.fromkeys(outputs, 0)
        for name in order:
            memory, output = cache.branch(name), outputs[name][at[name]]
            entered = torch.zeros_like(output)
            made[name].append(memory.decide(entered, output, None))
            if not made[name][-1].cached:
                memory.keep(output - entered)
                memory.learn(output.clone())
            at[name] += 1
        return made

    assert decisions(turns) == decisions(sorted(turns))


GOLDEN = {
    ("fast", 26): "11111101000100001000001001",
    ("fast", 14): "11101001001001",
    ("slow", 20): "11111111011100111001",
    ("medium", 9): "111110101",
    ("ultra", 8): "11001001",
    ("slow", 6): "111001",
    ("fast", 4): "1101",
}


@pytest.mark.parametrize(("preset", "steps"), GOLDEN)
def test_presets_give_these_masks(preset, steps):
    mask = scm_mask(policy(scm_preset=preset), steps)

    assert "".join(str(int(mark)) for mark in mask) == GOLDEN[preset, steps]


@pytest.mark.parametrize(("steps", "computed"), [(40, [27, 22, 18, 12]), (50, [38, 29, 20, 14])])
def test_long_presets_keep_their_share(steps, computed):
    presets = ("slow", "medium", "fast", "ultra")

    masks = [scm_mask(policy(scm_preset=preset), steps) for preset in presets]

    assert [sum(mask) for mask in masks] == computed


@pytest.mark.parametrize("preset", ["slow", "medium", "fast", "ultra"])
def test_presets_fit_all_but_five_short_step_counts(preset):
    masks = {steps: scm_mask(policy(scm_preset=preset), steps) for steps in range(1, 101)}

    assert [steps for steps, mask in masks.items() if mask is None] == [1, 2, 3, 5, 7]
    assert all(len(mask) == steps for steps, mask in masks.items() if mask)


def test_bins_are_cut_to_the_steps_and_do_not_force_the_last():
    bins = policy(scm_preset="slow", scm_compute_bins=(2, 1), scm_cache_bins=(1, 9))

    assert scm_mask(bins, 6) == (True, True, False, True, False, False)
    assert scm_mask(bins, 14) is None


@pytest.mark.parametrize(
    ("order", "changes", "next_two"),
    [
        (0, [1, 3, 6, 10, 15], [15, 15]),
        (1, [1, 3, 6], [6, 6]),
        (1, [1, 3, 6, 10], [14, 18]),
        (2, [1, 3, 6, 10], [14, 18]),
        (2, [1, 3, 6, 10, 15], [15 + 5 + 0.5, 15 + 10 + 2]),
    ],
)
def test_taylor_goes_on_by_differences_from_the_fourth_step(order, changes, next_two):
    taylor = Taylor(order)
    for change in changes:
        taylor.tick()
        taylor.learn(torch.tensor(float(change)))

    given = []
    for _ in range(2):
        taylor.tick()
        given.append(taylor.apply(torch.tensor(0.0)).item())

    assert given == next_two


def test_shards_of_any_size_add_up_to_the_whole():
    torch.manual_seed(1)
    previous, entered, hidden = torch.randn(3, 1, 30, 8)

    whole = residual_sums(previous, entered, hidden)

    shards = zip(
        *(one.split([7, 20, 3], dim=1) for one in (previous, entered, hidden)), strict=True
    )
    torch.testing.assert_close(sum(residual_sums(*shard) for shard in shards), whole)
    torch.testing.assert_close(whole[0], (previous - (hidden - entered)).abs().sum())


@pytest.mark.parametrize(
    ("knobs", "steps", "diff", "expected"),
    [
        ({}, 13, 0.1, []),
        ({"min_steps": 8}, 7, 0.1, ["cache_inert: The model ran uncached. Its 7 steps are fewer"]),
        ({"fn": 4, "bn": 2}, 13, 0.1, ["cache_inert: The model ran uncached. fn 4 and bn 2"]),
        ({}, 4, 0.1, ["cache_inert: The model cached no step: the warm-up took them all"]),
        ({}, 13, 0.3, ["cache_inert: The model cached no step: no residual difference"]),
        ({"mc": 0}, 13, 0.1, ["cache_inert: The model cached no step: mc is 0"]),
        ({"max_cached": 0}, 13, 0.1, ["cache_inert: The model cached no step: max_cached is 0"]),
        ({"mc": -1}, 13, 0.1, ["cache_runaway: The model computed no step after its warm-up"]),
        (
            {"scm_preset": "fast"},
            7,
            0.1,
            ["scm_off: The model ran unmasked. Its 7 steps do not", "cache_runaway"],
        ),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else None,
)
def test_what_a_policy_did_not_do_is_said(knobs, steps, diff, expected):
    policies = CachePolicies(high=policy(**knobs))
    course = course_of(policies.high, steps, DEPTH)
    made = play(course, [diff] * steps) if course else [Decision()] * steps
    records = [
        StepRecord(step=n, expert="single", seconds=0, branches={"cond": decision})
        for n, decision in enumerate(made, 1)
    ]

    found = findings(policies, DEPTH, records)

    assert len(found) == len(expected)
    assert all(told.startswith(start) for told, start in zip(found, expected, strict=True))


def test_a_policy_that_computes_more_blocks_than_there_are_is_refused():
    with pytest.raises(EngineFault, match=r"first 4 and the last 3 blocks\. The model has 6"):
        check(CachePolicies(high=policy(), low=policy(fn=4, bn=3)), DEPTH)
