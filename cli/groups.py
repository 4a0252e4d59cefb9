"""The verbs of GPU groups: look at them, drain and resume them."""

import time
from typing import Final

import click

from cli import render
from cli.client import Ask, Exit, FarmError, Json, pause
from cli.session import Session, farm_verb
from shared.vocabulary.states import GroupState

_COLUMNS: Final = ("name", "state", "ranks", "device", "models", "video", "beat", "problem")
_LOOK_S: Final = 1.0
_AT_REST: Final = frozenset({GroupState.DRAINED, GroupState.DOWN})


@click.group()
def groups() -> None:
    """Look at the GPU groups, drain and resume them."""


@groups.command("ls")
@farm_verb
def groups_ls(session: Session) -> int:
    """List the groups of the last day."""
    found = session.api.get("/v1/groups")["data"]
    session.screen.rows(found, _COLUMNS, _cells)
    if not found:
        session.screen.note("No group has been here. Start one: wanfarm worker run")
    return Exit.OK


@groups.command("show")
@click.argument("name")
@farm_verb
def groups_show(session: Session, name: str) -> int:
    """Show a group: what it does, its GPUs, what it runs on."""
    group = session.api.get(f"/v1/groups/{name}")
    session.screen.object(group, render.group_lines(group), short=group["state"])
    return Exit.OK


@groups.command("drain")
@click.argument("name")
@click.option("--requeue", is_flag=True, help="Put its video back too, at the next step.")
@click.option("--reason", help="For people.")
@click.option("--wait", is_flag=True, help="Stay until it has no video.")
@click.option("--timeout", type=float, help="Seconds to stay at most.")
@farm_verb
def groups_drain(
    session: Session,
    name: str,
    *,
    requeue: bool,
    reason: str | None,
    wait: bool,
    timeout: float | None,
) -> int:
    """Have a group take no other video, also after a restart, until it is resumed."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is how long to stay. Give --wait too.")
    body: Json = {"mode": "requeue" if requeue else "finish", "reason": reason}
    group = session.api.ask(Ask("POST", f"/v1/groups/{name}/drain", body))
    return _tell(session, _rested(session, group, timeout) if wait else group)


@groups.command("resume")
@click.argument("name")
@farm_verb
def groups_resume(session: Session, name: str) -> int:
    """Let a group take videos again."""
    return _tell(session, session.api.ask(Ask("POST", f"/v1/groups/{name}/resume", {})))


def _rested(session: Session, group: Json, within_s: float | None) -> Json:
    """Wait until a group that drains has come to rest.

    Raises:
        FarmError: when the time is up, or somebody resumed it meanwhile.
    """
    deadline = None if within_s is None else time.monotonic() + within_s
    name = group["name"]
    while group["state"] not in _AT_REST:
        if group["drain"] is None:
            raise FarmError(Exit.ERROR, f"{name} was resumed. It takes videos again.")
        if deadline is not None and time.monotonic() >= deadline:
            raise FarmError(Exit.TIMED_OUT, f"The time is up. {name} goes on draining.")
        session.screen.progress(f"{name} {_now(group)}", kind=group["state"])
        pause(_LOOK_S)
        group = session.api.get(f"/v1/groups/{name}")
    session.screen.end_progress()
    return group


def _now(group: Json) -> str:
    busy = f" with {group['video_id']}" if group["video_id"] else ""
    return f"{render.group_text(group['state'])}{busy}"


def _tell(session: Session, group: Json) -> int:
    told = f"{group['name']}  {group['state']}, {'drains' if group['drain'] else 'takes videos'}"
    session.screen.object(group, [told], short=group["name"])
    return Exit.OK


def _cells(group: Json) -> tuple[object, ...]:
    return (
        group["name"],
        render.group_text(group["state"]),
        group["ranks"],
        group["device"],
        ",".join(group["models"]),
        group["video_id"] or "",
        render.age_text(group["last_heartbeat_at"]),
        group["problem"] or "",
    )
