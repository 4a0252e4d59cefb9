"""Any error of any kind becomes one envelope, here and nowhere else."""

from collections.abc import Iterable
from typing import Any, Final

from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, RequestedRangeNotSatisfiable

from api.plumbing.wire import json_response
from shared.machinery.logs import logger
from shared.vocabulary.errors import CODES, Code, RequestRejected, WanfarmError

_STUBBORN_S: Final = 60  # clients are not told to retry by themselves after longer waits
_SERVER_BUSY_S: Final = 5

_OF_STATUS: Final = {
    400: ("invalid_form", "The body cannot be read. It breaks off or is malformed. Send it anew."),
    404: ("not_found", "There is nothing at this path. See /openapi.json for what there is."),
    405: ("method_not_allowed", "This path does not take {method}. It takes {allow}."),
    413: ("body_too_large", "The body is too large. This farm takes {limit} MiB. Send less."),
    415: ("unsupported_media_type", "This Content-Type is not read. Send application/json."),
    416: ("range_not_satisfiable", "The range lies outside the file. Ask for less, or for all."),
}


def install(app: Flask) -> None:
    """Take over every error of the app."""
    app.register_error_handler(WanfarmError, _ours)
    app.register_error_handler(HTTPException, _frameworks)
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        app.register_error_handler(kind, _database)
    app.register_error_handler(Exception, _unforeseen)


def envelope(err: WanfarmError) -> dict[str, Any]:
    """Phrase an error for the wire."""
    faults = err.faults if isinstance(err, RequestRejected) else []
    return {
        "error": {
            "message": err.message,
            "type": _meaning(err).type,
            "code": err.code,
            "param": err.param,
            "request_id": g.get("request_id"),
            "errors": [
                {"param": fault.param, "code": fault.code, "message": fault.message}
                for fault in faults
            ],
        }
    }


def _meaning(err: WanfarmError) -> Code:
    """Tell status and type; a name in the body that does not exist makes a bad request."""
    code = CODES[err.code]
    in_body = isinstance(err, RequestRejected) and code.status == 404
    return CODES["invalid_value"] if in_body else code


def _ours(err: WanfarmError) -> Response:
    code = _meaning(err)
    response = json_response(envelope(err), code.status)
    wait = err.retry_after_s
    if code.status in {429, 503}:
        wait = min(600, max(1, wait or _SERVER_BUSY_S))
        response.headers["Retry-After"] = str(wait)
    worth_it = code.retryable and (wait is None or wait <= _STUBBORN_S)
    response.headers["x-should-retry"] = "true" if worth_it else "false"
    if code.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _frameworks(err: HTTPException) -> Response:
    status = err.code or 500
    if status not in _OF_STATUS:
        return _unforeseen(err)
    code, message = _OF_STATUS[status]
    allow = ", ".join(_allowed(getattr(err, "valid_methods", None) or ()))
    limit = (request.max_content_length or 0) // 2**20
    response = _ours(
        WanfarmError(code, message.format(method=request.method, allow=allow, limit=limit))
    )
    if status == 405:
        response.headers["Allow"] = allow
    if isinstance(err, RequestedRangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{err.length}"
    return response


def _allowed(methods: Iterable[str]) -> list[str]:
    """Keep the methods of the path itself: of a fixed one, not of one that its name would fit."""
    paths = current_app.create_url_adapter(request)
    assert paths is not None  # there is a request
    named = {method for method in methods if paths.match(method=method)[1]}
    return sorted(set(methods) - named or named)


def _database(err: Exception) -> Response:
    logger().warning("request.database_unavailable", error=type(err).__name__)
    return _ours(
        WanfarmError(
            "database_unavailable",
            "The farm's database does not answer. Nothing was lost, and nothing was accepted. "
            "Retry in about 5 s.",
            retry_after_s=_SERVER_BUSY_S,
        )
    )


def _unforeseen(err: Exception) -> Response:
    logger().error(
        "request.failed", path=request.path, request_id=g.get("request_id"), exc_info=err
    )
    return _ours(
        WanfarmError(
            "internal_error",
            "The farm met a fault of its own. The request id leads to it in the log. Retry once.",
        )
    )
