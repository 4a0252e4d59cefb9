"""Self-attention across two ranks, by Ulysses and in a ring."""

from pathlib import Path

import pytest
import torch

from shared.vocabulary.plan import ParallelPlan
from tests.engine.ranks import side_by_side
from worker.engine.contract import Seat
from worker.engine.kernels.attention import choose
from worker.engine.parallel.ranks import Ranks
from worker.engine.parallel.sequence import SelfAttention

TOKENS = 21  # one rank holds one more than the other
PLANS = {"ulysses": ParallelPlan(ranks=2, ulysses=2), "ring": ParallelPlan(ranks=2, ring=2)}


def attend(rank: int, scratch: Path, heads: int) -> None:
    """One of two ranks; a process of its own that keeps its tokens and what they attended to."""
    ranks = Ranks(Seat(rank, 2, scratch / "rendezvous", "cpu", threads=1))
    kernel = choose("flash", torch.device("cpu"), low=False)
    attention = SelfAttention(kernel.attend, kernel.with_lse, kernel.name)
    drawn = torch.randn(3, 1, TOKENS, heads, 24, generator=torch.Generator().manual_seed(heads))
    angles = torch.zeros(TOKENS, 12)
    made = {}
    for name, plan in PLANS.items():
        sequence = ranks.mesh(plan).sequence
        attention.divide(sequence)
        parts = [sequence.split(x, torch.zeros(1, 6, 1), (angles, angles))[0] for x in drawn]
        made[name] = attention(*parts)
    torch.save({"made": made, "whole": kernel.attend(*drawn)}, scratch / f"{rank}.pt")
    ranks.leave()


@pytest.mark.parametrize("heads", [2, 8], ids=["one-each", "four-each"])
def test_two_ranks_attend_as_one_does(tmp_path, heads):
    side_by_side(attend, [(rank, tmp_path, heads) for rank in range(2)])

    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole = both[0]["whole"]
    made = {name: torch.cat([one["made"][name] for one in both], 1) for name in PLANS}
    assert torch.equal(made["ulysses"], whole)
    torch.testing.assert_close(made["ring"], whole)
