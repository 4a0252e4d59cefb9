"""Embeddings of prompts: made once, kept within their room, the longest unused gone first."""

import contextlib

import pytest
import torch

from shared.vocabulary.plan import Build
from worker.engine.model import loading
from worker.engine.model.prompts import MAX_TOKENS, Prompts

ROOM = 2100  # two prompts of eight tokens, 32 wide in fp32


class Visits:
    """Counts how often the encoder is asked for."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def __call__(self):
        self.count += 1
        yield


@pytest.fixture(scope="module")
def parts(models):
    path = models / "wan-tiny-t2v"
    return loading.load(path, torch.device("cpu"), Build(), with_text=True)


def prompts(parts, room_bytes: int) -> tuple[Prompts, Visits]:
    whole, visits = parts.prompts, Visits()
    made = Prompts(whole._tokenizer, whole.encoder, room_bytes)
    made.visit = visits
    return made, visits


@torch.no_grad()
def test_a_prompt_is_encoded_once_and_padded_with_zeros(parts):
    made, visits = prompts(parts, ROOM)

    first, second, same = made.embed(["a ball", "a hill", "a  ball "])
    (again,) = made.embed(["a ball"])

    assert visits.count == 1
    assert first.equal(same)
    assert first.equal(again)
    assert not first.equal(second)
    assert first.shape[:2] == (1, MAX_TOKENS)
    assert not first[0, 10:].any()


@torch.no_grad()
@pytest.mark.parametrize(
    ("room_bytes", "asked", "visits"),
    [
        (ROOM, ["a ball", "a hill", "a ball", "a hill"], 2),
        (ROOM, ["a ball", "a hill", "a ball", "a tree", "a ball"], 3),
        (ROOM, ["a ball", "a hill", "a tree", "a ball"], 4),
        (0, ["a ball", "a ball"], 2),
    ],
    ids=["both-fit", "the-used-one-stays", "the-unused-one-goes", "no-room"],
)
def test_the_longest_unused_prompt_makes_room(parts, room_bytes, asked, visits):
    made, counted = prompts(parts, room_bytes)

    for prompt in asked:
        made.embed([prompt])

    assert counted.count == visits
