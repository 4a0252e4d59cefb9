"""The figures of one process: counted where they happen, told when Prometheus asks."""

import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from shared.machinery.settings import Settings
from shared.vocabulary.metrics import (
    BUILD,
    ENDS,
    FINISHED,
    METRICS,
    STORAGE_FREE,
    STORAGE_SIZE,
    Metric,
    Teller,
)

Readings = Iterable[tuple[float, tuple[str, ...]]]  # a value and its labels' values, in order
_CLASSES: Final = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class Meters:
    """What this process has counted; nothing global, so that a test may have many."""

    def __init__(self) -> None:
        """Begin with nothing; a metric is there from its first use on."""
        disable_created_metrics()  # a series more for each, which nothing reads
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    def begin(self, teller: Teller, models: Iterable[str] = ()) -> None:
        """Have counters begin at 0, as a first increase from nothing is not seen.

        Args:
            teller: what this process is.
            models: those whose videos it will bring to an end.
        """
        for metric in METRICS:
            if metric.kind != "counter" or teller not in metric.by:
                continue
            sets = [label.values or () for label in metric.labels if label.name != "model"]
            if len(sets) == len(metric.labels):
                for values in itertools.product(*sets):
                    self.count(metric, 0, **dict(zip(metric.label_names, values, strict=True)))
        for model, (state, code) in itertools.product(models, ENDS):
            self.count(FINISHED, 0, model=model, state=state, code=code)

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._series(metric, labels).inc(by)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a sample to a histogram."""
        self._series(metric, labels).observe(value)

    def set(self, metric: Metric, value: float) -> None:
        """Set a gauge."""
        self._series(metric, {}).set(value)

    @contextmanager
    def timed(self, metric: Metric, **labels: str) -> Generator[None]:
        """Add what a block takes to a histogram, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.observe(metric, time.monotonic() - began, **labels)

    def _series(self, metric: Metric, labels: dict[str, str]) -> Any:  # noqa: ANN401 - of three kinds
        values = [label.closed(labels[label.name]) for label in metric.labels]
        with self._lock:
            if metric.name not in self._made:
                self._made[metric.name] = self._make(metric)
        made = self._made[metric.name]
        return made.labels(*values) if values else made

    def _make(self, metric: Metric) -> Any:  # noqa: ANN401 - of three kinds
        more: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
        if metric.kind == "gauge":
            more = {"multiprocess_mode": "livesum"}  # of the API's processes that live
        made = _CLASSES[metric.kind]
        return made(metric.name, metric.about, metric.label_names, registry=self.registry, **more)


class Told(Collector):
    """Gauges that are read when somebody asks."""

    def __init__(self, *read: Callable[[], Iterable[Family]]) -> None:
        """Take what reads them."""
        self._read = read

    def describe(self) -> list[Family]:
        """Say nothing in advance: to be registered reads nothing."""
        return []

    def collect(self) -> Iterator[Family]:
        """Read all of them."""
        for read in self._read:
            yield from read()


def family(metric: Metric, readings: Readings) -> GaugeMetricFamily:
    """Make a gauge of what was read just now."""
    made = GaugeMetricFamily(metric.name, metric.about, labels=metric.label_names)
    for value, labels in readings:
        closed = [label.closed(given) for label, given in zip(metric.labels, labels, strict=True)]
        made.add_metric(closed, value)
    return made


def build() -> Iterator[Family]:
    """Tell which version this is."""
    yield family(BUILD, [(1, (own_version(),))])


def disks(settings: Settings) -> Iterator[Family]:
    """Tell how much room there is where this process writes."""
    usage: dict[str, Any] = {}
    for name, folder in (("data", settings.data_dir), ("scratch", tempfile.gettempdir())):
        with suppress(OSError):  # it is made at the first write
            usage[name] = shutil.disk_usage(folder)
    yield family(STORAGE_FREE, ((one.free, (name,)) for name, one in usage.items()))
    yield family(STORAGE_SIZE, ((one.total, (name,)) for name, one in usage.items()))


def own_version() -> str:
    """Tell the installed version, or `0` in a bare checkout."""
    try:
        return version("wanfarm")
    except PackageNotFoundError:
        return "0"
