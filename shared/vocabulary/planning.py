"""How an attempt uses its group: a pure choice from the spec and the number of ranks."""

from shared.vocabulary.spec import GenerationSpec, ParallelPlan


def plan(spec: GenerationSpec, ranks: int) -> ParallelPlan:
    """Lay a video out over the ranks of a group.

    With guidance on, two ranks take one branch each: one small exchange per step, and the same
    bits as one rank. Ranks that the plan does not use stand by.
    """
    return ParallelPlan(ranks=ranks, cfg=2 if spec.guided and ranks >= 2 else 1)
