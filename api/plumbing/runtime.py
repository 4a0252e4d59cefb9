"""What one API process holds while it serves: the farm's handles, the hub, the metrics."""

from dataclasses import dataclass, field
from typing import cast

from flask import current_app

from api.plumbing.hub import Hub
from api.plumbing.metrics import Metrics
from api.plumbing.rates import Rates
from shared.jobs.tick import Ticker
from shared.machinery.farm import Farm

EXTENSION = "wanfarm"


@dataclass(frozen=True, slots=True)
class Runtime:
    """Built by `create_app`, ended by `api.app.close`."""

    farm: Farm
    hub: Hub
    ticker: Ticker
    metrics: Metrics
    rates: Rates = field(default_factory=Rates)


def runtime() -> Runtime:
    """Give the runtime of the app that answers the current request."""
    return cast("Runtime", current_app.extensions[EXTENSION])


def farm() -> Farm:
    """Give the farm's handles to a route."""
    return runtime().farm
