"""What the API tells Prometheus: all its processes' counts, and the farm as Postgres has it."""

import threading
import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import generate_latest, values
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import board, estimates, groups, pauses, webhooks
from shared.machinery.farm import Farm
from shared.machinery.meters import Told, build, disks, family
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.metrics import (
    DELIVERIES_PENDING,
    DISPATCH_PAUSED,
    ETA_ERROR,
    ETA_WITHIN,
    GROUP_AGE,
    GROUP_STATE,
    HTTP_SECONDS,
    INTAKE_PAUSED,
    JOBS,
    QUEUE_AGE,
)
from shared.vocabulary.states import GroupState, VideoState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_FRESH_S: Final = 5.0


class Metrics:
    """What one process of the API tells."""

    def __init__(self, farm: Farm) -> None:
        """Begin to count."""
        self._meters = farm.meters
        self._meters.begin("api")
        self._read = Told(build, lambda: disks(farm.settings), _Kept(farm).read)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request under its route pattern, never its path."""
        self._meters.observe(HTTP_SECONDS, seconds, method=method, route=route, status=str(status))

    def text(self) -> bytes:
        """Render all metrics in the text format."""
        return generate_latest(self._counted()) + generate_latest(self._read)

    def _counted(self) -> Collector:
        """What was counted: by every process below gunicorn, which share a directory; else here."""
        alone = values.ValueClass is values.MutexValue
        return self._meters.registry if alone else MultiProcessCollector(None)


class _Kept:
    """The farm's gauges, read anew when they are older than a few seconds."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._lock = threading.Lock()  # who asks meanwhile waits for the same answer
        self._read_at = -_FRESH_S
        self._known: list[Family] = []

    def read(self) -> list[Family]:
        """Tell of the farm; nothing while Postgres does not answer."""
        with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_S:
                try:
                    self._known = [*_gauges(self._farm)]
                except SQLAlchemyError:
                    self._known = []
                self._read_at = time.monotonic()
            return self._known


def _gauges(farm: Farm) -> Iterator[Family]:
    yield from _queue(farm)
    yield from _groups(farm)
    yield family(DELIVERIES_PENDING, [(webhooks.pending(farm), ())])
    if found := estimates.accuracy(farm):
        yield family(ETA_WITHIN, [(found.within, ())])
        yield family(ETA_ERROR, [(found.median_error, ())])


def _queue(farm: Farm) -> Iterator[Family]:
    live = {(one.model, one.state): one for one in board.live(farm) if one.model in MODELS}
    counts = dict.fromkeys(((model, state) for model in MODELS for state in _LIVE), 0)
    counts |= {key: one.count for key, one in live.items()}
    yield family(JOBS, ((count, key) for key, count in counts.items()))
    ages = dict.fromkeys(MODELS, 0.0)
    ages |= {model: one.oldest_s for (model, state), one in live.items() if state == _LIVE[0]}
    yield family(QUEUE_AGE, ((age, (model,)) for model, age in ages.items()))
    closed = {door["what"] for door in pauses.closed(farm)}
    yield family(INTAKE_PAUSED, [("intake" in closed, ())])
    yield family(DISPATCH_PAUSED, [("dispatch" in closed, ())])


_LIVE: Final = (VideoState.QUEUED.value, VideoState.IN_PROGRESS.value)


def _groups(farm: Farm) -> Iterator[Family]:
    known = groups.all_groups(farm)
    states = [(one["name"], one["state"], state) for one in known for state in GroupState]
    yield family(GROUP_STATE, ((now is state, (name, state)) for name, now, state in states))
    yield family(GROUP_AGE, ((one["silent_s"], (one["name"],)) for one in known))
