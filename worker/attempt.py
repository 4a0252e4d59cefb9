"""One attempt after another: claim, plan, load, generate, then the finisher, or how it failed."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from structlog.typing import FilteringBoundLogger

from shared.jobs import lifecycle, running
from shared.jobs.groups import Identity, Reading, Wish
from shared.jobs.ledger import Fence, Values
from shared.jobs.removal import drop_saved, saved_key
from shared.jobs.scheduling import Offer
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.errors import JobFailure, StaleAttempt, WanfarmError
from shared.vocabulary.metrics import GROUP_RESTARTS
from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState, Phase
from worker.figures import Figures, Trail
from worker.finisher import adopt, finish
from worker.health import Health
from worker.inputs import adapters_of, image_of, pattern_of
from worker.keeper import Keeper
from worker.layout import build_of, cache_of, devices_of, expected, lay_out, made_by
from worker.orders import Orders
from worker.progress import Reporter
from worker.ranks.faults import RankFault, RankStopped
from worker.ranks.group import Job, Progress, RankGroup
from worker.ranks.messages import Done, Generate, Load

_DRAINED: Final = JobFailure(FailureKind.LOST, "The worker is leaving.")
_FENCED: Final = JobFailure(FailureKind.LOST, "Another attempt has taken over.")
_BREATH_S: Final = 0.05
_CLOSE_S: Final = 150.0  # ranks give up on a file that does not close before that

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Rendered:
    """An attempt that has left the devices; the finisher's from now on."""

    claimed: lifecycle.Claim
    closing: Future[Done]
    reporter: Reporter
    made_by: Values
    scratch: contextlib.ExitStack


