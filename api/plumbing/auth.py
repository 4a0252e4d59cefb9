"""Who sends a request: an API key, a dashboard session, or nobody; and may they?"""

import hashlib
import hmac
import secrets
from typing import Any, Final

from flask import Request, Response, g
from flask import request as current_request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from api.plumbing.runtime import farm
from shared.jobs import keys
from shared.jobs.audit import Actor
from shared.jobs.keys import Caller, Scope
from shared.vocabulary.errors import WanfarmError

COOKIE: Final = "wanfarm_session"
SESSION_S: Final = 12 * 3600
CSRF_FIELD: Final = "csrf_token"
_CSRF_HEADER: Final = "X-CSRF-Token"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL: Final = Caller(key_id="local", key_name="local", tenant="default", scope="admin")


def current_caller(request: Request) -> Caller:
    """Find out who sends a request, once: its Bearer key beats its cookie.

    Raises:
        WanfarmError: `missing_key`, or `invalid_key`.
    """
    known: Caller | None = g.get("caller")
    if known is None:
        known = g.caller = _find_caller(request)
    return known


def require(request: Request, scope: Scope) -> Caller:
    """Let a request pass whose caller has the scope and, with a cookie, really meant it.

    Raises:
        WanfarmError: `missing_key`, `invalid_key`, `scope_missing` or `csrf_failed`.
    """
    caller = current_caller(request)
    if not caller.may(scope):
        raise WanfarmError(
            "scope_missing",
            f"Key '{caller.key_name}' has the scope '{caller.scope}'. This needs '{scope}'. "
            "Use another key.",
        )
    if request.method not in _SAFE:
        check_csrf(request)
    return caller


def acting(caller: Caller) -> Actor:
    """Name a caller, in the current request, to the audit log."""
    return Actor(caller.tenant, caller.key_id, caller.key_name, g.request_id)


def open_session(response: Response, caller: Caller) -> None:
    """Log a browser in: a signed cookie that names the key, not the secret."""
    content = {"key": caller.key_id, "nonce": secrets.token_urlsafe(12)}
    response.set_cookie(
        COOKIE,
        _signer().dumps(content),
        max_age=SESSION_S,
        httponly=True,
        samesite="Lax",
        secure=_is_secure(current_request),
        path="/",
    )


def close_session(response: Response) -> None:
    """Log a browser out."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="Lax")


def csrf_token() -> str:
    """Make the token that forms of the current session carry; empty without a session."""
    session = _session(current_request)
    if session is None:
        return _token("local") if farm().settings.auth == "none" else ""
    return _token(session["nonce"])


def check_csrf(request: Request) -> None:
    """Refuse a change that a foreign page made a browser ask for.

    Bearer callers cannot be tricked so. Cookie callers need the token of their session. Without
    auth there is no cookie to ride on; a foreign Origin is refused all the same.

    Raises:
        WanfarmError: `csrf_failed`.
    """
    if _bearer(request) is not None:
        return
    _refuse_foreign_origin(request)
    if farm().settings.auth == "none":
        return
    sent = request.headers.get(_CSRF_HEADER) or request.form.get(CSRF_FIELD, "")
    if not hmac.compare_digest(sent.encode(), csrf_token().encode()):
        raise _csrf_failed("The form's token is missing or of another session.")


def _find_caller(request: Request) -> Caller:
    key = _bearer(request)
    if key is not None:
        return keys.verify(farm(), key)
    if farm().settings.auth == "none":
        keys.ensure_tenant(farm(), LOCAL.tenant)
        return LOCAL
    session = _session(request)
    if session is not None:
        return keys.caller_of(farm(), session["key"])
    raise WanfarmError(
        "missing_key",
        "No API key was sent. This farm answers known callers only. "
        "Send the header 'Authorization: Bearer wf_...'.",
    )


def _bearer(request: Request) -> str | None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _session(request: Request) -> dict[str, str] | None:
    """Read the session's cookie; None when there is none that still counts."""
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        return None
    try:
        content: Any = _signer().loads(cookie, max_age=SESSION_S)
    except BadSignature:
        return None
    return content


def _refuse_foreign_origin(request: Request) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise _csrf_failed(f"The request comes from '{origin[:60]}'.")
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise _csrf_failed("The request comes from another site.")


def _csrf_failed(what: str) -> WanfarmError:
    return WanfarmError(
        "csrf_failed",
        f"{what} Changes by cookie are taken from this farm's own pages only. Reload the page.",
    )


def _is_secure(request: Request) -> bool:
    public = farm().settings.public_url or ""
    return request.is_secure or public.startswith("https://")


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        _secret(), salt="wanfarm.session", signer_kwargs={"digest_method": hashlib.sha256}
    )


def _token(nonce: str) -> str:
    return hmac.new(_secret().encode(), f"csrf:{nonce}".encode(), hashlib.sha256).hexdigest()


def _secret() -> str:
    return farm().settings.secret_key.get_secret_value()
