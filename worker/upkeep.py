"""The slow duties, once a minute by one process at a time, and webhooks by every one."""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Final

from sqlalchemy import Delete, delete, func, select
from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import audit, batches, removal, webhooks
from shared.jobs.ledger import STEPS_KEPT_S, in_seconds
from shared.jobs.tick import Ticker
from shared.machinery.farm import Farm, open_farm
from shared.machinery.logs import configure, logger
from shared.machinery.settings import ConfigurationError, load_settings
from shared.machinery.tables import Batch, Event, Idempotency, LoginToken, Video
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.metrics import UPKEEP_AT
from worker import telling
from worker.deliveries import Deliverer

_LOCK: Final = 7_221_902
_EVERY_S: Final = 60.0
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400

Duties = Mapping[str, Callable[[Farm], int]]


def main() -> None:
    """Run until SIGTERM; of several one does the duties, and all send webhooks."""
    try:
        settings = load_settings()
        farm = open_farm(settings, "upkeep")
    except ConfigurationError as err:
        raise SystemExit(f"wanfarm upkeep: {err}") from err
    configure(settings.log_level, service="upkeep")
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    farm.meters.begin("upkeep")
    farm.meters.set(UPKEEP_AT, 0)
    telling.serve(farm)
    ticker, deliverer = Ticker(farm), Deliverer(farm)
    ticker.start()
    deliverer.start()
    log, next_hourly = logger(), 0.0
    while not stop.is_set():
        duties = DUTIES
        if time.monotonic() > next_hourly:
            duties, next_hourly = {**DUTIES, **HOURLY}, time.monotonic() + _HOUR_S
        try:
            if (done := round_of_duties(farm, duties)) is not None:
                farm.meters.set(UPKEEP_AT, time.time())
                log.info("upkeep.done", **done)
        except SQLAlchemyError as err:
            log.warning("upkeep.failed", error=type(err).__name__)
        except WanfarmError as err:  # of the result store
            log.warning("upkeep.failed", error=err.message)
        stop.wait(_EVERY_S)
    ticker.stop()
    deliverer.stop()
    deliverer.join()
    farm.close()


def round_of_duties(farm: Farm, duties: Duties) -> dict[str, int] | None:
    """Do each duty once; None when another process holds the duty lock."""
    with farm.db.connect() as session:  # the lock lives as long as this session
        if not session.scalar(select(func.pg_try_advisory_lock(_LOCK))):
            return None
        try:
            return {name: duty(farm) for name, duty in duties.items()}
        finally:
            session.execute(select(func.pg_advisory_unlock(_LOCK)))


def prune_steps(farm: Farm) -> int:
    """Drop the step events of videos that ended long ago; their pattern is in the attempt."""
    ended = select(Video.id).where(
        Video.completed_at.between(in_seconds(-2 * STEPS_KEPT_S), in_seconds(-STEPS_KEPT_S))
    )
    return _delete(farm, delete(Event).where(Event.video_id.in_(ended), Event.type == "step"))


def prune_idempotency(farm: Farm) -> int:
    """Forget keys older than a day whose video or batch is gone."""
    old = Idempotency.at < in_seconds(-_DAY_S)
    video = select(Video.id).where(Video.id == Idempotency.object_id).exists()
    batch = select(Batch.id).where(Batch.id == Idempotency.object_id).exists()
    return _delete(farm, delete(Idempotency).where(old, ~video, ~batch))


def prune_logins(farm: Farm) -> int:
    """Forget login tokens that no longer work."""
    return _delete(farm, delete(LoginToken).where(LoginToken.expires_at < in_seconds(-_DAY_S)))


def _delete(farm: Farm, statement: Delete) -> int:
    with farm.db.connect() as db:
        return db.execute(statement).rowcount


DUTIES: Final[Duties] = {
    "stopped": removal.stop_deleted,
    "purged": removal.purge,
    "expired": removal.expire,
    "files": removal.expire_files,
    "checkpoints": removal.drop_saved,
    "steps": prune_steps,
    "idempotency": prune_idempotency,
    "logins": prune_logins,
    "deliveries": webhooks.prune,
    "audit": audit.prune,
}
# they look at all that there is: every stored name, every batch
HOURLY: Final[Duties] = {"strays": removal.drop_strays, "batches": batches.drop_empty}


if __name__ == "__main__":
    main()
