"""Ring again, rescue, expire: what every API and worker process does for all, without a leader."""

import random
import threading

from sqlalchemy import String, column, func, lateral, literal, select, true, values
from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import lifecycle
from shared.jobs.scheduling import is_due
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.machinery.tables import Tenant, Video
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.states import VideoState

_MOST_RINGS = 64


def ring_again(farm: Farm) -> int:
    """Ring once for each due video that no waiting ring stands for; returns how many."""
    rung = 0
    for model, due in due_by_model(farm).items():
        waiting = farm.doorbell.waiting(model)
        if waiting is None:
            return rung
        for _ in range(due - waiting):
            rung += farm.doorbell.ring(model)
    return rung


def due_by_model(farm: Farm) -> dict[str, int]:
    """Count the due videos of each model, no further than is worth ringing for."""
    models = values(column("model", String), name="known").data([(model,) for model in MODELS])
    due = lateral(
        select(literal(1).label("one"))
        .where(
            Video.tenant == Tenant.name,
            Video.model == models.c.model,
            Video.state == VideoState.QUEUED,
            *is_due(Video),
        )
        .limit(_MOST_RINGS)
        .correlate(Tenant, models)
    )
    statement = (
        select(models.c.model, func.least(func.count(), _MOST_RINGS))
        .select_from(models)
        .join(Tenant, true())
        .join(due, true())
        .group_by(models.c.model)
    )
    with farm.db.connect() as db:
        return {row[0]: row[1] for row in db.execute(statement).all()}


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
