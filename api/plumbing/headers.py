"""What surrounds every answer: request id, allowed hosts, security and cache headers, metrics."""

import math
import re
import time
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, abort, g, request

from api.plumbing.runtime import farm, runtime
from shared.machinery.logs import begin, logger
from shared.machinery.traces import Asked
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import is_id, new_id

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PORT: Final = re.compile(r":[0-9]*$")
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:{files}; "
    "media-src 'self' blob:{files}; connect-src 'self'; font-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOG: Final = logger()
# Probes come by address, and tell nothing that a foreign page could use.
_ANY_HOST: Final = frozenset({"/livez", "/readyz", "/health", "/metrics"})


def install(app: Flask) -> None:
    """Run around every request of the app."""
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    g.began = time.monotonic()
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else new_id("req")
    begin(request_id=g.request_id)
    if "\x00" in request.path:  # no object is called so, and Postgres would not take it
        abort(404)
    if request.path not in _ANY_HOST and not _is_allowed_host():
        raise WanfarmError(
            "invalid_header",
            f"The Host '{request.host[:80]}' is not one of this farm. "
            "Add it to WANFARM_ALLOWED_HOSTS.",
        )


def _is_allowed_host() -> bool:
    settings = farm().settings
    named = _PORT.sub("", request.host)
    public = _PORT.sub("", urlsplit(settings.public_url or "").netloc)
    return bool(named) and named in {public, *settings.allowed_hosts}


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    if allowance := g.get("allowance"):
        response.headers["X-RateLimit-Limit"] = str(allowance.limit)
        response.headers["X-RateLimit-Remaining"] = str(allowance.remaining)
        response.headers["X-RateLimit-Reset"] = str(math.ceil(allowance.reset_s))
    origin = farm().storage.origin
    response.headers["Content-Security-Policy"] = _CSP.format(files=f" {origin}" if origin else "")
    _count(response)
    return response


def _count(response: Response) -> None:
    seconds = time.monotonic() - g.began
    route = request.url_rule.rule if request.url_rule else "none"
    method = request.method if request.url_rule else "none"
    runtime().metrics.observe(method, route, response.status_code, seconds)
    _trace(response, f"{method} {route}", seconds)
    write = _LOG.debug if request.method in {"GET", "HEAD"} else _LOG.info
    write(
        "request.answered",
        method=request.method,
        route=route,
        status=response.status_code,
        seconds=round(seconds, 4),
    )


def _trace(response: Response, name: str, seconds: float) -> None:
    """Leave the request's span, which leads to the video that it made or is about."""
    now = time.time()
    made = response.headers.get("Location", "").rpartition("/")[2]
    about = str((request.view_args or {}).get("video_id", made))
    farm().traces.asked(
        Asked(
            name=name,
            began=now - seconds,
            ended=now,
            headers=request.headers.items(),
            video_id=about if is_id(about, "video") else None,
            attributes={
                "http.response.status_code": response.status_code,
                "request.id": g.request_id,
            },
        )
    )
