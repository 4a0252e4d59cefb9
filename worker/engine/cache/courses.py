"""What one expert's steps go by in one job, and what there is to say about it afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.spec import FailureKind
from worker.engine.cache.masks import Mask, scm_mask, wants_mask
from worker.engine.faults import EngineFault
from worker.engine.result import Branch, Decision, Expert, Reason, StepRecord


@dataclass(frozen=True, slots=True)
class Course:
    """The steps of one expert in one job, and the policy over them."""

    policy: CachePolicy
    steps: int
    mask: Mask | None = None  # as long as the steps

    def warms_up_at(self, step: int) -> bool:
        """Tell whether a step belongs to the warm-up, which a mask may shorten."""
        warmup = self.policy.warmup
        if self.mask is not None and False in self.mask:
            warmup = min(warmup, self.mask.index(False))
        return step in range(0, warmup, self.policy.warmup_interval)


def policy_of(policies: CachePolicies, expert: Expert) -> CachePolicy:
    """The policy of one expert; that of the only one is called high."""
    if expert != "low":
        return policies.high
    assert policies.low is not None  # resolved for the model, which has two experts
    return policies.low


def check(policies: CachePolicies, depth: int) -> None:
    """Refuse policies that compute more blocks than there are.

    Raises:
        EngineFault: kind `bad_input`.
    """
    for policy in (policies.high, policies.low):
        if policy and policy.fn + policy.bn > depth:
            raise EngineFault(
                FailureKind.BAD_INPUT,
                f"The cache computes the first {policy.fn} and the last {policy.bn} blocks. "
                f"The model has {depth}. Lower fn or bn.",
            )


def course_of(policy: CachePolicy, steps: int, depth: int) -> Course | None:
    """Lay a policy over an expert's steps.

    Returns:
        None where the expert runs uncached: too few steps, or no block that could be skipped.
    """
    if steps < policy.min_steps or policy.fn + policy.bn == depth:
        return None
    return Course(policy, steps, scm_mask(policy, steps))


def findings(policies: CachePolicies, depth: int, records: Sequence[StepRecord]) -> list[str]:
    """Say what the policies did other than one might expect, as `code: sentence`.

    Args:
        policies: of the job.
        depth: blocks of each transformer.
        records: all its steps.
    """
    taken: dict[Expert, list[dict[Branch, Decision]]] = {}
    for record in records:
        taken.setdefault(record.expert, []).append(record.branches)
    found: list[str] = []
    for expert, made in taken.items():
        policy, steps = policy_of(policies, expert), len(made)
        whose = "The model" if expert == "single" else f"The {expert} expert"
        if course_of(policy, steps, depth) is None:
            found.append(f"cache_inert: {whose} ran uncached. {_hindrance(policy, steps)}")
            continue
        if wants_mask(policy) and scm_mask(policy, steps) is None:
            found.append(f"scm_off: {whose} ran unmasked. Its {steps} steps do not fit the mask.")
        found += [f"{code}: {whose} {what}" for code, what in _seen(made)]
    return found


def _hindrance(policy: CachePolicy, steps: int) -> str:
    if steps < policy.min_steps:
        return f"Its {steps} steps are fewer than min_steps, {policy.min_steps}."
    return f"fn {policy.fn} and bn {policy.bn} are all its blocks."


def _seen(made: Sequence[Mapping[Branch, Decision]]) -> list[tuple[str, str]]:
    decisions = [decision for step in made for decision in step.values()]
    if not any(decision.cached for decision in decisions):
        reasons = {decision.reason for decision in decisions}
        cause = next(cause for reason, cause in _CAUSES.items() if reason in reasons)
        return [("cache_inert", f"cached no step: {cause}.")]
    if all(decision.cached for decision in decisions if decision.reason not in ("w", "n")):
        return [("cache_runaway", "computed no step after its warm-up. Lower mc or rdt.")]
    return []


# Why nothing was cached, the nearest to caching first.
_CAUSES: Final[dict[Reason, str]] = {
    "D": "no residual difference was below rdt",
    "m": "mc is 0",
    "M": "max_cached is 0",
    "s": "the mask computes all that the warm-up leaves",
    "L": "force_last computes all that the warm-up leaves",
    "n": "it took one step to have something to reuse, and had no other",
    "w": "the warm-up took them all",
}
