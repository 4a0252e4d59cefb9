"""The verbs of whoever runs the farm: queue, keys, openapi."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import click

from cli import render
from cli.client import Ask, Exit, FarmError, Json
from cli.session import Reach, Session, farm_options, farm_verb, for_each

_KEY_COLUMNS: Final = (
    "id",
    "name",
    "scope",
    "tenant",
    "created",
    "last used",
    "ends",
    "limits",
    "state",
)
_FARMS_OWN: Final = "default"
_LIMITS: Final = {
    "max_queued": "Videos that may wait, or `default`.",
    "submit_per_min": "Submits in a minute, or `default`.",
    "gpu_seconds_per_day": "GPU-seconds of a day in UTC, or `default`: no end.",
    "max_priority": "Highest priority, or `default`.",
}


class _Limit(click.ParamType[int | float | str]):
    """A number, or the word for the farm's own limit."""

    name = "number"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | str:
        """Read it; a whole number as one."""
        if value == _FARMS_OWN:
            return value
        try:
            return int(value) if value.lstrip("-").isdecimal() else float(value)
        except ValueError:
            self.fail(f"{value!r} is no number and not '{_FARMS_OWN}'.", param, ctx)


@click.group()
def queue() -> None:
    """Look at the queue, pause and resume it."""


@queue.command("pause")
@click.option("--intake", is_flag=True, help="Refuse new videos.")
@click.option("--dispatch", is_flag=True, help="Start none; this alone if nothing is said.")
@click.option("--reason", help="For people; senders of refused videos read it too.")
@farm_verb
def queue_pause(session: Session, *, intake: bool, dispatch: bool, reason: str | None) -> int:
    """Take no new videos, or start none; what runs goes on."""
    body: dict[str, object] = {"what": _doors(intake=intake, dispatch=dispatch), "reason": reason}
    return _queue_after(session, Ask("POST", "/v1/queue/pause", body))


@queue.command("resume")
@click.option("--intake", is_flag=True, help="Take new videos again.")
@click.option("--dispatch", is_flag=True, help="Start videos again.")
@farm_verb
def queue_resume(session: Session, *, intake: bool, dispatch: bool) -> int:
    """Let videos pass again: both ways if nothing is said."""
    what = _doors(intake=intake, dispatch=dispatch) if intake or dispatch else "both"
    return _queue_after(session, Ask("POST", "/v1/queue/resume", {"what": what}))


def _doors(*, intake: bool, dispatch: bool) -> str:
    if intake:
        return "both" if dispatch else "intake"
    return "dispatch"


def _queue_after(session: Session, ask: Ask) -> int:
    found = session.api.ask(ask)
    closed = [f"{one['what']} paused by {one['by']}" for one in found["paused"]]
    told = closed or ["nothing is paused"]
    session.screen.object(found, told, short="\n".join(told))
    return Exit.OK


@queue.command("status")
@farm_verb
def queue_status(session: Session) -> int:
    """Count what waits and runs."""
    found = session.api.get("/v1/queue")
    facts: dict[str, object] = dict(found["counts"])
    facts["oldest waits"] = _since(found["oldest_queued_at"])
    facts["empty in about"] = _until(found["drains_at"])
    facts["run p50"] = render.seconds_text(found["run_p50_s"])
    facts["run p95"] = render.seconds_text(found["run_p95_s"])
    facts |= {f"limit {name}": value for name, value in found["limits"].items()}
    facts |= {f"{one['what']} paused": one["reason"] or "yes" for one in found["paused"]}
    lines = [f"{name.replace('_', ' '):<14} {value}" for name, value in facts.items()]
    session.screen.object(found, lines, short=str(found["counts"]["queued"]))
    return Exit.OK


def _since(moment: int | None) -> str:
    return render.seconds_text(None if moment is None else max(0.0, time.time() - moment))


def _until(moment: int | None) -> str:
    return render.seconds_text(None if moment is None else max(0.0, moment - time.time()))


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


def _limit_options(verb: Callable[..., int]) -> Callable[..., int]:
    """Add an option for each limit of a key; what is not given is not sent."""
    for name, text in reversed(_LIMITS.items()):
        verb = click.option(f"--{name.replace('_', '-')}", name, type=_Limit(), help=text)(verb)
    return verb


