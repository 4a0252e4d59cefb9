"""The door: a key or a one-time link opens a session and leads back."""

from flask import Blueprint, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from api.dashboard.shell import local_path
from api.plumbing.auth import check_csrf, close_session, current_caller, open_session
from api.plumbing.runtime import farm
from shared.jobs import keys
from shared.jobs.keys import Caller
from shared.vocabulary.errors import WanfarmError

_SPENT = (
    "This link no longer works. A login link works once, for five minutes. "
    "Run 'wanfarm login-url' for another one, or log in with a key."
)


def register(pages: Blueprint) -> None:
    """Serve login and logout."""
    pages.add_url_rule("/login", view_func=show, methods=["GET"])
    pages.add_url_rule("/login", view_func=enter, methods=["POST"])
    pages.add_url_rule("/logout", view_func=leave, methods=["POST"])


def show() -> str | Response:
    """Ask for a key, or for the one click that spends a link's token."""
    goal = local_path(request.args.get("next"))
    token = request.args.get("t")
    if token is None and _is_known():
        return redirect(goal, 303)
    return render_template("login.html", next=goal, token=token, problem=None)


def enter() -> Response:
    """Open a session; only this POST spends a token, so no preview of the link does."""
    check_csrf(request)
    goal = local_path(request.form.get("next"))
    token = request.form.get("token")
    caller = _by_token(token) if token else _by_key(request.form.get("key", ""))
    if caller is None:
        problem = _SPENT if token else keys.invalid_key().message
        page = render_template("login.html", next=goal, token=None, problem=problem)
        return make_response(page, 401)
    answer = redirect(goal, 303)
    open_session(answer, caller)  # pyright: ignore[reportArgumentType] - flask's own subclass
    return answer


def leave() -> Response:
    """Close the session."""
    check_csrf(request)
    answer = redirect("/login", 303)
    close_session(answer)  # pyright: ignore[reportArgumentType] - flask's own subclass
    return answer


def _by_token(token: str) -> Caller | None:
    try:
        return keys.spend_login_token(farm(), token)
    except WanfarmError:  # the key behind it has been revoked
        return None


def _by_key(key: str) -> Caller | None:
    try:
        return keys.verify(farm(), key.strip())
    except WanfarmError:
        return None


def _is_known() -> bool:
    try:
        current_caller(request)
    except WanfarmError:
        return False
    return True
