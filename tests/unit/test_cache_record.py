"""The arithmetic of the cache's record, on steps one can count by hand."""

import pytest

from worker.cache_record import cached_steps, gain, lanes_of, record
from worker.engine.result import Decision, StepRecord

W, MISS = Decision(reason="w"), Decision(reason="D", diff=0.5)
HIT = Decision(cached=True, reason="d", diff=0.06125)


def steps(*made: tuple[str, float, Decision, Decision | None]) -> list[StepRecord]:
    """Steps as (expert, seconds, cond, uncond)."""
    return [
        StepRecord(
            step=number,
            expert=expert,
            seconds=seconds,
            branches={"cond": cond} | ({"uncond": uncond} if uncond else {}),
        )
        for number, (expert, seconds, cond, uncond) in enumerate(made, start=1)
    ]


RUN = steps(
    ("high", 9.0, W, W),  # slow: the first of all
    ("high", 2.0, W, W),
    ("high", 1.0, HIT, HIT),
    ("high", 1.5, HIT, MISS),
    ("high", 2.0, MISS, MISS),
    ("low", 4.0, W, W),
    ("low", 0.5, HIT, HIT),
)


def test_decisions_are_lined_up_per_expert_and_branch():
    found = lanes_of(RUN)

    assert found["pattern"] == {
        "high": {"cond": "XXccX", "uncond": "XXcXX"},
        "low": {"cond": "Xc", "uncond": "Xc"},
    }
    assert found["reasons"] == {
        "high": {"cond": "wwddD", "uncond": "wwdDD"},
        "low": {"cond": "wd", "uncond": "wd"},
    }
    assert found["diffs"]["high"]["cond"] == [None, None, 0.0612, 0.0612, 0.5]
    assert found["diffs"]["low"]["uncond"] == [None, 0.0612]


def test_without_a_cache_there_is_a_pattern_and_no_reasons():
    plain = steps(("single", 1.0, Decision(), None), ("single", 1.0, Decision(), None))

    assert lanes_of(plain) == {"pattern": {"single": {"cond": "XX"}}}


def test_a_run_is_summed_up_by_its_calls_and_its_medians():
    summed = record(RUN)

    assert summed.model_dump() == {
        "cached_ratio": 0.3571,  # 5 of 14 calls
        "cached_steps": 3,
        "step_s": {
            "high": {"computed": 2.0, "cached": 1.0},  # the mixed step is neither
            "low": {"computed": 4.0, "cached": 0.5},
        },
        "gain": 1.25,  # (9 + 2 + 2 + 2 + 2 + 4 + 4) / (9 + 2 + 1 + 1.5 + 2 + 4 + 0.5)
    }


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (steps(("high", 9.0, W, W), ("high", 2.0, MISS, MISS)), 1.0),
        (steps(*[("high", s, W, None) for s in (9.0, 2.0, 2.0)], ("low", 1.0, HIT, None)), 1.071),
        (steps(("high", 1.0, HIT, HIT)), None),
        ([], None),
    ],
    ids=["nothing-cached", "an-expert-without-a-computed-step", "nothing-computed", "no-steps"],
)
def test_the_gain_is_what_this_run_shows(run, expected):
    assert gain(run) == expected


def test_steps_with_one_cached_branch_count():
    assert cached_steps(RUN) == 3
