"""The composition root of the API: everything one process holds is built here."""

import gc
import json
import signal
from functools import cache
from types import FrameType
from typing import Any, Final, cast

from flask import Flask

from api.dashboard import pages
from api.plumbing import errors, headers
from api.plumbing.hub import Hub
from api.plumbing.metrics import Metrics
from api.plumbing.openapi import DOCUMENT, document
from api.plumbing.registry import register
from api.plumbing.runtime import EXTENSION, Runtime
from api.routes import (
    audit,
    batches,
    content,
    estimates,
    events,
    files,
    health,
    keys,
    loras,
    models,
    operations,
    records,
    remakes,
    unbuilt,
    videos,
    webhooks,
)
from shared.jobs.tick import Ticker
from shared.machinery.farm import open_farm
from shared.machinery.logs import configure
from shared.machinery.settings import ConfigurationError, Settings, load_settings

ENDPOINTS: Final = (
    *videos.ENDPOINTS,
    *remakes.ENDPOINTS,
    *estimates.ENDPOINTS,
    *records.ENDPOINTS,
    *content.ENDPOINTS,
    *batches.ENDPOINTS,
    *events.ENDPOINTS,
    *models.ENDPOINTS,
    *loras.ENDPOINTS,
    *files.ENDPOINTS,
    *operations.ENDPOINTS,
    *keys.ENDPOINTS,
    *webhooks.ENDPOINTS,
    *audit.ENDPOINTS,
    *health.ENDPOINTS,
)
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_FORM_PARTS: Final = 256  # bracket keys need many


def create_app(settings: Settings | None = None) -> Flask:
    """Build the app and start its threads; one per gunicorn worker, which never forks after it.

    Raises:
        ConfigurationError: when the settings would leave the farm open.
    """
    served = settings is None  # by gunicorn, in a process of our own
    if settings is None:
        settings = load_settings()
        configure(settings.log_level, service="api")
    _refuse_open_door(settings)
    farm = open_farm(settings, "api")
    hub = Hub(farm)
    app = Flask("api", static_folder=None, template_folder=None)
    app.extensions[EXTENSION] = Runtime(farm, hub, Ticker(farm), Metrics(farm))
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_body_bytes  # data URLs come as form text
    app.config["MAX_FORM_PARTS"] = _FORM_PARTS
    app.url_map.merge_slashes = False  # `//` is not found, never a redirect
    headers.install(app)
    register(app, ENDPOINTS)
    unbuilt.register(app)
    pages.register(app, farm)
    app.extensions[DOCUMENT] = openapi_text()
    errors.install(app)
    start_threads(app)
    if served:
        _let_go_when_asked_to_stop(hub)
        gc.freeze()  # what is built now stays; to look through it would hold everybody up for 70 ms
    return app


@cache  # a quarter of a second
def openapi_text() -> str:
    """Write the OpenAPI document, as /openapi.json and docs/reference have it."""
    return json.dumps(document(ENDPOINTS), indent=1, ensure_ascii=False) + "\n"


def start_threads(app: Flask) -> None:
    """Start the hub and the ticker of this process."""
    runtime = _runtime(app)
    runtime.hub.start()
    runtime.ticker.start()


def close(app: Flask) -> None:
    """Let held-open answers go, end the threads, give the connections back."""
    runtime = _runtime(app)
    runtime.hub.stop()
    runtime.ticker.stop()
    for thread in (runtime.hub, runtime.ticker):
        thread.join(timeout=5)
    runtime.farm.close()


def _let_go_when_asked_to_stop(hub: Hub) -> None:
    """End held-open answers at once, so that a stop need not wait for them."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        before = signal.getsignal(number)  # gunicorn's own, set before the app is loaded

        def handle(number: int, frame: FrameType | None, before: Any = before) -> None:  # noqa: ANN401
            hub.stop()
            if callable(before):
                before(number, frame)

        signal.signal(number, handle)


def _runtime(app: Flask) -> Runtime:
    return cast("Runtime", app.extensions[EXTENSION])


def _refuse_open_door(settings: Settings) -> None:
    if settings.auth == "none" and settings.host not in _LOOPBACK:
        raise ConfigurationError(
            f"WANFARM_AUTH is 'none' and WANFARM_HOST is '{settings.host}'. Everybody who reaches "
            "that address would be admin. Bind to 127.0.0.1, or keep keys."
        )
    if not settings.secret_key.get_secret_value():
        raise ConfigurationError(
            "WANFARM_SECRET_KEY is empty. It signs sessions and links, the same in every process. "
            "Set it to 32 random characters or more."
        )
