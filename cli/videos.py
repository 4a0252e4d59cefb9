"""The verbs around one video: submit, watch, get, ls, cancel, download, rm, remix."""

import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import click

from cli import batches, following, records, render
from cli.client import Ask, Exit, Json
from cli.request import Wish, read_prompt, spread_options, video_options
from cli.session import Session, farm_verb, for_each

_PAGE: Final = 100  # the farm's largest
_ENDINGS: Final = {"video": ".mp4", "thumbnail": ".webp", "provenance": ".json"}
_COLUMNS: Final = ("id", "state", "model", "created", "prompt")


@click.command()
@click.argument("word", metavar="[PROMPT]", required=False)
@click.option("--dry-run", is_flag=True, help="Show what it would come to; nothing is stored.")
@farm_verb
@spread_options
@video_options
def submit(session: Session, word: str | None, wish: Wish) -> int:
    """Ask for a video of PROMPT: a text, `-` for stdin, or `@file`.

    With -n or --grid it is a batch, of up to 64 videos; -o is then a folder.
    """
    body = wish.body if word is None else wish.body | {"prompt": read_prompt(word)}
    if "prompt" not in body and "prompt" not in wish.spread.get("grid", {}):
        raise click.UsageError("There is no prompt. Give one, or a --spec that has it.")
    if wish.dry_run:
        return _foresee(session, body, wish)
    if wish.spread:
        return batches.make(session, body, wish)
    return _make(session, "/v1/videos", body, wish)


@click.command()
@click.argument("word", metavar="VIDEO_ID")
@click.option("--prompt", help="Another prompt: a text, `-` for stdin, or `@file`.")
@farm_verb
@video_options
def remix(session: Session, word: str | None, wish: Wish) -> int:
    """Make a video again with the changes given; without any, the same one."""
    body = dict(wish.body)
    if "prompt" in body:
        body["prompt"] = read_prompt(body["prompt"])
    return _make(session, f"/v1/videos/{word}/remix", body, wish)


@click.command()
@click.argument("word", metavar="VIDEO_ID")
@farm_verb
@video_options
def promote(session: Session, word: str | None, wish: Wish) -> int:
    """Make a draft again in full quality: the same seed, shape, image and adapters."""
    return _make(session, f"/v1/videos/{word}/promote", wish.body, wish)


@click.command()
@click.argument("video_id", required=False)
@click.option("--all", "everything", is_flag=True, help="The moves of all videos from now on.")
@click.option("--timeout", type=float, help="Seconds to stay at most.")
@farm_verb
def watch(
    session: Session, video_id: str | None, *, everything: bool, timeout: float | None
) -> int:
    """Follow a video until it ends; with --json: the video, its events, the video as it ended."""
    if (video_id is None) != everything:
        raise click.UsageError("Name one VIDEO_ID, or --all.")
    if video_id is None:
        return following.listen(session, within_s=timeout)
    screen = session.screen
    hear = screen.line if screen.as_json else None
    video = following.follow(session, video_id, within_s=timeout, hear=hear)
    screen.object(video, [render.ended_text(video)], short=video["id"])
    _explain(session, video)
    return following.EXIT_OF[video["status"]]


@click.command()
@click.argument("video_ids", metavar="VIDEO_ID...", nargs=-1, required=True)
@farm_verb
def get(session: Session, video_ids: tuple[str, ...]) -> int:
    """Show videos."""

    def show(video_id: str) -> int:
        video = session.api.get(f"/v1/videos/{video_id}")
        session.screen.object(video, render.video_lines(video), short=video["id"])
        _explain(session, video)
        return Exit.OK

    return for_each(video_ids, show)


@click.command()
@click.option("--status", help="States, comma-separated.")
@click.option("--error", help="Code of the error that they ended with.")
@click.option("--model", help="An id of `wanfarm models ls`.")
@click.option("--batch", help="The batch that they belong to.")
@click.option("--group", help="The group that rendered it last.")
@click.option("--key-name", "key_name", help="The name of the key that sent it.")
@click.option("--search", "q", help="Text within the prompt.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="A pair that it carries.")
@click.option("--created-after", type=int, help="Unix seconds.")
@click.option("--created-before", type=int, help="Unix seconds.")
@click.option("--order", type=click.Choice(["asc", "desc"]), help="By creation.")
@click.option("--after", help="Go on after this id.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most.")
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
@farm_verb
def ls(session: Session, **options: Any) -> int:  # noqa: ANN401 - click's
    """List videos, newest first."""
    left = None if options.pop("everything") else options.pop("limit")
    options.pop("limit", None)
    params = _filters(options)
    shown = 0
    for page in _pages(session, params, left):
        session.screen.rows(page, _COLUMNS if not shown else (), _cells)
        shown += len(page)
    if not shown:
        session.screen.note("No video fits.")
    return Exit.OK


@click.command()
@click.argument("video_ids", metavar="VIDEO_ID...", nargs=-1, required=True)
@click.option("--reason", help="Shown with the video.")
@click.option("--no-wait", is_flag=True, help="Do not stay until the GPU has stopped.")
@click.option("--timeout", type=float, help="Seconds to stay at most.")
@farm_verb
def cancel(
    session: Session,
    video_ids: tuple[str, ...],
    *,
    reason: str | None,
    no_wait: bool,
    timeout: float | None,
) -> int:
    """Stop videos: waiting ones at once, running ones at their next step."""
    body: Json = {"reason": reason} if reason else {}

    def stop(video_id: str) -> int:
        video = session.api.ask(Ask("POST", f"/v1/videos/{video_id}/cancel", body))
        if video["status"] == "in_progress" and not no_wait:
            video = following.wait_for_end(session, video_id, within_s=timeout)
        session.screen.object(video, [_stopped(video)], short=video["id"])
        # it may have ended by itself in the meantime
        return Exit.ERROR if video["status"] in {"completed", "failed"} else Exit.OK

    return for_each(video_ids, stop)


@click.command()
@click.argument("video_id")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: the id; `-` is stdout."
)
@click.option("--poster", is_flag=True, help="The picture, not the video.")
@click.option("--provenance", is_flag=True, help="How it was made, as JSON.")
@farm_verb
def download(
    session: Session, video_id: str, *, output: Path | None, poster: bool, provenance: bool
) -> int:
    """Save a finished video, and check what arrived against its hash."""
    if poster and provenance:
        raise click.UsageError("--poster and --provenance are two files. Ask for one at a time.")
    what = "thumbnail" if poster else "provenance" if provenance else "video"
    target = output or Path(video_id + _ENDINGS[what])
    if what == "provenance":
        following.save(session, Ask("GET", f"/v1/videos/{video_id}/provenance"), target)
    else:
        following.download(session, video_id, target, variant=what)
    if target != Path("-"):
        facts: Json = {"id": video_id, "path": str(target), "bytes": target.stat().st_size}
        session.screen.object(facts, [str(target)], short=video_id)
    return Exit.OK


