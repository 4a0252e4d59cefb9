"""What an attempt tells of itself: a percentage, the detail on the row, the events."""

import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import running
from shared.jobs.ledger import Fence, Values
from shared.jobs.removal import saved_key
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.vocabulary.states import Phase
from worker.cache_record import cached_steps, lanes_of
from worker.engine.result import Pattern, StepRecord, extend
from worker.figures import Figures
from worker.ranks.messages import PhaseBegan, Saved, Step

_LEAST_GAP_S: Final = 0.5  # steps of a small model would flood the ledger
_UNWRITTEN_S: Final = 5.0  # no step is told for so long after Postgres did not answer
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

    def __init__(
        self,
        farm: Farm,
        fence: Fence,
        checkpoint: Values | None = None,
        pattern: Pattern | None = None,
        figures: Figures | None = None,
    ) -> None:
        """Begin at zero, or where the attempt goes on from, with the pattern of the steps before.

        Args:
            farm: the handles.
            fence: the attempt.
            checkpoint: what an earlier attempt saved, as the row has it.
            pattern: of the steps that led there; becomes this reporter's own.
            figures: of the attempt, which hear of its phases and steps as well.
        """
        self.figures = figures or Figures(farm.meters)
        self._farm = farm
        self._came_from = checkpoint
        self._fence = fence
        self._log = logger(job_id=fence.video_id, attempt=fence.attempt)
        self._percent: int = checkpoint["progress"] if checkpoint else 0
        self._last = 0.0
        self._detail: Values = {}
        self._heard: list[StepRecord] = []
        self._pattern: Pattern = pattern or {}
        self._loads_since: float | None = None
        self.load_s = 0.0  # of the attempt's time, what its model took to load

    @property
    def pattern(self) -> Pattern:
        """Per expert and branch one letter a step: X computed, c cached."""
        return self._pattern

    def hear(self, message: Step | PhaseBegan | Saved) -> bool:
        """Take a rank's word; returns whether a cancel is asked for. Postgres may be away.

        Raises:
            StaleAttempt: when the attempt no longer holds the row.
        """
        if isinstance(message, PhaseBegan):
            return self.phase(message.phase)
        if isinstance(message, Saved):
            return self._saved(message)
        return self._step(message)

    def phase(self, phase: Phase) -> bool:
        """Tell that another phase began."""
        self.figures.phase(phase)
        if self._loads_since is not None:
            self.load_s, self._loads_since = time.monotonic() - self._loads_since, None
        if phase is Phase.LOAD:
            self._loads_since = time.monotonic()
        self._detail = {**self._detail, "phase": phase.value}
        return self._write("phase", {"name": phase.value}, _BEGINS[phase])

    def _saved(self, saved: Saved) -> bool:
        folder = saved_key(self._fence.video_id, self._fence.attempt)
        checkpoint: Values = {
            "key": f"{folder}/{Path(saved.path).name}",
            "step": saved.step,
            "progress": _percent_at(saved.step, saved.steps),
        }
        try:
            asked = running.keep(self._farm, self._fence, checkpoint)
        except SQLAlchemyError as err:  # an earlier one still stands
            self._log.warning("checkpoint.unwritten", error=type(err).__name__)
            return False
        if self._came_from is not None:
            self._farm.saved.delete(self._came_from["key"])
            self._came_from = None
        return asked

    def _step(self, step: Step) -> bool:
        self.figures.step(step)
        if step.step == 1:  # what was saved before could not be used
            self._pattern = {}
        extend(self._pattern, step.expert, step.branches)
        self._heard.append(
            StepRecord(
                step=step.step, expert=step.expert, seconds=step.seconds, branches=step.branches
            )
        )
        cached = {branch: done.cached for branch, done in step.branches.items()}
        self._detail = {
            "phase": Phase.DENOISE.value,
            "step": step.step,
            "steps": step.steps,
            "switch_step": step.switch_step,
            "expert": step.expert,
            "cached": cached,
            "step_s": round(step.seconds, 4),
            "cached_steps": cached_steps(self._heard),
            **lanes_of(self._heard),
            "pattern": self._pattern,
        }
        if step.step < step.steps and time.monotonic() - self._last < _LEAST_GAP_S:
            return False
        told: dict[str, Any] = {"step": step.step, "steps": step.steps, "expert": step.expert}
        told |= {"cached": cached, "step_s": round(step.seconds, 4)}
        if any(done.reason for done in step.branches.values()):
            told["reason"] = {branch: done.reason for branch, done in step.branches.items()}
            told["diff"] = {branch: done.diff for branch, done in step.branches.items()}
        return self._write("step", told, _percent_at(step.step, step.steps))

    def _write(self, event: str, data: Values, percent: int) -> bool:
        self._percent = max(self._percent, percent)
        self._last = time.monotonic()
        self._detail["updated_at"] = round(time.time(), 3)
        told = data | {"progress": self._percent}
        columns: Values = {"progress": self._percent, "detail": self._detail}
        try:
            return running.report(self._farm, self._fence, event, told, columns)
        except SQLAlchemyError as err:  # the keeper judges how long an outage may last
            self._log.warning("progress.unwritten", error=type(err).__name__)
            self._last = time.monotonic() + _UNWRITTEN_S
            return False


def _percent_at(step: int, steps: int) -> int:
    start, end = _BEGINS[Phase.DENOISE], _BEGINS[Phase.DECODE]
    return start + (end - start) * step // steps
