"""What all pages share: theme, notices, error pages, and what templates may call."""

import importlib.metadata
from functools import cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, Response, g, make_response, redirect, render_template, request
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from api.dashboard import words
from api.plumbing.auth import CSRF_FIELD, csrf_token
from api.plumbing.errors import envelope
from api.plumbing.links import base_url
from api.plumbing.runtime import farm
from api.plumbing.wire import json_response
from shared.jobs.keys import Scope
from shared.machinery.logs import logger
from shared.vocabulary.errors import CODES, WanfarmError

THEME_COOKIE: Final = "wanfarm_theme"
THEMES: Final = ("dark", "light")
_TITLES: Final = {
    403: "Not allowed",
    404: "Nothing here",
    409: "Not in this state",
    410: "No file any more",
    429: "Too much at once",
    503: "Not available now",
}


def install(pages: Blueprint) -> None:
    """Give the pages their filters, their context and their error pages."""
    for name, function in words.FILTERS.items():
        pages.add_app_template_filter(function, name)
    pages.context_processor(_context)
    pages.after_request(_keep_origin)
    pages.register_error_handler(WanfarmError, error_page)
    pages.register_error_handler(HTTPException, _framework_error)
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        pages.register_error_handler(kind, _no_database)
    pages.register_error_handler(Exception, _unforeseen)


def local_path(text: str | None) -> str:
    """Take a path to return to from outside: only ever one of this server."""
    if not text or not text.startswith("/") or text[1:2] in {"/", "\\"} or not text.isprintable():
        return "/"
    return text


def cheap(html: str) -> Response:
    """Answer a poll: nothing is sent when nothing has changed."""
    answer = make_response(html)
    answer.headers["Cache-Control"] = "private, no-cache"
    answer.add_etag(weak=True)
    answer.make_conditional(request)
    return answer


def error_page(err: WanfarmError) -> BaseResponse:
    """Show an error in the shell; who is not logged in goes to the login and comes back."""
    status = CODES[err.code].status
    if "text/html" not in request.headers.get("Accept", ""):
        return json_response(envelope(err), status)
    if status == HTTPStatus.UNAUTHORIZED and request.method == "GET" and not _is_fragment():
        return redirect(f"/login?next={quote(request.full_path.rstrip('?'))}", 303)
    title = _TITLES.get(status, "Something went wrong" if status >= 500 else "Not understood")
    page = render_template("error.html", title=title, error=err, status=status)
    return make_response(page, status)


def _is_fragment() -> bool:
    return request.headers.get("HX-Request") == "true"


def _context() -> dict[str, Any]:
    caller = g.get("caller")

    def may(scope: Scope) -> bool:
        return caller is not None and caller.may(scope)

    theme = request.cookies.get(THEME_COOKIE)
    return {
        "caller": caller,
        "may": may,
        "csrf_field": CSRF_FIELD,
        "csrf_token": csrf_token(),
        "theme": theme if theme in THEMES else THEMES[0],
        "other_theme": THEMES[0] if theme == THEMES[1] else THEMES[1],
        "version": _version(),
        "base_url": base_url(),
        "has_auth": farm().settings.auth == "keys",
    }


@cache
def _version() -> str:
    try:
        return f"v{importlib.metadata.version('wanfarm')}"
    except importlib.metadata.PackageNotFoundError:  # run from a folder that is not installed
        return ""


def _keep_origin(answer: BaseResponse) -> BaseResponse:
    """Let forms say where they come from: without a referrer policy a POST's Origin is `null`."""
    answer.headers["Referrer-Policy"] = "same-origin"
    return answer


def _framework_error(err: HTTPException) -> BaseResponse:
    if err.code is None or err.code >= 500:
        return _unforeseen(err)
    if err.code in {404, 405}:
        message = "There is no page at this address. It may have been mistyped. Start from Jobs."
        return error_page(WanfarmError("not_found", message))
    if err.code == 413:
        limit = farm().settings.max_body_bytes // 2**20
        message = f"The form is too large. This farm takes {limit} MiB. Send a smaller image."
        return error_page(WanfarmError("body_too_large", message))
    return error_page(WanfarmError("invalid_form", "The request cannot be read. Send it anew."))


def _no_database(err: Exception) -> BaseResponse:
    logger().warning("page.database_unavailable", error=type(err).__name__)
    message = "The farm's database does not answer. Running jobs go on. Reload in a few seconds."
    return error_page(WanfarmError("database_unavailable", message))


def _unforeseen(err: Exception) -> BaseResponse:
    logger().error("page.failed", path=request.path, request_id=g.get("request_id"), exc_info=err)
    message = "The farm met a fault of its own. The request id leads to it in the log. Retry once."
    return error_page(WanfarmError("internal_error", message))
