"""Asks that come at once are served together, each with its own answer."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.machinery.together import Together

WITHIN_S = 10


class Counter:
    """Squares numbers, and shows how many came together; may be held shut."""

    def __init__(self) -> None:
        self.served: list[list[int]] = []
        self.entered = threading.Event()
        self.opened = threading.Event()

    def square(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.served.append(list(numbers))
        self.entered.set()
        assert self.opened.wait(WITHIN_S)
        if 13 in numbers:
            raise ValueError("13")
        return [KeyError(n) if n < 0 else n * n for n in numbers]


@pytest.fixture
def counter() -> Counter:
    return Counter()


def come(counter: Counter, numbers: Sequence[int], most: int = 16) -> list[int | Exception]:
    """Let one come, and the others while it is served."""
    together: Together[int, int] = Together(most)

    def ask(number: int) -> int | Exception:
        try:
            return together.ask(number, counter.square)
        except (KeyError, ValueError) as err:
            return err

    with ThreadPoolExecutor(len(numbers)) as pool:
        first = pool.submit(ask, numbers[0])
        assert counter.entered.wait(WITHIN_S)
        others = [pool.submit(ask, number) for number in numbers[1:]]
        while len(together) < len(others):
            threading.Event().wait(0.001)
        counter.opened.set()
        return [one.result(WITHIN_S) for one in [first, *others]]


def test_one_alone_is_served_at_once(counter):
    counter.opened.set()

    assert Together[int, int](16).ask(3, counter.square) == 9
    assert counter.served == [[3]]


def test_those_who_come_meanwhile_are_served_together(counter):
    answers = come(counter, range(8))

    assert answers == [n * n for n in range(8)]
    assert [len(numbers) for numbers in counter.served] == [1, 7]


def test_no_more_than_so_many_are_served_together(counter):
    answers = come(counter, range(8), most=3)

    assert answers == [n * n for n in range(8)]
    assert [len(numbers) for numbers in counter.served] == [1, 3, 3, 1]


def test_what_one_is_refused_for_is_told_to_that_one(counter):
    answers = come(counter, [1, 2, -3, 4])

    assert [type(one) for one in answers] == [int, int, KeyError, int]


def test_what_fails_as_a_whole_fails_for_all_of_them(counter):
    answers = come(counter, [1, 2, 13])

    assert [type(one) for one in answers] == [int, ValueError, ValueError]
