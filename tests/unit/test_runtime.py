"""What is expected of a run, by the runs before it."""

import random

import pytest

from shared.vocabulary.catalog import MODELS
from shared.vocabulary.runtime import Run, Work, expect, work_of
from shared.vocabulary.spec import GenerationSpec

MODEL = MODELS["wan2.2-t2v-a14b"]
SIZES = ((832, 480), (1280, 720), (480, 832))


def spec(**given) -> GenerationSpec:
    shape = {"width": 832, "height": 480, "frames": 81, "steps": 40}
    about = {"model": MODEL.id, "prompt": "a ball", "seed": 1}
    return GenerationSpec.model_validate(about | shape | given)


def work(**given) -> Work:
    return work_of(spec(**given), 1, "")


def mixed(dice: random.Random) -> Work:
    width, height = dice.choice(SIZES)
    frames, steps = dice.choice((33, 49, 81)), dice.choice((4, 10, 20, 40))
    return work(
        width=width, height=height, frames=frames, steps=steps, guidance_high=dice.choice((1, 4))
    )


def ran(of: Work, dice: random.Random) -> Run:
    """A run as a GPU makes it: quadratic attention, a decode, an overhead, and noise on all."""
    noise = dice.lognormvariate(0, 0.15)
    linear = 4.1e-5 * of.forwards * of.tokens
    quadratic = 1.15e-9 * of.forwards * of.tokens**2
    return Run(of, noise * (linear + quadratic), noise * (1.5 + 2.2e-5 * of.tokens))


@pytest.mark.parametrize("seed", range(5))
def test_eight_of_ten_mixed_runs_end_in_their_range(seed):
    dice = random.Random(seed)
    runs: list[Run] = [ran(mixed(dice), dice) for _ in range(50)]
    within = []

    for _ in range(200):
        one = ran(mixed(dice), dice)
        told = expect(MODEL, one.work, runs[:100])
        within.append(told.p10_s <= one.seconds <= told.p90_s)
        runs.insert(0, one)

    assert 0.72 <= sum(within) / len(within) <= 0.88


def test_runs_of_the_same_shape_are_measured_and_others_are_not_asked():
    asked, other = work(steps=40), work(steps=4)
    runs = [Run(asked, seconds, 5) for seconds in range(90, 110)] + [Run(other, 500, 5)] * 20

    told = expect(MODEL, asked, runs)

    assert told.basis == "measured"
    assert (told.p10_s, told.p50_s, told.p90_s) == pytest.approx((96, 104.5, 113), abs=1)
    assert told.rest_s == 5


def test_a_cached_run_is_not_expected_to_take_what_uncached_ones_take():
    plain = work()
    cached = work_of(spec(), 1, "fast")
    runs = [Run(plain, 200, 5)] * 20 + [Run(cached, 80, 5)] * 8

    assert expect(MODEL, cached, runs).p50_s == pytest.approx(85)
    assert expect(MODEL, plain, runs).p50_s == pytest.approx(205)


def test_a_shape_never_seen_is_interpolated_from_others():
    dice = random.Random(0)
    runs = [ran(mixed(dice), dice) for _ in range(50)]
    asked = work(width=720, height=1280, frames=65, steps=30)

    told = expect(MODEL, asked, runs)

    assert told.basis == "interpolated"
    assert told.p10_s < told.p50_s < told.p90_s
    assert told.p50_s == pytest.approx(ran(asked, random.Random(1)).seconds, rel=0.5)


def test_a_few_runs_give_a_wide_range():
    told = expect(MODEL, work(steps=20), [Run(work(steps=40), 200, 5)])

    assert told.p50_s == pytest.approx(105)
    assert (told.p10_s, told.p90_s) == pytest.approx((52.5, 210))


def test_before_any_run_a_published_figure_is_told():
    told = expect(MODEL, work(), [])

    assert told.basis == "prior"
    assert told.p50_s == pytest.approx(204, rel=0.05)  # bench/measured: 201 s


def test_two_ranks_need_half_the_time():
    one, two = (work_of(spec(), ranks, "") for ranks in (1, 2))

    assert two.units == one.units / 2
    assert expect(MODEL, two, [Run(one, 200, 5)]).p50_s == pytest.approx(105)


def test_nothing_is_said_of_a_model_that_nobody_timed():
    tiny = MODELS["wan-tiny-t2v"]

    assert expect(tiny, work(), []) is None
