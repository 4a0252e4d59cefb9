"""Tenants and API keys: made, verified, revoked; one-time logins for the dashboard."""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, bindparam, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from shared.jobs import audit
from shared.jobs.audit import Actor, Deed
from shared.jobs.charges import USED_TODAY
from shared.jobs.ledger import Values, in_seconds
from shared.machinery.farm import Farm
from shared.machinery.tables import ApiKey, LoginToken, Tenant
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.limits import OWN, KeyLimits

Scope = Literal["read", "submit", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "submit", "admin")  # each includes those before it
LOGIN_S: Final = 300
_TRUSTED_S: Final = 2.0  # a key is read no oftener; so long another process takes a revoked one
_ID_ALPHABET: Final = "abcdefghjkmnpqrstvwxyz0123456789"
ID_PATTERN: Final = f"^[{_ID_ALPHABET}]{{8}}$"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request."""

    key_id: str
    key_name: str
    tenant: str
    scope: Scope
    limits: KeyLimits = OWN

    @property
    def max_priority(self) -> int:
        """The highest priority that it may ask for."""
        own = self.limits.max_priority
        return own if own is not None else 10 if self.may("admin") else 0

    def may(self, scope: Scope) -> bool:
        """Tell whether the key's scope includes another."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


def new_key_id() -> str:
    """Draw the id of a key."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(8))


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made; a form draws its id before, so that sent twice it makes one key."""

    name: str
    scope: Scope
    tenant: str = "default"
    expires_in_s: float | None = None  # None: never
    limits: KeyLimits = OWN
    id: str = field(default_factory=new_key_id)


def create(
    farm: Farm,
    name: str,
    scope: Scope,
    *,
    tenant: str = "default",
    expires_in_s: float | None = None,
) -> tuple[str, str]:
    """Make a key that nobody asked for; returns its id and the whole key."""
    new = NewKey(name, scope, tenant, expires_in_s)
    return new.id, make(farm, new)


def make(farm: Farm, new: NewKey, actor: Actor | None = None) -> str:
    """Make a key; returns all of it, which is shown this once.

    Raises:
        WanfarmError: `idempotency_key_reused`, when there is a key with this id.
    """
    secret = secrets.token_urlsafe(32)
    ensure_tenant(farm, new.tenant)
    limits = new.limits.model_dump(exclude_none=True)
    row = {
        "id": new.id,
        "tenant": new.tenant,
        "name": new.name,
        "scope": new.scope,
        "secret_sha256": _sha256(secret),
        "expires_at": in_seconds(new.expires_in_s) if new.expires_in_s else None,
        "limits": limits,
    }
    made = insert(ApiKey).values(row).on_conflict_do_nothing().returning(ApiKey.id)
    said: Values = {"name": new.name, "scope": new.scope, "tenant": new.tenant} | limits
    said |= {"expires_in_s": new.expires_in_s} if new.expires_in_s else {}
    if not audit.carry_out(farm, made, Deed("key.create", new.id, said), actor):
        raise WanfarmError(
            "idempotency_key_reused",
            f"The key '{new.id}' has been made already. Its secret is not shown again. "
            "If it was lost, revoke this key and make another.",
        )
    return f"wf_{new.id}_{secret}"


def ensure_tenant(farm: Farm, tenant: str) -> None:
    """Make a tenant unless there is one of this name."""
    with farm.db.connect() as db:
        db.execute(insert(Tenant).values(name=tenant).on_conflict_do_nothing())


def weigh(farm: Farm, tenant: str, weight: float) -> None:
    """Set a tenant's part of the GPU time when tenants compete; 1 at first."""
    with farm.db.connect() as db:
        db.execute(update(Tenant).where(Tenant.name == tenant).values(weight=weight))


def verify(farm: Farm, key: str) -> Caller:
    """Find out who holds a key.

    Raises:
        WanfarmError: `invalid_key`; unknown, revoked and expired are not told apart.
    """
    prefix, _, rest = key.partition("_")
    key_id, _, secret = rest.partition("_")
    looks_right = prefix == "wf" and re.fullmatch(ID_PATTERN, key_id)
    row = _living(farm, key_id) if looks_right else None
    if row is None or not hmac.compare_digest(row.secret_sha256, _sha256(secret)):
        raise invalid_key()
    if row.unnoticed:
        _touch(farm, key_id)
        farm.keys.pop(key_id, None)
    return _caller(row)


def caller_of(farm: Farm, key_id: str) -> Caller:
    """Find a key by its id, for a session that was opened with it.

    Raises:
        WanfarmError: `invalid_key` when it no longer lives.
    """
    row = _living(farm, key_id)
    if row is None:
        raise invalid_key()
    return _caller(row)


