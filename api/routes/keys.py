"""API keys over HTTP: made, listed, revoked by admins; everybody may look at their own."""

from typing import Final

from flask import Response

from api.plumbing import deeds
from api.plumbing.deeds import KeyChange, KeyRequest
from api.plumbing.registry import Call, NoQuery, Route, endpoint, small_body
from api.plumbing.runtime import farm
from api.plumbing.schemas import KeyCreated, KeyList, KeyObject
from api.plumbing.wire import json_response
from shared.jobs import keys
from shared.jobs.ledger import Values
from shared.jobs.presenters import unix
from shared.vocabulary.limits import KeyLimits


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
    made, key = deeds.make_key(call.caller, small_body(KeyRequest))
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
            limits=caller.limits,
            gpu_seconds_today=0,
            **unstored,
        )
    )


@endpoint(
    Route(
        method="PATCH",
        path="/v1/keys/{key_id}",
        scope="admin",
        summary="Change the name, end or limits of an API key.",
        query=NoQuery,
        body=KeyChange,
        returns=KeyObject,
        errors=("key_not_found",),
    )
)
def change(call: Call[NoQuery]) -> Response:
    """Change a key, in every process within two seconds."""
    changed = deeds.change_key(call.caller, call.path["key_id"], small_body(KeyChange))
    return json_response(_key(changed))


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
    return json_response(_key(deeds.revoke_key(call.caller, call.path["key_id"])))


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
        limits=KeyLimits(**row["limits"]),
        gpu_seconds_today=round(row["used_s"], 3),
    )


ENDPOINTS: Final = (create, list_keys, own_key, change, revoke)
