"""Names for things: unique, in order of creation, told from anything else."""

import string
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.vocabulary.ids import is_id, least_id, new_id

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def bits_of(made: str) -> int:
    number = 0
    for letter in made.partition("_")[2]:
        number = number * 32 + CROCKFORD.index(letter)
    return number


def test_an_id_is_a_prefix_and_a_uuid_of_version_7():
    before = time.time_ns() // 1_000_000
    made = new_id("video")

    bits = bits_of(made)
    assert made.startswith("video_")
    assert len(made) == len("video_") + 26
    assert before <= bits >> 80 <= time.time_ns() // 1_000_000
    assert (bits >> 76 & 0xF, bits >> 62 & 0b11) == (7, 0b10)


def test_later_ids_sort_after_earlier_ones():
    first = new_id("video")
    threading.Event().wait(0.002)

    assert first < new_id("video")


def test_ids_do_not_repeat():
    assert len({new_id("video") for _ in range(10_000)}) == 10_000


@given(st.sampled_from(["video", "key", "req"]))
def test_what_we_make_we_know_again(prefix):
    assert is_id(new_id(prefix), prefix)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "video_",
        "video_01m7q5cqg0eejstb3z1dq9397",
        "video_01m7q5cqg0eejstb3z1dq9397kk",
        "video_01m7q5cqg0eejstb3z1dq9397u",
        "video_81m7q5cqg0eejstb3z1dq9397k",
        "video_01M7Q5CQG0EEJSTB3Z1DQ9397K",
        "video_01m7q5cqg0eejstb3z1dq9397k\n",
        "key_01m7q5cqg0eejstb3z1dq9397k",
        "../video_01m7q5cqg0eejstb3z1dq9397k",
    ],
    ids=repr,
)
def test_anything_else_is_refused(text):
    assert not is_id(text, "video")


@given(st.text(alphabet=string.printable, max_size=40))
def test_no_text_without_the_prefix_is_an_id(text):
    assert not is_id(text.removeprefix("video_"), "video")


def test_ids_sort_after_the_least_of_their_moment_and_before_that_of_a_later_one():
    before = time.time()
    made = new_id("video")

    assert least_id("video", before - 0.001) < made < least_id("video", time.time() + 0.002)
    assert is_id(least_id("video", before), "video")
    assert least_id("video", -1) == "video_" + 26 * "0"
