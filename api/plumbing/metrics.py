"""The `wanfarm_*` metrics: what this process counted, and the farm as Postgres has it."""

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from api.plumbing.hub import Hub
from shared.jobs import estimates, queries, webhooks
from shared.machinery.farm import Farm

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)


class Metrics:
    """One registry per process; nothing global, so that tests may build many apps."""

    def __init__(self, farm: Farm, hub: Hub) -> None:
        """Register what is counted here and what is read at the scrape."""
        self._registry = CollectorRegistry()
        Info("wanfarm_build", "This build.", registry=self._registry).info(
            {"version": own_version()}
        )
        self._requests = Histogram(
            "wanfarm_http_request_duration_seconds",
            "Requests of the process that answered this scrape.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_FarmGauges(farm, hub))

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request under its route pattern, never its path."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """Render all metrics in the text format."""
        return generate_latest(self._registry)


def own_version() -> str:
    """Tell the installed version, or `0` in a bare checkout."""
    try:
        return version("wanfarm")
    except PackageNotFoundError:
        return "0"


class _FarmGauges(Collector):
    """Jobs by state from Postgres, streams from the hub, at the moment of the scrape."""

    def __init__(self, farm: Farm, hub: Hub) -> None:
        self._farm = farm
        self._hub = hub

    def describe(self) -> list[Metric]:
        """Say nothing in advance: registering must not touch the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the board once; without Postgres the process still tells of itself."""
        with suppress(SQLAlchemyError):
            board = queries.board(self._farm, None)
            jobs = GaugeMetricFamily("wanfarm_jobs", "Live videos by state.", labels=["state"])
            jobs.add_metric(["queued"], board.queued)
            jobs.add_metric(["in_progress"], board.in_progress)
            yield jobs
            hooks = GaugeMetricFamily(
                "wanfarm_webhooks_pending", "Webhooks that are not delivered and not given up."
            )
            hooks.add_metric([], webhooks.pending(self._farm))
            yield hooks
            yield from _accuracy(self._farm)
        streams = GaugeMetricFamily(
            "wanfarm_sse_streams", "Held-open answers of the process that answered this scrape."
        )
        streams.add_metric([], self._hub.held)
        yield streams


def _accuracy(farm: Farm) -> Iterator[Metric]:
    """How well the ends of the latest runs were foreseen; nothing before there are any."""
    found = estimates.accuracy(farm)
    if found is None:
        return
    within = GaugeMetricFamily(
        "wanfarm_eta_within_range_ratio",
        "Latest runs that ended between the 10 % and the 90 % of what was expected; 0.8 is meant.",
    )
    within.add_metric([], found.within)
    yield within
    error = GaugeMetricFamily(
        "wanfarm_eta_median_error_ratio", "How far they ended from the likely time, as its part."
    )
    error.add_metric([], found.median_error)
    yield error