class Runner:
    """Takes jobs for one group until there are none; files are finished beside the next job."""

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
        self._orders = Orders()
        self._condition = GroupState.STARTING
        self._warm: str | None = None
        self._job: Job | None = None  # what the ranks render
        self._finishing = threading.Thread()  # of the job before
        self._trails: dict[Fence, Trail] = {}
        self._problem: str | None = None
        self._health = Health()
        self._log = logger(group=identity.name)

    def watched_by(self, keeper: Keeper) -> None:
        """Take the thread that keeps the leases."""
        self._keeper = keeper

    def reading(self) -> Reading:
        """Tell how the group is, for its heartbeat."""
        hellos = self._ranks.hellos
        return Reading(
            condition=self._shown(),
            warm_model=self._warm if self._ranks.alive else None,
            video_id=self._job[0] if self._job else None,
            devices=devices_of(self._ranks),
            software=hellos[0].software if hellos else {},
            problem=self._problem,
            failure_streak=self._health.streak,
        )

    def _shown(self) -> GroupState:
        if self._orders.takes_jobs:
            return self._condition
        idle = self._job is None and not self._orders.leaving
        return GroupState.DRAINED if idle else GroupState.DRAINING

    def warm_up(self) -> None:
        """Start the ranks and load the first model, before there is a job."""
        with self._turn:
            try:
                if self._standing():
                    self._load_first()
            except RankFault as err:
                self._sick(err)

    def run_until_empty(self) -> int:
        """Render waiting jobs until none is due; returns how many were taken.

        The last one's file may be in the finisher's hands still: `join` waits for it.
        """
        taken = 0
        with self._turn:
            while self._orders.takes_jobs and self._healthy() and self._standing():
                try:
                    ran = self._run_one()
                except SQLAlchemyError:
                    if not self._finishing.is_alive():
                        raise
                    self._let_finish()  # it waits for the database too
                    continue
                taken += ran
                if not ran and not self._listen():
                    break
            while self._listen():
                pass
        return taken

    def join(self, timeout_s: float) -> None:
        """Wait until no job runs or is finished, but no longer than this."""
        give_up = time.monotonic() + timeout_s
        if self._turn.acquire(timeout=timeout_s):
            finishing = self._finishing
            self._turn.release()
            if finishing.is_alive():
                finishing.join(max(0.0, give_up - time.monotonic()))

    def leave(self) -> None:
        """Take no other job; `hand_back` ends the one that runs."""
        self._orders.leaving = True

    def hand_back(self) -> None:
        """Stop the running job at its next step, with its latents saved; put it back, uncharged."""
        self._orders.handing_back = True  # first: a job that is just being claimed looks here
        self._give_up_job()

    def obey(self, wish: Wish) -> None:
        """Take jobs or not, as people want it by now."""
        self._orders.drain = wish.drain
        if not self._orders.keeps_its_job:
            self._give_up_job()

    def _give_up_job(self) -> None:
        if job := self._job:
            self._ranks.cancel(job, _DRAINED, save=True)

    def _listen(self) -> bool:
        """Hear of files that the ranks still close; False when there are none."""
        try:
            return self._ranks.close_some()
        except RankFault as err:
            self._sick(err)
            return False

    def _let_finish(self) -> None:
        """Wait for the finisher's job before, and pass on what the ranks say of its file."""
        while self._finishing.is_alive():
            if not self._listen():
                self._finishing.join(_BREATH_S)

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

    def _healthy(self) -> bool:
        """Tell whether the group may take a job; one that is sick has to pass its test first."""
        if self._health.is_good(self._test_itself):
            return True
        self._condition, self._problem = GroupState.DOWN, self._health.told
        return False

    def _test_itself(self) -> None:
        self._warm = None
        self._ranks.start()
        self._load_first()
        self._ranks.probe()
        self._log.info("group.passed_its_test")

    def _load_first(self) -> None:
        first = next(iter(self._checkpoints))
        self._ready(first, expected(MODELS[first], self._farm.settings, self._ranks.hellos))

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
        job = self._job = (claimed.fence.video_id, claimed.fence.attempt)
        if not self._orders.keeps_its_job:
            self._give_up_job()
        self._keeper.hold(claimed, sent_at, partial(self._ranks.cancel, job))
        self._trails[claimed.fence] = Trail(self._farm, claimed.fence)
        self._log_of(claimed).info("attempt.claimed", model=claimed.spec.model)
        rendered = None
        try:
            rendered = self._watched(claimed, partial(self._attempt, claimed))
        finally:
            self._job = None
            self._condition = GroupState.IDLE if self._ranks.alive else GroupState.STARTING
            if rendered is None:
                self._over(claimed)
        if rendered is not None:
            self._let_finish()
            # a daemon: at a second SIGTERM nobody waits for it, and the job is rescued
            self._finishing = threading.Thread(target=self._finish, args=(rendered,), daemon=True)
            self._finishing.start()
        return True

    def _attempt(self, claimed: lifecycle.Claim) -> _Rendered | None:
        """Bring a video off the devices; None when an earlier attempt had done all but tell it."""
        if claimed.fence.attempt > 1 and adopt(self._farm, claimed.fence):
            self._log_of(claimed).info("attempt.ended", outcome="adopted")
            return None
        saved = self._saved(claimed)
        figures = Figures(self._farm.meters, claimed.spec, self._trails[claimed.fence])
        before = (claimed.checkpoint, pattern_of(saved))
        reporter = Reporter(self._farm, claimed.fence, *before, figures)
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="wanfarm-job-"))
            closing = self._render(claimed, reporter, saved, Path(scratch))
            tools = made_by(self._ranks.hellos)
            return _Rendered(claimed, closing, reporter, tools, stack.pop_all())

    def _finish(self, rendered: _Rendered) -> None:
        """Bring a rendered video to its end, in a thread beside the next job."""
        claimed = rendered.claimed

        def store() -> None:
            rendered.reporter.phase(Phase.ENCODE)
            done = rendered.closing.result(_CLOSE_S)
            rendered.reporter.phase(Phase.STORE)
            heard = rendered.reporter
            told = rendered.made_by | {"pattern": heard.pattern, "load_s": heard.load_s}
            finish(self._farm, claimed.fence, done, told)
            heard.figures.rendered(done.report)
            self._health.well()
            self._problem = None
            self._log_of(claimed).info("attempt.ended", outcome="completed")

        try:
            with rendered.scratch:
                self._watched(claimed, store)
        finally:
            self._over(claimed)

    def _watched(self, claimed: lifecycle.Claim, part: Callable[[], T]) -> T | None:
        """Do a part of an attempt; what goes wrong in it ends the attempt in the ledger."""
        log = self._log_of(claimed)
        try:
            try:
                return part()
            except (RankStopped, RankFault, OSError, WanfarmError) as err:
                log.info("attempt.ended", outcome=self._went_wrong(claimed, err))
        except StaleAttempt:
            log.warning("attempt.stale")
        except SQLAlchemyError as err:  # the lease runs out, and any tick puts the job back
            log.warning("attempt.unwritten", error=type(err).__name__)
        return None

    def _over(self, claimed: lifecycle.Claim) -> None:
        """Let go of an attempt, and of saved latents that nobody will need."""
        assert self._keeper is not None
        self._keeper.release(claimed.fence)
        self._trails.pop(claimed.fence).over()
        with contextlib.suppress(SQLAlchemyError):  # upkeep looks again
            drop_saved(self._farm)

    def _render(
        self, claimed: lifecycle.Claim, reporter: Reporter, saved: Path | None, scratch: Path
    ) -> Future[Done]:
        spec, fence = claimed.spec, claimed.fence
        job = (fence.video_id, fence.attempt)
        cache = cache_of(spec, self._farm.settings)
        layout = lay_out(
            spec,
            self._farm.settings,
            self._ranks.hellos,
            cache.policies if cache else None,
            claimed.out_of_memory,
        )
        told = cache.record() if cache else {"high": None}
        running.record_plan(self._farm, fence, layout.model_dump(mode="json"), told)
        if self._warm != spec.model:
            reporter.phase(Phase.LOAD)
        self._ready(spec.model, layout)
        self._condition = GroupState.BUSY
        command = Generate(
            video_id=fence.video_id,
            attempt=fence.attempt,
            spec=spec,
            plan=layout,
            image=image_of(spec, self._farm.storage, scratch),
            out=str(scratch / "video.mp4"),
            loras=adapters_of(spec, self._farm.loras),
            resume=str(saved) if saved else None,
            save_to=str(self._farm.saved.path(saved_key(*job))),
            save_every_s=self._farm.settings.checkpoint_seconds,
            cache=cache.policies if cache else None,
        )

        def hear(message: Progress) -> None:
            try:
                if reporter.hear(message):
                    self._ranks.cancel(job)
            except StaleAttempt:
                self._ranks.cancel(job, _FENCED)

        return self._ranks.generate(command, hear)

    def _ready(self, model: str, layout: ParallelPlan) -> None:
        """Have this model loaded, its parts where the plan has them."""
        if self._warm != model:
            self._condition, self._warm = GroupState.LOADING, None
            seconds = self._ranks.load(
                Load(
                    model=model,
                    directory=str(self._checkpoints[model]),
                    plan=layout,
                    build=build_of(self._farm.settings),
                )
            )
            self._log.info("model.loaded", model=model, seconds=round(seconds, 2))
            self._warm = model
        self._condition, self._problem = GroupState.IDLE, None

    def _saved(self, claimed: lifecycle.Claim) -> Path | None:
        """Where an earlier attempt saved its latents."""
        if claimed.checkpoint is None:
            return None
        path = self._farm.saved.path(claimed.checkpoint["key"])
        return path if path.is_file() else None

    def _went_wrong(
        self, claimed: lifecycle.Claim, fault: RankFault | RankStopped | OSError | WanfarmError
    ) -> str:
        if isinstance(fault, RankStopped):
            lifecycle.cancelled(self._farm, claimed.fence, step=fault.step)
            return "cancelled"
        if isinstance(fault, OSError):
            why = fault.strerror or "unreadable file"
            message = f"The worker's own disk let it down ({why})."
            fault = RankFault(JobFailure(FailureKind.STORAGE, message))
        if isinstance(fault, WanfarmError):  # of the result store
            fault = RankFault(JobFailure(FailureKind.STORAGE, fault.message))
        if fault.failure is _DRAINED:
            lifecycle.requeue_uncharged(self._farm, claimed.fence, _DRAINED.message)
            return "drained"
        self._health.failed(fault.failure)
        self._sick(fault, claimed.spec.prompt)
        state = lifecycle.give_back(self._farm, claimed, fault.failure)
        return f"{state.value} ({fault.failure.kind})"

    def _sick(self, fault: RankFault, prompt: str = "") -> None:
        kind = fault.failure.kind
        self._log.warning("ranks.fault", **fault.facts(prompt))
        self._problem = fault.failure.message
        if not self._ranks.alive and kind is not FailureKind.LOST:  # that is of another's making
            self._farm.meters.count(GROUP_RESTARTS, group=self._identity.name, reason=kind)

    def _log_of(self, claimed: lifecycle.Claim) -> FilteringBoundLogger:
        fence = claimed.fence
        return logger(group=self._identity.name, job_id=fence.video_id, attempt=fence.attempt)
