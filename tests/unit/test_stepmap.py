"""The map of steps in words: the decision, its reason, what the difference was held against."""

import pytest

from api.dashboard.stepmap import Mark, draw

POLICIES = {"high": {"rdt": 0.24}, "low": {"rdt": 0.1}}


@pytest.mark.parametrize(
    ("reason", "diff", "words"),
    [
        ("", None, "computed"),
        ("w", None, "computed, warm-up"),
        ("s", None, "computed, mask"),
        ("L", None, "computed, last step"),
        ("n", None, "computed, nothing to reuse yet"),
        ("M", None, "computed, total limit"),
        ("m", None, "computed, run limit"),
        ("a", None, "computed, differences add up"),
        ("D", 0.3, "computed, diff 0.300 ≥ 0.24"),
        ("d", 0.0614, "cached, diff 0.061 < 0.24"),
        ("S", None, "cached, mask"),
        ("A", -1.0, "cached, always"),
    ],
)
def test_each_reason_has_words(reason, diff, words):
    letter = "c" if reason in {"d", "S", "A"} else "X"

    assert Mark("high", letter, reason, diff, 0.24).words == words


def test_steps_of_an_attempt_before_have_no_reasons_and_later_ones_keep_theirs():
    source = {
        "pattern": {"high": {"cond": "XXc"}, "low": {"cond": "Xc"}},
        "reasons": {"high": {"cond": "d"}, "low": {"cond": "wd"}},
        "diffs": {"high": {"cond": [0.2]}, "low": {"cond": [None, 0.05]}},
        "switch_step": 4,
    }

    ((_, cells),) = draw(6, source, POLICIES, guided=False).lanes

    assert [cell.mark.words for cell in cells] == [
        "computed",
        "computed",
        "cached, diff 0.200 < 0.24",
        "computed, warm-up",
        "cached, diff 0.050 < 0.1",
        "not run",
    ]
    assert cells[4].title == "step 5 cond: cached, diff 0.050 < 0.1, low-noise expert"