def all_keys(farm: Farm, tenant: str | None = None) -> list[Values]:
    """List keys, newest first, without secrets."""
    hidden = {"secret_sha256", "used_day", "used_s"}
    columns = [column for column in ApiKey.__table__.c if column.name not in hidden]
    statement = select(*columns, USED_TODAY.label("used_s")).order_by(
        ApiKey.created_at.desc(), ApiKey.id
    )
    if tenant is not None:
        statement = statement.where(ApiKey.tenant == tenant)
    with farm.db.connect() as db:
        return [dict(row) for row in db.execute(statement).mappings()]


def change(farm: Farm, key_id: str, values: Values, *, actor: Actor | None = None) -> bool:
    """Change the name, limits or end of a key that lives; returns whether there is such a key.

    Args:
        farm: the handles.
        key_id: whose.
        values: what was sent of `name`; `expires_in_s` from now, or None for never; `limits`, of
            which those that are None go back to the farm's own.
        actor: who asked.
    """
    row: Values = {"name": values.get("name") or ApiKey.name}
    if "expires_in_s" in values:
        wait = values["expires_in_s"]
        row["expires_at"] = in_seconds(wait) if wait else None
    if "limits" in values:
        kept = ApiKey.limits.op("||")(literal(values["limits"], JSONB))
        row["limits"] = func.jsonb_strip_nulls(kept)
    statement = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(row)
    deed = Deed("key.change", key_id, values)
    known = audit.carry_out(farm, statement.returning(ApiKey.id), deed, actor)
    farm.keys.pop(key_id, None)
    return bool(known)


def used_today(db: Connection, key_id: str) -> float:
    """Count the GPU-seconds that a key's videos have taken since midnight in UTC."""
    return db.scalar(select(USED_TODAY).where(ApiKey.id == key_id)) or 0.0


def revoke(farm: Farm, key_id: str, *, actor: Actor | None = None) -> bool:
    """End a key's life; returns whether there is such a key. Once more is fine."""
    ended = func.coalesce(ApiKey.revoked_at, func.now())
    statement = update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=ended)
    deed = Deed("key.revoke", key_id)
    known = audit.carry_out(farm, statement.returning(ApiKey.id), deed, actor)
    farm.keys.pop(key_id, None)
    return bool(known)


def ensure_admin_key(farm: Farm, path: Path) -> None:
    """Make the first admin key and write it to a 0600 file, unless the file's key still works."""
    if path.exists():
        try:
            verify(farm, path.read_text().strip())
        except WanfarmError:
            path.unlink()
        else:
            return
    _, key = create(farm, "first-admin", "admin")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(key + "\n")


def create_login_token(farm: Farm, key_id: str) -> str:
    """Make a token that logs a browser in once, within five minutes."""
    token = secrets.token_urlsafe(24)
    with farm.db.connect() as db:
        row = {"sha256": _sha256(token), "key_id": key_id, "expires_at": in_seconds(LOGIN_S)}
        db.execute(insert(LoginToken).values(row))
    return token


def spend_login_token(farm: Farm, token: str) -> Caller | None:
    """Use a token up; None when it is unknown, too old or used."""
    statement = (
        update(LoginToken)
        .where(
            LoginToken.sha256 == _sha256(token),
            LoginToken.used_at.is_(None),
            LoginToken.expires_at > func.now(),
        )
        .values(used_at=func.now())
        .returning(LoginToken.key_id)
    )
    with farm.db.connect() as db:
        key_id = db.scalar(statement)
    return caller_of(farm, key_id) if key_id else None


def invalid_key() -> WanfarmError:
    """The one answer to every key that does not work."""
    return WanfarmError(
        "invalid_key",
        "The API key is not valid. It may be mistyped, revoked or expired. "
        "Ask your administrator for a new one.",
    )


_UNNOTICED: Final = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < in_seconds(-60))
_LIVING: Final = select(
    ApiKey.id,
    ApiKey.name,
    ApiKey.tenant,
    ApiKey.scope,
    ApiKey.secret_sha256,
    ApiKey.limits,
    _UNNOTICED.label("unnoticed"),
).where(
    ApiKey.id == bindparam("key_id"),
    ApiKey.revoked_at.is_(None),
    or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
)


_Living = Row[str, str, str, str, str, dict[str, Any], bool]


def _caller(row: _Living) -> Caller:
    return Caller(row.id, row.name, row.tenant, row.scope, KeyLimits(**row.limits))


def _living(farm: Farm, key_id: str) -> _Living | None:
    until, row = farm.keys.get(key_id, (0.0, None))
    if time.monotonic() < until:
        return row
    with farm.db.connect() as db:
        row = db.execute(_LIVING, {"key_id": key_id}).first()
    if row is not None:
        farm.keys[key_id] = time.monotonic() + _TRUSTED_S, row
    return row


def _touch(farm: Farm, key_id: str) -> None:
    """Remember the use of a key, at most once a minute."""
    statement = update(ApiKey).where(ApiKey.id == key_id, _UNNOTICED)
    with farm.db.connect() as db:
        db.execute(statement.values(last_used_at=func.now()))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
