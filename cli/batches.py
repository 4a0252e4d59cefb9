"""The verbs of batches: videos that differ in seed or settings, looked after as one."""

import time
import uuid
from pathlib import Path
from typing import Final

import click

from cli import following, render
from cli.client import Ask, Exit, Json
from cli.request import Wish
from cli.session import Session, farm_verb, for_each
from shared.vocabulary.states import VideoState

_COLUMNS: Final = ("id", "state", "videos", "created", "name")


def make(session: Session, body: Json, wish: Wish) -> int:
    """Ask for a batch; the key lets an answer that was lost be asked for again."""
    if wish.output == Path("-"):
        raise click.UsageError("stdout takes one video. With -n or --grid, -o names a folder.")
    key = wish.idempotency_key or str(uuid.uuid4())
    headers = {"Idempotency-Key": key}
    asked = Ask("POST", "/v1/batches", {"request": body} | wish.spread, headers=headers)
    made, screen = session.api.ask(asked), session.screen
    if not wish.stays:
        screen.object(made, [made["id"]], short=made["id"])
        screen.note(f"{_counts(made)}; look at them: wanfarm batch get {made['id']}")
        return Exit.OK
    if not screen.as_json:  # at once: a script that is stopped knows it
        screen.object(made, [made["id"]], short=made["id"])
    batch = _follow(session, made["id"], within_s=wish.timeout_s)
    if wish.output is not None:
        _save(session, batch, wish.output)
    if screen.as_json:
        screen.object(batch, (), short=batch["id"])
    screen.note(f"{batch['id']}  {_counts(batch)}")
    return max(following.EXIT_OF[item["status"]] for item in batch["items"])


def foresee(session: Session, body: Json, spread: Json) -> int:
    """Tell what a batch would come to: each of its videos, and their sums."""
    told = session.api.ask(Ask("POST", "/v1/batches/estimate", {"request": body} | spread))
    session.screen.object(told, render.batch_estimate_lines(told), short=str(told["total"]))
    return Exit.OK


def _follow(session: Session, batch_id: str, *, within_s: float | None) -> Json:
    """Show how many videos are where until all have ended, and give the batch as it is then."""
    deadline = None if within_s is None else time.monotonic() + within_s
    again = f"The batch goes on. See it again: wanfarm batch get {batch_id}"
    with following.interruptible(again):
        while True:
            batch = session.api.get(f"/v1/batches/{batch_id}")
            left = [one for one in batch["items"] if not VideoState(one["status"]).is_final]
            if not left:
                session.screen.end_progress()
                return batch
            session.screen.progress(_counts(batch), kind=_counts(batch))
            following.hold(session, left[0]["video_id"], deadline)


def _save(session: Session, batch: Json, folder: Path) -> None:
    """Save every completed video of a batch under its id."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in batch["items"]:
        if item["status"] == "completed":
            following.download(session, item["video_id"], folder / f"{item['video_id']}.mp4")


@click.group()
def batch() -> None:
    """Look after videos that were asked for together, by `submit -n` or `submit --grid`."""


@batch.command("get")
@click.argument("batch_ids", metavar="BATCH_ID...", nargs=-1, required=True)
@farm_verb
def batch_get(session: Session, batch_ids: tuple[str, ...]) -> int:
    """Show batches with their videos."""

    def show(batch_id: str) -> int:
        found = session.api.get(f"/v1/batches/{batch_id}")
        session.screen.object(found, _lines(found), short=found["id"])
        return Exit.OK

    return for_each(batch_ids, show)


@batch.command("ls")
@click.option("--after", help="Go on after this id.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, help="At most so many.")
@farm_verb
def batch_ls(session: Session, *, after: str | None, limit: int) -> int:
    """List batches, newest first."""
    params: dict[str, str | int] = {"limit": limit} | ({"after": after} if after else {})
    found = session.api.ask(Ask("GET", "/v1/batches", params=params))["data"]
    session.screen.rows(found, _COLUMNS, _cells)
    if not found:
        session.screen.note('There is none. Make one: wanfarm submit "a paper boat" -n 4')
    return Exit.OK


@batch.command("cancel")
@click.argument("batch_ids", metavar="BATCH_ID...", nargs=-1, required=True)
@click.option("--reason", help="Shown with the videos.")
@farm_verb
def batch_cancel(session: Session, batch_ids: tuple[str, ...], *, reason: str | None) -> int:
    """Stop every video of batches that is not over: a running one at its next step."""
    body: Json = {"reason": reason} if reason else {}

    def stop(batch_id: str) -> int:
        found = session.api.ask(Ask("POST", f"/v1/batches/{batch_id}/cancel", body))
        session.screen.object(found, [f"{found['id']}  {_counts(found)}"], short=found["id"])
        return Exit.OK

    return for_each(batch_ids, stop)


@batch.command("rm")
@click.argument("batch_ids", metavar="BATCH_ID...", nargs=-1, required=True)
@farm_verb
def batch_rm(session: Session, batch_ids: tuple[str, ...]) -> int:
    """Delete every video of batches with its files; running ones are cancelled first."""

    def remove(batch_id: str) -> int:
        gone = session.api.ask(Ask("DELETE", f"/v1/batches/{batch_id}"))
        session.screen.object(gone, [gone["id"]], short=gone["id"])
        return Exit.OK

    return for_each(batch_ids, remove)


@batch.command("sheet")
@click.argument("batch_id")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: the id; `-` is stdout."
)
@farm_verb
def batch_sheet(session: Session, batch_id: str, *, output: Path | None) -> int:
    """Save the posters of a batch on one sheet, a JPEG."""
    target = output or Path(f"{batch_id}.jpg")
    following.save(session, Ask("GET", f"/v1/batches/{batch_id}/sheet"), target)
    if target != Path("-"):
        facts: Json = {"id": batch_id, "path": str(target), "bytes": target.stat().st_size}
        session.screen.object(facts, [str(target)], short=batch_id)
    return Exit.OK


def _counts(one: Json) -> str:
    """Say how many videos are where."""
    told = ((VideoState(state).word, count) for state, count in one["counts"].items())
    return ", ".join(f"{count} {word}" for word, count in told if count)


def _lines(one: Json) -> list[str]:
    facts: dict[str, str | None] = {
        "id": one["id"],
        "name": one["name"],
        "state": render.state_text(one["status"]),
        "videos": _counts(one),
        "created": render.moment_text(one["created_at"]),
        "ended": render.moment_text(one["completed_at"]),
    }
    lines = [f"{name:<12} {text}" for name, text in facts.items() if text]
    return lines + [_item_text(item) for item in one["items"]]


def _item_text(item: Json) -> str:
    differs = " ".join(f"{name}={value}" for name, value in item["set"].items())
    return f"{item['video_id']}  {render.state_text(item['status'])}  {differs}".rstrip()


def _cells(one: Json) -> tuple[object, ...]:
    state = render.state_text(one["status"])
    made = render.age_text(one["created_at"])
    return one["id"], state, _counts(one), made, one["name"] or ""
