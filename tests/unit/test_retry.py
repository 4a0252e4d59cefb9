"""Whether and when another attempt follows: the table, and what holds for any history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.vocabulary.retry import MAX_LOSSES, next_try
from shared.vocabulary.spec import FailureKind

KINDS = st.sampled_from(FailureKind)
COUNTS = st.integers(0, 40)
HOPELESS = [kind for kind in FailureKind if not kind.retryable]


def test_what_another_try_cannot_mend_is_listed():
    assert set(HOPELESS) == {
        FailureKind.BAD_INPUT,
        FailureKind.BAD_CHECKPOINT,
        FailureKind.BAD_LORA,
        FailureKind.DOES_NOT_FIT,
        FailureKind.TIMEOUT,
        FailureKind.DEADLINE,
    }


@pytest.mark.parametrize("kind", HOPELESS)
def test_a_hopeless_kind_is_never_tried_again(kind):
    assert next_try(kind, attempts_left=5, same_before=0) is None


@pytest.mark.parametrize(
    ("before", "wait_s"), [(0, 0.5), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (30, 60)]
)
def test_the_wait_doubles_up_to_a_minute(before, wait_s):
    assert next_try(FailureKind.RANK_DIED, attempts_left=1, same_before=before) == wait_s


@pytest.mark.parametrize("kind", [FailureKind.OUT_OF_MEMORY, FailureKind.INTERNAL])
def test_memory_and_our_own_bugs_get_one_more_try(kind):
    assert next_try(kind, attempts_left=4, same_before=0) == 0.5
    assert next_try(kind, attempts_left=4, same_before=1) is None


@pytest.mark.parametrize(("before", "again"), [(0, True), (MAX_LOSSES - 2, True), (3, False)])
def test_the_fourth_loss_is_the_last(before, again):
    wait_s = next_try(FailureKind.LOST, attempts_left=0, same_before=before)

    assert wait_s == (0.0 if again else None)


@given(KINDS, COUNTS)
def test_without_attempts_left_only_a_lost_one_goes_on(kind, before):
    wait_s = next_try(kind, attempts_left=0, same_before=before)

    assert wait_s is None or kind is FailureKind.LOST


@given(KINDS, COUNTS, COUNTS)
def test_a_wait_is_never_longer_than_a_minute_nor_negative(kind, left, before):
    wait_s = next_try(kind, attempts_left=left, same_before=before)

    assert wait_s is None or 0 <= wait_s <= 60


@given(KINDS, COUNTS, COUNTS)
def test_a_longer_history_never_makes_another_try_sooner_or_likelier(kind, left, before):
    now = next_try(kind, attempts_left=left, same_before=before)
    later = next_try(kind, attempts_left=left, same_before=before + 1)

    assert later is None or (now is not None and later >= now)
