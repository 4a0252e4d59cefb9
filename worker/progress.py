"""What an attempt tells of itself: a percentage, the detail on the row, the events."""

import time
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import lifecycle
from shared.jobs.ledger import Fence, Values
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.vocabulary.states import Phase
from worker.ranks.messages import PhaseBegan, Step

_LEAST_GAP_S: Final = 0.5  # steps of a small model would flood the ledger
# Where each phase begins, in percent; denoising fills the most, as it takes the most.
_BEGINS: Final = {
    Phase.LOAD: 0,
    Phase.TEXT_ENCODE: 2,
    Phase.IMAGE_ENCODE: 4,
    Phase.DENOISE: 5,
    Phase.DECODE: 90,
    Phase.ENCODE: 96,
    Phase.STORE: 98,
}


class Reporter:
    """Writes an attempt's progress, at most twice a second; phases and the last step always."""

    def __init__(self, farm: Farm, fence: Fence) -> None:
        """Begin at zero."""
        self._farm = farm
        self._fence = fence
        self._log = logger(job_id=fence.video_id, attempt=fence.attempt)
        self._percent = 0
        self._last = 0.0
        self._detail: Values = {}
        self._pattern: dict[str, dict[str, str]] = {}

    @property
    def pattern(self) -> dict[str, dict[str, str]]:
        """Per expert and branch one letter a step: X computed, c cached."""
        return self._pattern

    def hear(self, message: Step | PhaseBegan) -> bool:
        """Take a rank's word; returns whether a cancel is asked for. Postgres may be away.

        Raises:
            StaleAttempt: when the attempt no longer holds the row.
        """
        if isinstance(message, PhaseBegan):
            return self.phase(message.phase)
        return self._step(message)

    def phase(self, phase: Phase) -> bool:
        """Tell that another phase began."""
        self._detail = {**self._detail, "phase": phase.value}
        return self._write("phase", {"name": phase.value}, _BEGINS[phase])

    def _step(self, step: Step) -> bool:
        for branch, done in step.branches.items():
            lanes = self._pattern.setdefault(step.expert, {})
            lanes[branch] = lanes.get(branch, "") + ("c" if done.cached else "X")
        cached = {branch: done.cached for branch, done in step.branches.items()}
        self._detail = {
            "phase": Phase.DENOISE.value,
            "step": step.step,
            "steps": step.steps,
            "switch_step": step.switch_step,
            "expert": step.expert,
            "cached": cached,
            "step_s": round(step.seconds, 4),
            "pattern": self._pattern,
        }
        if step.step < step.steps and time.monotonic() - self._last < _LEAST_GAP_S:
            return False
        told: dict[str, Any] = {"step": step.step, "steps": step.steps, "expert": step.expert}
        told |= {"cached": cached, "step_s": round(step.seconds, 4)}
        start, end = _BEGINS[Phase.DENOISE], _BEGINS[Phase.DECODE]
        return self._write("step", told, start + (end - start) * step.step // step.steps)

    def _write(self, event: str, data: Values, percent: int) -> bool:
        self._percent = max(self._percent, percent)
        self._last = time.monotonic()
        self._detail["updated_at"] = round(time.time(), 3)
        told = data | {"progress": self._percent}
        columns: Values = {"progress": self._percent, "detail": self._detail}
        try:
            return lifecycle.report(self._farm, self._fence, event, told, columns)
        except SQLAlchemyError as err:  # the keeper judges how long an outage may last
            self._log.warning("progress.unwritten", error=type(err).__name__)
            return False
