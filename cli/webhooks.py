"""The verbs of webhooks: who is told of the end of videos, and what came of it."""

from typing import Final

import click

from cli import render
from cli.client import Ask, Exit, Json
from cli.session import Session, farm_verb, for_each

_COLUMNS: Final = ("id", "url", "events", "state", "description")
_LOG_COLUMNS: Final = (
    "id", "event", "of", "to", "state", "try", "status", "next try", "problem",
)  # fmt: skip


@click.group()
def webhooks() -> None:
    """Look after the addresses that are told of the end of videos."""


@webhooks.command("ls")
@farm_verb
def webhooks_ls(session: Session) -> int:
    """List the webhooks."""
    session.screen.rows(session.api.get("/v1/webhooks")["data"], _COLUMNS, _cells)
    return Exit.OK


@webhooks.command("add")
@click.argument("address", metavar="URL")
@click.option("--event", "events", multiple=True, help="Such as video.failed; else every end.")
@click.option("--description", help="For people.")
@farm_verb
def webhooks_add(
    session: Session, address: str, *, events: tuple[str, ...], description: str | None
) -> int:
    """Have an https address told of the end of this key's tenant's videos."""
    body: Json = {"url": address, "description": description}
    if events:
        body["events"] = list(events)
    made = session.api.ask(Ask("POST", "/v1/webhooks", body, repeatable=False))
    session.screen.object(made, [f"{made['id']}  {made['url']}"], short=made["id"])
    session.screen.note("The receiver checks signatures with: wanfarm webhooks secret")
    return Exit.OK


@webhooks.command("rm")
@click.argument("webhook_ids", metavar="WEBHOOK_ID...", nargs=-1, required=True)
@farm_verb
def webhooks_rm(session: Session, webhook_ids: tuple[str, ...]) -> int:
    """Remove webhooks; what waits for them is not sent."""

    def remove(webhook_id: str) -> int:
        gone = session.api.ask(Ask("DELETE", f"/v1/webhooks/{webhook_id}"))
        session.screen.object(gone, [f"{gone['id']}  removed"], short=gone["id"])
        return Exit.OK

    return for_each(webhook_ids, remove)


@webhooks.command("test")
@click.argument("webhook_id")
@farm_verb
def webhooks_test(session: Session, webhook_id: str) -> int:
    """Send a webhook an event of no video, now."""
    sent = session.api.ask(Ask("POST", f"/v1/webhooks/{webhook_id}/test", {}, repeatable=False))
    session.screen.object(sent, [f"{sent['id']}  {sent['type']}"], short=sent["id"])
    session.screen.note("What came of it: wanfarm webhooks deliveries")
    return Exit.OK


@webhooks.command("deliveries")
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, help="At most so many.")
@click.option("--redeliver", metavar="EVENT_ID", help="Send this one once more, now.")
@farm_verb
def webhooks_deliveries(
    session: Session, *, state: str | None, limit: int, redeliver: str | None
) -> int:
    """List what was sent in the last 30 days, newest first."""
    if redeliver:
        path = f"/v1/webhooks/deliveries/{redeliver}/redeliver"
        found = [session.api.ask(Ask("POST", path, {}))]
    else:
        query: dict[str, str | int] = {"limit": limit} | ({"state": state} if state else {})
        found = session.api.ask(Ask("GET", "/v1/webhooks/deliveries", params=query))["data"]
    session.screen.rows(found, _LOG_COLUMNS, _log_cells)
    return Exit.OK


@webhooks.command("secret")
@click.option("--rotate", is_flag=True, help="Make a new one; the former signs too for a day.")
@farm_verb
def webhooks_secret(session: Session, *, rotate: bool) -> int:
    """Print the secret that signs the webhooks of this key's tenant."""
    path = "/v1/webhooks/secret"
    ask = Ask("POST", f"{path}/rotate", {}, repeatable=False) if rotate else Ask("GET", path)
    found = session.api.ask(ask)
    session.screen.object(found, [found["secret"]], short=found["secret"])
    return Exit.OK


def _cells(one: Json) -> tuple[object, ...]:
    events = ",".join(name.removeprefix("video.") for name in one["events"])
    state = "on" if one["enabled"] else "off"
    return one["id"], one["url"], events, state, one["description"] or ""


def _log_cells(one: Json) -> tuple[object, ...]:
    return (
        one["id"],
        one["type"],
        one["video_id"] or one["batch_id"] or "",
        one["url"],
        one["state"],
        one["try"],
        one["status_code"] or "",
        render.moment_text(one["next_try_at"]),
        one["problem"] or "",
    )
