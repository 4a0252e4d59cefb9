"""What administrators ask for: read and done the same way, by the API or by a page."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.plumbing.auth import acting
from api.plumbing.runtime import farm
from shared.jobs import keys, pauses
from shared.jobs.keys import Caller, Scope
from shared.jobs.ledger import Values
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.limits import OWN, KeyLimits

_TENANT: Final = "^[a-z0-9][a-z0-9._-]{0,63}$"
_CENTURY_S: Final = 100 * 365 * 86_400


class KeyRequest(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)] = Field(description="For people.")
    scope: Scope = Field(default="submit", description="Each includes those before it.")
    tenant: Annotated[str, Field(pattern=_TENANT)] = Field(
        default="default", description="Who owns its videos."
    )
    expires_in_s: Annotated[int, Field(ge=1, le=_CENTURY_S)] | None = Field(
        default=None, description="Seconds until it stops working; null for never."
    )
    limits: KeyLimits = Field(default=OWN, description="Where they differ from the farm's.")
    weight: Annotated[float, Field(ge=0.01, le=100)] | None = Field(
        default=None,
        description="Its tenant's part of the GPU time when tenants compete; null leaves it.",
    )


class KeyChange(BaseModel):
    """What may change of a key; what is not sent stays."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="For people; null leaves it."
    )
    expires_in_s: Annotated[int, Field(ge=1, le=_CENTURY_S)] | None = Field(
        default=None, description="Seconds from now until it stops working; null for never."
    )
    limits: KeyLimits = Field(default=OWN, description="Those sent; null for the farm's own.")


class PauseRequest(BaseModel):
    """Which doors of the queue are meant."""

    model_config = ConfigDict(extra="forbid")

    what: Literal["dispatch", "intake", "both"] = Field(
        default="dispatch", description="`intake` refuses new videos, `dispatch` starts none."
    )
    reason: Annotated[str, Field(max_length=300)] | None = Field(
        default=None, description="For people; a refused video's sender reads it too."
    )

    @property
    def doors(self) -> tuple[pauses.Door, ...]:
        """The doors by name."""
        return pauses.DOORS if self.what == "both" else (self.what,)


def make_key(caller: Caller, asked: KeyRequest, key_id: str | None = None) -> tuple[Values, str]:
    """Make a key; gives its row, and the whole key, which is shown this once.

    Raises:
        WanfarmError: `idempotency_key_reused`, when `key_id` was used up before.
    """
    key_id = key_id or keys.new_key_id()
    about = (asked.name, asked.scope, asked.tenant, asked.expires_in_s, asked.limits)
    new = keys.NewKey(*about, id=key_id)
    key = keys.make(farm(), new, actor=acting(caller))
    if asked.weight is not None:
        keys.weigh(farm(), asked.tenant, asked.weight)
    return _row(key_id), key


def revoke_key(caller: Caller, key_id: str) -> Values:
    """End a key's life; gives its row.

    Raises:
        WanfarmError: `key_not_found`.
    """
    if not keys.revoke(farm(), key_id, actor=acting(caller)):
        raise _no_key(key_id)
    return _row(key_id)


def change_key(caller: Caller, key_id: str, asked: KeyChange) -> Values:
    """Change what a key may do; gives its row.

    Raises:
        WanfarmError: `key_not_found`, also of one that was revoked.
    """
    values = asked.model_dump(mode="json", exclude_unset=True)
    if not keys.change(farm(), key_id, values, actor=acting(caller)):
        raise _no_key(key_id)
    return _row(key_id)


def _no_key(key_id: str) -> WanfarmError:
    return WanfarmError(
        "key_not_found", f"There is no living key '{key_id[:20]}'. See /v1/keys for the ids."
    )


def pause(caller: Caller, asked: PauseRequest) -> None:
    """Close doors of the queue; what runs goes on."""
    by, actor = caller.key_name, acting(caller)
    pauses.close(farm(), asked.doors, by=by, reason=asked.reason, actor=actor)


def reopen(caller: Caller, asked: PauseRequest) -> None:
    """Open doors of the queue."""
    pauses.reopen(farm(), asked.doors, actor=acting(caller))


def _row(key_id: str) -> Values:
    return next(row for row in keys.all_keys(farm()) if row["id"] == key_id)
