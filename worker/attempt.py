"""One attempt after another: claim, plan, load, generate, then the finisher, or how it failed."""

import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import lifecycle
from shared.jobs.groups import Identity, Reading
from shared.jobs.removal import image_key
from shared.jobs.scheduling import Offer
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.vocabulary.errors import JobFailure, StaleAttempt
from shared.vocabulary.planning import plan
from shared.vocabulary.spec import FailureKind, GenerationSpec, ParallelPlan
from shared.vocabulary.states import GroupState, Phase
from worker.finisher import finish
from worker.keeper import Keeper
from worker.progress import Reporter
from worker.ranks.group import Progress, RankFault, RankGroup, RankStopped
from worker.ranks.messages import Done, Generate, Load

_DRAINED: Final = JobFailure(FailureKind.LOST, "The worker is leaving.")
_FENCED: Final = JobFailure(FailureKind.LOST, "Another attempt has taken over.")


class Runner:
    """Takes jobs for one group, one at a time, until there are none."""

    def __init__(
        self, farm: Farm, identity: Identity, ranks: RankGroup, checkpoints: dict[str, Path]
    ) -> None:
        """Take the ranks; nothing starts before `warm_up` or the first job."""
        self._farm = farm
        self._identity = identity
        self._ranks = ranks
        self._checkpoints = checkpoints
        self._keeper: Keeper | None = None
        self._turn = threading.Lock()
        self._leaving = threading.Event()
        self._condition = GroupState.STARTING
        self._warm: str | None = None
        self._video_id: str | None = None
        self._problem: str | None = None
        self._log = logger(group=identity.name)

    def watched_by(self, keeper: Keeper) -> None:
        """Take the thread that keeps the leases."""
        self._keeper = keeper

    def reading(self) -> Reading:
        """Tell how the group is, for its heartbeat."""
        hellos = self._ranks.hellos
        memory = self._ranks.memory_bytes
        devices = [
            {"rank": h.rank, "pid": h.pid, "device": h.device, "memory_bytes": used}
            | {"memory_total_bytes": h.memory_total_bytes}
            for h, used in zip(hellos, memory, strict=False)
        ]
        leaving = self._leaving.is_set()
        return Reading(
            condition=GroupState.DRAINING if leaving else self._condition,
            warm_model=self._warm,
            video_id=self._video_id,
            devices=devices,
            software=hellos[0].software if hellos else {},
            problem=self._problem,
        )

    def warm_up(self) -> None:
        """Start the ranks and load the first model, before there is a job."""
        with self._turn:
            try:
                if self._standing():
                    self._ready(next(iter(self._checkpoints)))
            except RankFault as err:
                self._sick(err)

    def run_until_empty(self) -> int:
        """Render waiting jobs until none is due; returns how many were taken."""
        taken = 0
        with self._turn:
            while not self._leaving.is_set() and self._standing() and self._run_one():
                taken += 1
        return taken

    def join(self, timeout_s: float) -> None:
        """Wait until no job runs, whichever thread took it, but no longer than this."""
        if self._turn.acquire(timeout=timeout_s):
            self._turn.release()

    def leave(self) -> None:
        """Take no other job; `hand_back` ends the one that runs."""
        self._leaving.set()

    def hand_back(self) -> None:
        """Stop the running job at its next step and put it back, uncharged."""
        if self._video_id:
            self._ranks.cancel(_DRAINED)

    def _standing(self) -> bool:
        """Have living ranks before a job is taken: a group that cannot start burns no attempts."""
        if self._ranks.alive:
            return True
        self._condition, self._warm = GroupState.STARTING, None
        try:
            self._ranks.start()
        except RankFault as err:
            self._sick(err)
            self._condition = GroupState.DOWN
            return False
        self._condition, self._problem = GroupState.IDLE, None
        return True

    def _run_one(self) -> bool:
        offer = Offer(
            group=self._identity.name,
            incarnation=self._identity.incarnation,
            ranks=self._identity.ranks,
            models=tuple(self._checkpoints),
            warm_model=self._warm,
        )
        sent_at = time.monotonic()
        claimed = lifecycle.claim(self._farm, offer)
        if claimed is None:
            return False
        assert self._keeper is not None
        self._ranks.forget_cancels()
        self._video_id = claimed.fence.video_id
        self._keeper.hold(claimed, sent_at, self._ranks.cancel)
        log = self._log.bind(job_id=claimed.fence.video_id, attempt=claimed.fence.attempt)
        log.info("attempt.claimed", model=claimed.spec.model)
        try:
            outcome = self._attempt(claimed)
            log.info("attempt.ended", outcome=outcome)
        except StaleAttempt:
            log.warning("attempt.stale")
        except SQLAlchemyError as err:  # the lease runs out, and any tick puts the job back
            log.warning("attempt.unwritten", error=type(err).__name__)
        finally:
            self._keeper.release()
            self._video_id = None
            self._condition = GroupState.IDLE if self._ranks.alive else GroupState.STARTING
        return True

    def _attempt(self, claimed: lifecycle.Claim) -> str:
        fence = claimed.fence
        reporter = Reporter(self._farm, fence)
        try:
            with tempfile.TemporaryDirectory(prefix="wanfarm-job-") as scratch:
                done = self._render(claimed, reporter, Path(scratch))
                reporter.phase(Phase.STORE)
                finish(self._farm, fence, done, reporter.pattern)
        except RankStopped as stopped:
            lifecycle.cancelled(self._farm, fence, step=stopped.step)
            return "cancelled"
        except RankFault as fault:
            return self._went_wrong(claimed, fault)
        except OSError as err:
            why = err.strerror or "unreadable file"
            message = f"The worker's own disk let it down ({why})."
            return self._went_wrong(claimed, RankFault(JobFailure(FailureKind.STORAGE, message)))
        self._problem = None
        return "completed"

    def _render(self, claimed: lifecycle.Claim, reporter: Reporter, scratch: Path) -> Done:
        spec, fence = claimed.spec, claimed.fence
        layout = plan(spec, self._identity.ranks)
        lifecycle.record_plan(self._farm, fence, layout.model_dump(mode="json"))
        if self._warm != spec.model:
            reporter.phase(Phase.LOAD)
        self._ready(spec.model)
        self._condition = GroupState.BUSY
        command = Generate(
            video_id=fence.video_id,
            attempt=fence.attempt,
            spec=spec,
            plan=layout,
            image=self._image(spec),
            out=str(scratch / "video.mp4"),
        )

        def hear(message: Progress) -> None:
            try:
                if reporter.hear(message):
                    self._ranks.cancel()
            except StaleAttempt:
                self._ranks.cancel(_FENCED)

        return self._ranks.generate(command, hear)

    def _ready(self, model: str) -> None:
        """Have this model loaded."""
        if self._warm != model:
            self._condition, self._warm = GroupState.LOADING, None
            layout = ParallelPlan(ranks=self._identity.ranks)
            directory = str(self._checkpoints[model])
            seconds = self._ranks.load(Load(model=model, directory=directory, plan=layout))
            self._log.info("model.loaded", model=model, seconds=round(seconds, 2))
            self._warm = model
        self._condition, self._problem = GroupState.IDLE, None

    def _image(self, spec: GenerationSpec) -> str | None:
        if spec.image is None:
            return None
        path = self._farm.storage.path(image_key(spec.image.sha256))
        if not path.is_file():
            message = "The input image is no longer stored. Submit it again."
            raise RankFault(JobFailure(FailureKind.BAD_INPUT, message))
        return str(path)

    def _went_wrong(self, claimed: lifecycle.Claim, fault: RankFault) -> str:
        if fault.failure is _DRAINED:
            lifecycle.requeue_uncharged(self._farm, claimed.fence, _DRAINED.message)
            return "drained"
        self._sick(fault)
        state = lifecycle.give_back(self._farm, claimed, fault.failure)
        return f"{state.value} ({fault.failure.kind})"

    def _sick(self, fault: RankFault) -> None:
        self._log.warning("ranks.fault", kind=fault.failure.kind, message=fault.failure.message)
        self._problem = fault.failure.message
        if not self._ranks.alive:
            self._warm = None
