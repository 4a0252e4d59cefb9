"""API keys over HTTP: made, listed, revoked by admins; everybody may look at their own."""

from typing import Annotated, Final

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing.registry import Call, NoQuery, Route, endpoint, small_body
from api.plumbing.runtime import farm
from api.plumbing.schemas import KeyCreated, KeyList, KeyObject
from api.plumbing.wire import json_response
from shared.jobs import keys
from shared.jobs.keys import Scope
from shared.jobs.ledger import Values
from shared.jobs.presenters import unix
from shared.machinery.logs import logger
from shared.vocabulary.errors import WanfarmError

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
    weight: Annotated[float, Field(ge=0.01, le=100)] | None = Field(
        default=None,
        description="Its tenant's part of the GPU time when tenants compete; null leaves it.",
    )


@endpoint(
    Route(
        method="POST",
        path="/v1/keys",
        scope="admin",
        summary="Make an API key.",
        query=NoQuery,
        body=KeyRequest,
        returns=KeyCreated,
    )
)
def create(call: Call[NoQuery]) -> Response:
    """Make a key and show it this once."""
    asked = small_body(KeyRequest)
    key_id, key = keys.create(
        farm(), asked.name, asked.scope, tenant=asked.tenant, expires_in_s=asked.expires_in_s
    )
    if asked.weight is not None:
        keys.weigh(farm(), asked.tenant, asked.weight)
    logger().info("key.created", key=key_id, by=call.caller.key_id)
    made = next(row for row in keys.all_keys(farm()) if row["id"] == key_id)
    return json_response(KeyCreated(**_key(made).model_dump(), key=key))


@endpoint(
    Route(
        method="GET",
        path="/v1/keys",
        scope="admin",
        summary="List the API keys.",
        query=NoQuery,
        returns=KeyList,
    )
)
def list_keys(_call: Call[NoQuery]) -> Response:
    """Show all keys without their secrets."""
    return json_response(KeyList(data=[_key(row) for row in keys.all_keys(farm())]))


@endpoint(
    Route(
        method="GET",
        path="/v1/keys/self",
        scope="read",
        summary="Look at the key that asks.",
        query=NoQuery,
        returns=KeyObject,
    )
)
def own_key(call: Call[NoQuery]) -> Response:
    """Show the caller's own key."""
    caller = call.caller
    for row in keys.all_keys(farm(), caller.tenant):
        if row["id"] == caller.key_id:
            return json_response(_key(row))
    unstored = dict.fromkeys(("created_at", "last_used_at", "expires_at", "revoked_at"))
    return json_response(
        KeyObject(
            id=caller.key_id,
            name=caller.key_name,
            tenant=caller.tenant,
            scope=caller.scope,
            **unstored,
        )
    )


@endpoint(
    Route(
        method="DELETE",
        path="/v1/keys/{key_id}",
        scope="admin",
        summary="Revoke an API key.",
        query=NoQuery,
        returns=KeyObject,
        errors=("key_not_found",),
    )
)
def revoke(call: Call[NoQuery]) -> Response:
    """End a key's life, in every process within two seconds; its videos stay."""
    key_id = call.path["key_id"]
    if not keys.revoke(farm(), key_id):
        raise WanfarmError(
            "key_not_found", f"There is no key '{key_id[:20]}'. See /v1/keys for the ids."
        )
    logger().info("key.revoked", key=key_id, by=call.caller.key_id)
    gone = next(row for row in keys.all_keys(farm()) if row["id"] == key_id)
    return json_response(_key(gone))


def _key(row: Values) -> KeyObject:
    return KeyObject(
        id=row["id"],
        name=row["name"],
        tenant=row["tenant"],
        scope=row["scope"],
        created_at=unix(row["created_at"]),
        last_used_at=unix(row["last_used_at"]),
        expires_at=unix(row["expires_at"]),
        revoked_at=unix(row["revoked_at"]),
    )


ENDPOINTS: Final = (create, list_keys, own_key, revoke)
