"""What an attempt adds to its parent's figures, as the ranks tell it."""

import time

from shared.jobs.ledger import Fence
from shared.machinery.farm import Farm
from shared.machinery.meters import Meters
from shared.machinery.traces import Span
from shared.vocabulary.metrics import CACHE_RATIO, OTHER, PHASE_SECONDS, STEP_SECONDS, size_of
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.states import Phase
from worker.engine.result import Report
from worker.ranks.messages import Step


class Trail:
    """The spans of one attempt: all of it, and each phase that another one followed."""

    def __init__(self, farm: Farm, fence: Fence) -> None:
        """Begin with the attempt."""
        self._traces = farm.traces
        self._group = farm.settings.group
        self._fence = fence
        self._began = time.time()
        self._name = f"{fence.video_id}/{fence.attempt}"

    def phase(self, phase: Phase, took_s: float) -> None:
        """Leave a phase that is over now."""
        now, video_id = time.time(), self._fence.video_id
        self._traces.add(
            Span(
                name=phase.value,
                began=now - took_s,
                ended=now,
                video_id=video_id,
                parent=self._name,
            )
        )

    def over(self) -> None:
        """Leave the attempt."""
        fence = self._fence
        self._traces.add(
            Span(
                name=f"attempt {fence.attempt}",
                began=self._began,
                ended=time.time(),
                video_id=fence.video_id,
                own=self._name,
                parent=fence.video_id,
                attributes={"group": self._group},
            )
        )


class Figures:
    """The figures of one attempt; without a spec they count as those of other models."""

    def __init__(
        self, meters: Meters, spec: GenerationSpec | None = None, trail: Trail | None = None
    ) -> None:
        """Take where to count, and where to leave spans."""
        self._meters = meters
        self._trail = trail
        self._model = spec.model if spec else OTHER
        self._size = size_of(spec.model, spec.width, spec.height) if spec else OTHER
        self._began: tuple[Phase, float] | None = None

    def phase(self, phase: Phase | None) -> None:
        """Hear that the phase before is over, and which follows."""
        if self._began:
            before, since = self._began
            took = time.monotonic() - since
            self._meters.observe(PHASE_SECONDS, took, model=self._model, phase=before.value)
            if self._trail:
                self._trail.phase(before, took)
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
