"""The thread that keeps a group's word: heartbeats, leases, cancels, deadlines."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import groups, lifecycle, running
from shared.jobs.ledger import Fence
from shared.machinery.farm import Farm
from shared.machinery.feed import NUDGES, Subscription
from shared.machinery.logs import logger
from shared.vocabulary.errors import JobFailure, StaleAttempt
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState

# Of the lease: without a confirmed renewal by then the ranks stop, before anyone else may start.
_UNSURE: Final = 0.7

Cancel = Callable[[JobFailure | None], None]


@dataclass(slots=True)
class _Held:
    """An attempt of this group, and when it must be over (monotonic)."""

    fence: Fence
    cancel: Cancel
    confirmed: float
    run_until: float
    finish_until: float | None
    asked: bool = False


class Keeper(threading.Thread):
    """Tells the farm that the group lives, and the group what the farm wants."""

    def __init__(
        self,
        farm: Farm,
        identity: groups.Identity,
        reading: Callable[[], groups.Reading],
        obey: Callable[[groups.Wish], None],
    ) -> None:
        """Take what to tell, and whom to tell what people want; `start()` begins."""
        super().__init__(name="keeper", daemon=True)
        self._farm = farm
        self._identity = identity
        self._reading = reading
        self._obey = obey
        self._log = logger(group=identity.name)
        self._lock = threading.Lock()
        self._held: dict[Fence, _Held] = {}
        self._told: tuple[GroupState, str | None] | None = None
        self._stop_asked = threading.Event()

    def hold(self, claimed: lifecycle.Claim, sent_at: float, cancel: Cancel) -> None:
        """Watch over an attempt from now on.

        Args:
            claimed: the attempt.
            sent_at: monotonic time before the claim was sent: its lease counts from there.
            cancel: asks the ranks to stop it, with the reason to fail with, or None.
        """
        finish = claimed.finish_in_s
        with self._lock:
            self._held[claimed.fence] = _Held(
                fence=claimed.fence,
                cancel=cancel,
                confirmed=sent_at,
                run_until=sent_at + self._farm.settings.run_limit_s,
                finish_until=None if finish is None else sent_at + finish,
            )

    def release(self, fence: Fence) -> None:
        """Stop watching: the attempt has ended."""
        with self._lock:
            self._held.pop(fence, None)

    def stop(self) -> None:
        """End the thread, soon."""
        self._stop_asked.set()

    def run(self) -> None:
        """Beat and listen, whatever Postgres and Redis say."""
        while not self._stop_asked.is_set():
            try:
                with self._farm.feed.subscription(NUDGES) as nudges:
                    self._listen(nudges)
            except RedisError:
                self._beat()
                self._stop_asked.wait(min(1.0, self._farm.settings.heartbeat_s))

    def _listen(self, nudges: Subscription) -> None:
        due = 0.0
        while not self._stop_asked.is_set():
            if time.monotonic() >= due or self._is_news(self._reading()):
                self._beat()
                due = time.monotonic() + self._farm.settings.heartbeat_s
            nudge = nudges.next(min(0.5, self._farm.settings.heartbeat_s))
            if nudge and nudge.get("group") == self._identity.name:
                due = 0.0  # the next beat brings back what is wanted
            for held in self._all_held():
                if nudge and nudge.get("cancel") == held.fence.video_id:
                    self._renew(held)
                self._enforce(held)

    def _all_held(self) -> list[_Held]:
        with self._lock:
            return list(self._held.values())

    def _beat(self) -> None:
        for held in self._all_held():
            self._renew(held)
            self._enforce(held)
        self._touch()
        reading = self._reading()
        self._told = (reading.condition, reading.video_id)
        try:
            wish = groups.beat(self._farm, self._identity, reading)
            if wish is None:
                self._log.warning("heartbeat.unknown")
                groups.register(self._farm, self._identity)
            else:
                self._obey(wish)
        except SQLAlchemyError as err:
            self._log.warning("heartbeat.failed", error=type(err).__name__)

    def _is_news(self, reading: groups.Reading) -> bool:
        """Tell whether people would see something else than at the last beat."""
        return self._told != (reading.condition, reading.video_id)

    def _renew(self, held: _Held) -> None:
        sent_at = time.monotonic()
        try:
            asked = running.renew(self._farm, held.fence)
        except StaleAttempt:
            self._end(held, JobFailure(FailureKind.LOST, "Another attempt has taken over."))
        except SQLAlchemyError as err:
            self._log.warning("lease.unconfirmed", error=type(err).__name__)
        else:
            held.confirmed = sent_at
            if asked:
                self._end(held, None)

    def _enforce(self, held: _Held) -> None:
        now = time.monotonic()
        if now - held.confirmed > _UNSURE * self._farm.settings.lease_s:
            self._end(held, JobFailure(FailureKind.LOST, "The database could not be reached."))
        elif held.finish_until is not None and now > held.finish_until:
            self._end(held, JobFailure(FailureKind.DEADLINE, "The deadline to finish has passed."))
        elif now > held.run_until:
            limit = self._farm.settings.run_limit_s
            message = f"The attempt ran longer than this farm allows ({limit:.0f} s)."
            self._end(held, JobFailure(FailureKind.TIMEOUT, message))

    def _end(self, held: _Held, reason: JobFailure | None) -> None:
        """Ask the ranks to stop, once per attempt and only while it is held."""
        with self._lock:
            if held.asked or self._held.get(held.fence) is not held:
                return
            held.asked = True
            held.cancel(reason)

    def _touch(self) -> None:
        """Leave a sign for `wanfarm ping worker`, which asks neither broker nor database."""
        beat_file = heartbeat_file(self._farm.settings.data_dir, self._identity.name)
        try:
            beat_file.parent.mkdir(parents=True, exist_ok=True)
            beat_file.touch()
        except OSError as err:
            self._log.warning("heartbeat.file", error=err.strerror)


def heartbeat_file(data_dir: Path, group: str) -> Path:
    """Name the file whose age tells whether a parent lives."""
    return data_dir / "groups" / f"{group}.heartbeat"
