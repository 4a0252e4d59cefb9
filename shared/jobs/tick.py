"""Ring again, rescue, expire: what every API and worker process does for all, without a leader."""

import random
import threading

from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import lifecycle, scheduling
from shared.machinery.doorbell import ENOUGH
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.metrics import DOORBELLS


def ring_again(farm: Farm) -> int:
    """Ring once for each due video that no waiting ring stands for; returns how many."""
    rung = 0
    for model, due in due_by_model(farm).items():
        waiting = farm.doorbell.waiting(model)
        if waiting is None:
            return rung
        missing = due - waiting
        if missing > 0 and farm.doorbell.ring(model, missing):
            rung += missing
            farm.meters.count(DOORBELLS, missing, source="tick")
    return rung


def due_by_model(farm: Farm) -> dict[str, int]:
    """Count the due videos of each model, no further than is worth ringing for."""
    with farm.db.connect() as db:
        rows = db.execute(scheduling.due(tuple(MODELS), ENOUGH)).all()
    return {row[0]: row[1] for row in rows}


def tick(farm: Farm) -> None:
    """Do all of it once."""
    lifecycle.rescue(farm)
    lifecycle.expire_deadlines(farm)
    ring_again(farm)


class Ticker(threading.Thread):
    """A thread that ticks until it is stopped, jittered so that processes do not march in step."""

    def __init__(self, farm: Farm) -> None:
        """Prepare; `start()` begins."""
        super().__init__(name="tick", daemon=True)
        self._farm = farm
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Tick, whatever the database says."""
        log = logger()
        while not self._stop_asked.wait(self._farm.settings.tick_s * random.uniform(0.7, 1.3)):  # noqa: S311
            try:
                tick(self._farm)
            except SQLAlchemyError as err:
                log.warning("tick.failed", error=type(err).__name__)

    def stop(self) -> None:
        """End the thread, soon."""
        self._stop_asked.set()
