"""How an attempt uses its group: a pure choice from the spec and the number of ranks."""

from typing import NamedTuple

from shared.vocabulary.catalog import Model
from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import GenerationSpec


class Degrees(NamedTuple):
    """Ranks by what they share out: guidance branches, laps of a ring, heads."""

    cfg: int
    ulysses: int
    ring: int

    @property
    def ranks(self) -> int:
        """How many ranks it takes."""
        return self.cfg * self.ulysses * self.ring

    def fault(self, model: Model, ranks: int) -> str | None:
        """Say in two sentences why a model cannot be divided so over a group; None when it can."""
        if self.cfg > 2:
            return f"cfg is {self.cfg}. Guidance has two branches: use 1 or 2."
        if self.ranks > ranks:
            return f"That takes {self.ranks} ranks. The group has {ranks}."
        if model.heads % self.ulysses:
            return (
                f"ulysses is {self.ulysses}. It must divide the {model.heads} heads of {model.id}."
            )
        return None


def degrees_of(text: str) -> Degrees | None:
    """Read `2x4x1` as cfg, ulysses and ring; None of `auto`."""
    if text == "auto":
        return None
    cfg, ulysses, ring = (int(part) for part in text.split("x"))
    return Degrees(cfg, ulysses, ring)


def plan(spec: GenerationSpec, ranks: int, wanted: Degrees | None = None) -> ParallelPlan:
    """Lay a video out over the ranks of a group.

    With guidance on, half of the ranks take each branch: one small exchange per step, and the same
    bits as one rank. The ranks of a branch divide its tokens and exchange heads (Ulysses), as many
    as the heads go round. Ranks that the plan does not use stand by.

    Args:
        spec: what is to be rendered.
        ranks: of the group.
        wanted: what the group's settings ask for, fit for the model. Without guidance there is one
            branch, and the ranks of the other one stand by.
    """
    if wanted is not None:
        cfg = wanted.cfg if spec.guided else 1
        degrees = wanted._asdict() | {"cfg": cfg}
        return ParallelPlan.model_validate({"ranks": ranks} | degrees)
    cfg = 2 if spec.guided and ranks >= 2 else 1
    ulysses = max(n for n in range(1, ranks // cfg + 1) if spec.card.heads % n == 0)
    return ParallelPlan(ranks=ranks, cfg=cfg, ulysses=ulysses)
