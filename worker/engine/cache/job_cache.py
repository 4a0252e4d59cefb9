"""The block cache of one job: at any time, that of the expert whose turn it is."""

from collections.abc import Sequence

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from shared.vocabulary.cache import CachePolicies
from worker.engine.cache.blocks import Blocks, blocks_of
from worker.engine.cache.courses import check, course_of, findings, policy_of
from worker.engine.cache.state import ExpertCache
from worker.engine.result import Branch, Decision, Expert, StepRecord


class JobCache:
    """Gives each expert a memory when its steps begin, and frees it when they end."""

    def __init__(self, policies: CachePolicies | None, depth: int) -> None:
        """Take the policies.

        Args:
            policies: None computes every step.
            depth: blocks of each transformer.

        Raises:
            EngineFault: kind `bad_input`, when a policy computes more blocks than there are.
        """
        if policies:
            check(policies, depth)
        self._policies = policies
        self._depth = depth
        self._blocks: Blocks | None = None  # of the expert whose turn it is

    def turn_to(self, expert: Expert, transformer: WanTransformer3DModel, steps: int) -> None:
        """Let an expert's steps begin, unless they have; nothing of the one before is kept.

        Args:
            expert: whose turn it is.
            transformer: of the expert.
            steps: how many it will do.
        """
        blocks = blocks_of(transformer)
        if blocks is self._blocks:
            return
        self.close()
        self._blocks = blocks
        if self._policies:
            course = course_of(policy_of(self._policies, expert), steps, self._depth)
            blocks.cache = ExpertCache(course) if course else None

    def decisions(self) -> dict[Branch, Decision]:
        """What each branch that this rank computes did last; empty where nothing is cached."""
        cache = self._blocks.cache if self._blocks else None
        return cache.decisions() if cache else {}

    def warnings(self, records: Sequence[StepRecord]) -> list[str]:
        """Say what the policies did other than one might expect; see `findings`."""
        return findings(self._policies, self._depth, records) if self._policies else []

    def close(self) -> None:
        """Free what is kept."""
        if self._blocks:
            self._blocks.cache = None
            self._blocks = None