@click.command()
@click.argument("video_ids", metavar="VIDEO_ID...", nargs=-1, required=True)
@farm_verb
def rm(session: Session, video_ids: tuple[str, ...]) -> int:
    """Delete videos with their files; running ones are cancelled first."""

    def remove(video_id: str) -> int:
        gone = session.api.ask(Ask("DELETE", f"/v1/videos/{video_id}"))
        session.screen.object(gone, [gone["id"]], short=gone["id"])
        return Exit.OK

    return for_each(video_ids, remove)


def _foresee(session: Session, body: Json, wish: Wish) -> int:
    if wish.stays:
        raise click.UsageError("--dry-run makes no video. Leave out --wait and -o.")
    if wish.spread:
        return batches.foresee(session, body, wish.spread)
    return records.foresee(session, body)


def _make(session: Session, path: str, body: Json, wish: Wish) -> int:
    """Ask for a video; the key lets an answer that was lost be asked for again."""
    key = wish.idempotency_key or str(uuid.uuid4())
    video = session.api.ask(Ask("POST", path, body, headers={"Idempotency-Key": key}))
    screen = session.screen
    for warning in video["warnings"]:
        screen.note(f"Note: {warning['message']}")
    if not wish.stays:
        screen.object(video, [video["id"]], short=video["id"])
        screen.note(f"{render.progress_text(video)}; follow it: wanfarm watch {video['id']}")
        return Exit.OK
    to_stdout = wish.output == Path("-")
    if not screen.as_json and not to_stdout:  # at once: a script that is stopped knows it
        screen.object(video, [video["id"]], short=video["id"])
    video = following.follow(session, video["id"], within_s=wish.timeout_s)
    if video["status"] == "completed" and wish.output is not None:
        following.download(session, video["id"], wish.output)
    if screen.as_json and not to_stdout:
        screen.object(video, (), short=video["id"])
    return _finish(session, video, wish)


def _finish(session: Session, video: Json, wish: Wish) -> int:
    saved = f"  {wish.output}" if wish.output and video["status"] == "completed" else ""
    session.screen.note(render.ended_text(video) + saved)
    _explain(session, video)
    return following.EXIT_OF[video["status"]]


def _explain(session: Session, video: Json) -> None:
    """Lead from a failed video's code to what can be done about it."""
    if video["status"] == "failed":
        session.screen.note(session.api.explains(video["error"]["code"]))


def _filters(options: Json) -> dict[str, str | int]:
    """Phrase the filters as query parameters."""
    pairs = [pair.partition("=") for pair in options.pop("metadata")]
    options["key"] = options.pop("key_name")
    params = {name: value for name, value in options.items() if value is not None}
    return params | {f"metadata[{name}]": value for name, _, value in pairs}


def _pages(
    session: Session, params: dict[str, str | int], left: int | None
) -> Generator[list[Json]]:
    """Read pages until enough were read, or all."""
    while left is None or left > 0:
        limit = _PAGE if left is None else min(left, _PAGE)
        page = session.api.get("/v1/videos", **params, limit=limit)
        if page["data"]:
            yield page["data"]
        if not page["has_more"]:
            return
        params["after"] = page["last_id"]
        left = None if left is None else left - len(page["data"])


def _cells(video: Json) -> tuple[object, ...]:
    running = video["status"] == "in_progress"
    percent = f" {video['progress']}%" if running else ""
    return (
        video["id"],
        render.state_text(video["status"]) + percent,
        video["model"],
        render.age_text(video["created_at"]),
        video["prompt"],
    )


def _stopped(video: Json) -> str:
    asked = video["status"] == "in_progress"
    return f"{video['id']}  cancelling" if asked else render.ended_text(video)