def _given(limits: Json) -> Json:
    """The limits to send."""
    said = {name: value for name, value in limits.items() if value is not None}
    return {name: None if value == _FARMS_OWN else value for name, value in said.items()}


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "submit", "admin"]),
    default="submit",
    show_default=True,
    help="Each includes those before it.",
)
@click.option("--tenant", help="Who owns its videos.")
@click.option("--expires-in", type=int, metavar="SECONDS", help="Until it stops working.")
@click.option("--weight", type=float, help="Its tenant's part of the GPU time; 1 at first.")
@_limit_options
@farm_verb
def keys_create(
    session: Session,
    name: str,
    *,
    scope: str,
    tenant: str | None,
    expires_in: int | None,
    weight: float | None,
    **limits: object,
) -> int:
    """Make a key and print it; it is shown this once."""
    asked: dict[str, object] = {"name": name, "scope": scope, "tenant": tenant, "weight": weight}
    asked |= {"expires_in_s": expires_in, "limits": _given(limits) or None}
    body = {field: value for field, value in asked.items() if value is not None}
    # not sent twice: an answer that is lost would leave a key that nobody knows
    made = session.api.ask(Ask("POST", "/v1/keys", body, repeatable=False))
    session.screen.object(made, [made["key"]], short=made["key"])
    session.screen.note(f"Key {made['id']} ({made['scope']}). Keep it: it is not shown again.")
    return Exit.OK


@keys.command("ls")
@farm_verb
def keys_ls(session: Session) -> int:
    """List the keys, without their secrets."""
    session.screen.rows(session.api.get("/v1/keys")["data"], _KEY_COLUMNS, _key_cells)
    return Exit.OK


@keys.command("limit")
@click.argument("key_id")
@_limit_options
@farm_verb
def keys_limit(session: Session, key_id: str, **limits: object) -> int:
    """Set limits of a key; those not named stay."""
    body = {"limits": _given(limits)}
    changed = session.api.ask(Ask("PATCH", f"/v1/keys/{key_id}", body))
    session.screen.object(changed, [f"{key_id}  {_limits_text(changed)}"], short=key_id)
    return Exit.OK


@keys.command("revoke")
@click.argument("key_ids", metavar="KEY_ID...", nargs=-1, required=True)
@farm_verb
def keys_revoke(session: Session, key_ids: tuple[str, ...]) -> int:
    """End the life of keys."""

    def revoke(key_id: str) -> int:
        gone = session.api.ask(Ask("DELETE", f"/v1/keys/{key_id}"))
        session.screen.object(gone, [f"{gone['id']}  revoked"], short=gone["id"])
        return Exit.OK

    return for_each(key_ids, revoke)


@click.command()
@click.option("--offline", is_flag=True, help="That of this installation; asks no farm.")
@farm_options
def openapi(reach: Reach, *, offline: bool) -> int:
    """Print the OpenAPI document."""
    if offline:
        return _write_offline()
    with reach.session() as session:
        document = session.api.get("/openapi.json")
    click.echo(json.dumps(document, ensure_ascii=False, indent=1))
    return Exit.OK


def _write_offline() -> int:
    # in a process of its own: the command line and the API share no import
    code = "import sys; from api.app import openapi_text; sys.stdout.write(openapi_text())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise FarmError(
            Exit.ERROR,
            f"The API cannot be imported: {ran.stderr.strip().splitlines()[-1]}. "
            "Install wanfarm with the extra [api], or ask a running farm.",
        )
    click.echo(ran.stdout, nl=False)
    return Exit.OK


def _key_cells(key: Json) -> tuple[object, ...]:
    return (
        key["id"],
        key["name"],
        key["scope"],
        key["tenant"],
        render.moment_text(key["created_at"]),
        render.moment_text(key["last_used_at"]),
        render.moment_text(key["expires_at"]),
        _limits_text(key),
        "revoked" if key["revoked_at"] else "",
    )


def _limits_text(key: Json) -> str:
    """Say what limits a key has of its own."""
    own = {name: value for name, value in key["limits"].items() if value is not None}
    return " ".join(f"{name}={value:g}" for name, value in own.items())
