"""What an attempt adds to its parent's figures, as the ranks tell it."""

import time

from shared.machinery.meters import Meters
from shared.vocabulary.metrics import CACHE_RATIO, OTHER, PHASE_SECONDS, STEP_SECONDS, size_of
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.states import Phase
from worker.engine.result import Report
from worker.ranks.messages import Step


class Figures:
    """The figures of one attempt; without a spec they count as those of other models."""

    def __init__(self, meters: Meters, spec: GenerationSpec | None = None) -> None:
        """Take where to count."""
        self._meters = meters
        self._model = spec.model if spec else OTHER
        self._size = size_of(spec.model, spec.width, spec.height) if spec else OTHER
        self._began: tuple[Phase, float] | None = None

    def phase(self, phase: Phase | None) -> None:
        """Hear that the phase before is over, and which follows."""
        if self._began:
            before, since = self._began
            took = time.monotonic() - since
            self._meters.observe(PHASE_SECONDS, took, model=self._model, phase=before.value)
        self._began = (phase, time.monotonic()) if phase else None

    def step(self, step: Step) -> None:
        """Hear of a denoising step."""
        hits = sum(done.cached for done in step.branches.values())
        cached = "none" if not hits else "all" if hits == len(step.branches) else "some"
        self._meters.observe(
            STEP_SECONDS,
            step.seconds,
            model=self._model,
            size=self._size,
            expert=step.expert,
            cached=cached,
        )

    def rendered(self, report: Report) -> None:
        """Hear that the video is complete."""
        self.phase(None)
        if report.cache is None:
            return
        calls: dict[str, list[bool]] = {}
        for step in report.steps:
            calls.setdefault(step.expert, []).extend(done.cached for done in step.branches.values())
        for expert, cached in calls.items():
            ratio = sum(cached) / max(1, len(cached))
            self._meters.observe(CACHE_RATIO, ratio, model=self._model, expert=expert)
