"""Webhooks over HTTP: endpoints, the secret that signs, the log of deliveries."""

from typing import Annotated, Final, Literal

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing.registry import Call, NoQuery, Route, endpoint, small_body
from api.plumbing.runtime import farm
from api.plumbing.schemas import (
    DeliveryList,
    DeliveryObject,
    SecretObject,
    WebhookDeleted,
    WebhookList,
    WebhookObject,
)
from api.plumbing.wire import json_response
from shared.jobs import webhooks
from shared.jobs.ledger import Values
from shared.jobs.outbox import FINAL_EVENTS
from shared.jobs.presenters import unix
from shared.vocabulary.addresses import url_fault
from shared.vocabulary.errors import RequestRejected, WanfarmError
from shared.vocabulary.ids import is_id

EventName = Literal[
    "video.in_progress", "video.completed", "video.failed", "video.cancelled", "batch.completed"
]
Url = Annotated[str, Field(max_length=2048)]
Events = Annotated[list[EventName], Field(min_length=1, max_length=8)]
Description = Annotated[str, Field(max_length=300)]


class WebhookRequest(BaseModel):
    """An address to be told of the tenant's videos."""

    model_config = ConfigDict(extra="forbid")

    url: Url = Field(description="An https address of the public internet.")
    events: Events = Field(
        default_factory=lambda: list[EventName](FINAL_EVENTS),  # pyright: ignore[reportArgumentType]
        description="What it is told of; the three ends of a video if left out.",
    )
    description: Description | None = Field(default=None, description="For people.")
    enabled: bool = Field(default=True, description="Whether it is told of anything.")


class WebhookChange(BaseModel):
    """What is to be different about a webhook; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    url: Url = Field(default_factory=str, description="As at its creation.")
    events: Events = Field(default_factory=list[EventName], description="As at its creation.")
    description: Description | None = Field(default=None, description="For people.")
    enabled: bool = Field(
        default_factory=bool, description="When it turns false, what waits for it is dead."
    )


class DeliveryQuery(BaseModel):
    """Which page of the log."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["pending", "delivered", "dead"] | None = Field(
        default=None, description="Only those that stand so."
    )
    after: str | None = Field(default=None, description="The last id of the page before.")
    limit: Annotated[int, Field(ge=1, le=100)] = Field(default=20, description="At most so many.")


@endpoint(
    Route(
        method="POST",
        path="/v1/webhooks",
        scope="submit",
        summary="Add a webhook.",
        query=NoQuery,
        body=WebhookRequest,
        returns=WebhookObject,
        errors=("invalid_value",),
    )
)
def create(call: Call[NoQuery]) -> Response:
    """Store an endpoint of the caller's tenant."""
    asked = small_body(WebhookRequest)
    _check(asked.url)
    made = webhooks.add(farm(), call.caller.tenant, asked.model_dump(), actor=call.actor)
    return json_response(_webhook(made))


@endpoint(
    Route(
        method="GET",
        path="/v1/webhooks",
        scope="submit",
        summary="List the webhooks.",
        query=NoQuery,
        returns=WebhookList,
    )
)
def list_webhooks(call: Call[NoQuery]) -> Response:
    """Show the endpoints, newest first."""
    found = webhooks.endpoints(farm(), call.tenant)
    return json_response(WebhookList(data=[_webhook(row) for row in found]))


@endpoint(
    Route(
        method="GET",
        path="/v1/webhooks/{webhook_id}",
        scope="submit",
        summary="Look at a webhook.",
        query=NoQuery,
        returns=WebhookObject,
        errors=("webhook_not_found",),
    )
)
def retrieve(call: Call[NoQuery]) -> Response:
    """Show one endpoint."""
    return json_response(_webhook(_find(call)))


@endpoint(
    Route(
        method="PATCH",
        path="/v1/webhooks/{webhook_id}",
        scope="submit",
        summary="Change a webhook.",
        query=NoQuery,
        body=WebhookChange,
        returns=WebhookObject,
        errors=("webhook_not_found", "invalid_value"),
    )
)
def change(call: Call[NoQuery]) -> Response:
    """Change what the body names."""
    row = _find(call)
    asked = small_body(WebhookChange)
    if "url" in asked.model_fields_set:
        _check(asked.url)
    webhooks.change(farm(), row["id"], asked.model_dump(exclude_unset=True), actor=call.actor)
    return json_response(_webhook(_find(call)))


@endpoint(
    Route(
        method="DELETE",
        path="/v1/webhooks/{webhook_id}",
        scope="submit",
        summary="Remove a webhook and its part of the log.",
        query=NoQuery,
        returns=WebhookDeleted,
        errors=("webhook_not_found",),
    )
)
def delete(call: Call[NoQuery]) -> Response:
    """Forget an endpoint; what waits for it is not sent."""
    row = _find(call)
    webhooks.remove(farm(), row["id"], actor=call.actor)
    return json_response(WebhookDeleted(id=row["id"]))


@endpoint(
    Route(
        method="POST",
        path="/v1/webhooks/{webhook_id}/test",
        scope="submit",
        summary="Send a webhook a `webhook.test` event, now.",
        query=NoQuery,
        returns=DeliveryObject,
        errors=("webhook_not_found",),
    )
)
def test(call: Call[NoQuery]) -> Response:
    """Put a test into the outbox; the log tells what came of it."""
    return json_response(_delivery(webhooks.test(farm(), _find(call))))


@endpoint(
    Route(
        method="GET",
        path="/v1/webhooks/secret",
        scope="submit",
        summary="Look at the secret that signs the tenant's webhooks.",
        query=NoQuery,
        returns=SecretObject,
    )
)
def secret(call: Call[NoQuery]) -> Response:
    """Show the secret; it is made when it is first needed."""
    return json_response(_secret(webhooks.secrets_of(farm(), call.caller.tenant)))


@endpoint(
    Route(
        method="POST",
        path="/v1/webhooks/secret/rotate",
        scope="submit",
        summary="Make a new secret; the one before it signs too for 24 hours.",
        query=NoQuery,
        returns=SecretObject,
    )
)
def rotate(call: Call[NoQuery]) -> Response:
    """Replace the secret."""
    return json_response(_secret(webhooks.rotate(farm(), call.caller.tenant, actor=call.actor)))


@endpoint(
    Route(
        method="GET",
        path="/v1/webhooks/deliveries",
        scope="submit",
        summary="List deliveries, newest first.",
        query=DeliveryQuery,
        returns=DeliveryList,
        errors=("invalid_cursor",),
    )
)
def deliveries(call: Call[DeliveryQuery]) -> Response:
    """Page through the log of 30 days."""
    query = call.query
    if query.after is not None and not is_id(query.after, "evt"):
        raise WanfarmError(
            "invalid_cursor",
            f"after is '{query.after[:40]}'. It must be the last id of a page. Start without it.",
            param="after",
        )
    log = webhooks.deliveries(
        farm(), call.tenant, state=query.state, after=query.after, limit=query.limit
    )
    data = [_delivery(row) for row in log.rows]
    last = data[-1].id if data else None
    return json_response(DeliveryList(data=data, last_id=last, has_more=log.has_more))


@endpoint(
    Route(
        method="POST",
        path="/v1/webhooks/deliveries/{event_id}/redeliver",
        scope="submit",
        summary="Send a delivery once more, now.",
        query=NoQuery,
        returns=DeliveryObject,
        errors=("webhook_not_found",),
    )
)
def redeliver(call: Call[NoQuery]) -> Response:
    """Make a delivery due, with the same id and body."""
    event_id = call.path["event_id"]
    sent = webhooks.redeliver(farm(), event_id, call.tenant, actor=call.actor)
    return json_response(_delivery(sent))


def _find(call: Call[NoQuery]) -> Values:
    return webhooks.endpoint(farm(), call.path["webhook_id"], call.tenant)


def _check(url: str) -> None:
    private = farm().settings.webhook_allow_private
    if fault := url_fault("url", url, allow_private=private):
        raise RequestRejected([fault])


def _webhook(row: Values) -> WebhookObject:
    return WebhookObject.model_validate(row | {"created_at": unix(row["created_at"])})


def _secret(found: webhooks.Secrets) -> SecretObject:
    until = unix(found.former_until)
    return SecretObject(secret=found.current, former=found.former, former_until=until)


def _delivery(row: Values) -> DeliveryObject:
    over = "delivered" if row["delivered_at"] else "dead" if row["dead_at"] else None
    same = ("id", "type", "tenant", "url", "video_id", "batch_id")
    of_the_try = ("status_code", "latency_ms", "response_head", "problem")
    return DeliveryObject.model_validate(
        {name: row[name] for name in same + of_the_try}
        | {
            "webhook_id": row["endpoint_id"],
            "created_at": unix(row["at"]),
            "state": over or "pending",
            "try": row["tries"],
            "at": unix(row["tried_at"]),
            "next_try_at": None if over else unix(row["next_at"]),
        }
    )


ENDPOINTS: Final = (
    create, list_webhooks, secret, rotate, deliveries, redeliver, retrieve, change, delete, test,
)  # fmt: skip
