"""Staying with a video until it ends: progress on the way, the exit code, the saved file."""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO, Final

import click

from cli import render
from cli.client import Ask, Event, Exit, FarmError, Json, pause, timed_out
from cli.session import Session
from shared.vocabulary.states import VideoState

_HELD_S: Final = 25  # how long one request is held; proxies cut at 30 or 60
_LEAST_LOOK_S: Final = 0.5
_CHUNK: Final = 1 << 20

EXIT_OF: Final = {
    "completed": Exit.OK,
    "failed": Exit.JOB_FAILED,
    "cancelled": Exit.JOB_CANCELLED,
}


def follow(
    session: Session,
    video_id: str,
    *,
    within_s: float | None,
    hear: Callable[[Json], None] | None = None,
) -> Json:
    """Show a video's progress until it ends, and give it as it is then.

    Args:
        session: the verb's.
        video_id: the video.
        within_s: seconds to stay at most.
        hear: told every line of the video's ledger.

    Raises:
        FarmError: when the time is up, or the farm stays away.
    """
    screen, video = session.screen, Json()
    with interruptible(f"The video goes on. See it again: wanfarm watch {video_id}"):
        for event in session.api.follow(video_id, within_s=within_s):
            video = fold(video, event)
            if video.get("status") in {"queued", "in_progress"}:
                screen.progress(render.progress_text(video), kind=render.phase_of(video))
            if hear is not None and event.id is not None:
                hear(event.data)
        screen.end_progress()
        return session.api.get(f"/v1/videos/{video_id}")


def listen(session: Session, *, within_s: float | None) -> int:
    """Print each move of each video as it happens, until Ctrl-C.

    Raises:
        FarmError: when the time is up, or the farm stays away.
    """
    for event in session.api.feed(within_s=within_s):
        move = event.data
        session.screen.object(move, [render.move_line(move)], short=move["video_id"])
    return Exit.OK


@contextlib.contextmanager
def interruptible(words: str) -> Generator[None]:
    """Say something at Ctrl-C: what goes on, and how to see it again."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\n{words}", err=True)
        raise


def fold(video: Json, event: Event) -> Json:
    """Bring what is known of a video up to an event."""
    data = event.data
    if event.type == "snapshot":
        return data
    detail: Json = video.get("progress_detail") or {}
    if event.type == "state":
        return video | {"status": data["to"], "progress_detail": None, "queue": None}
    if event.type == "phase":
        return video | {"progress_detail": {**detail, "phase": data["name"]}}
    if event.type == "step":
        return video | {"progress_detail": {**detail, "phase": "denoise", **data}}
    if event.type == "cancel":
        return video | {"cancel_requested_at": data["at"]}
    return video


def wait_for_end(session: Session, video_id: str, *, within_s: float | None) -> Json:
    """Wait in silence until a video ends.

    Raises:
        FarmError: when the time is up.
    """
    deadline = None if within_s is None else time.monotonic() + within_s
    while True:
        video = hold(session, video_id, deadline)
        if VideoState(video["status"]).is_final:
            return video


def hold(session: Session, video_id: str, deadline: float | None) -> Json:
    """Wait for a video's end as long as one request is held; gives the video as it is then.

    Raises:
        FarmError: when the time is up.
    """
    left = _HELD_S if deadline is None else max(0.0, deadline - time.monotonic())
    began = time.monotonic()
    video = session.api.get(f"/v1/videos/{video_id}", wait=int(min(_HELD_S, left)))
    if not VideoState(video["status"]).is_final:
        if deadline is not None and time.monotonic() >= deadline:
            raise timed_out()
        # the farm answers at once when all its places for waiting are taken
        pause(max(0.0, _LEAST_LOOK_S - (time.monotonic() - began)))
    return video


def download(session: Session, video_id: str, target: Path, *, variant: str = "video") -> Path:
    """Save a file of a video, whole or not at all.

    Args:
        session: the verb's.
        video_id: the video.
        target: the file to write; `-` is stdout.
        variant: `video` or `thumbnail`.

    Raises:
        FarmError: when there is no such file, it arrives damaged, or it cannot be written.
    """
    path = f"/v1/videos/{video_id}/content"
    return save(session, Ask("GET", path, params={"variant": variant}), target)


def save(session: Session, ask: Ask, target: Path) -> Path:
    """Save what a request is answered with, whole or not at all.

    Raises:
        FarmError: when it is refused, arrives damaged, or cannot be written.
    """
    with _writing(target) as out, session.api.answer(ask) as response:
        ours = [*response.history, response][0]  # a bucket that we are sent to has another tag
        expected = ours.headers.get("ETag", "").strip('"')
        digest = hashlib.sha256()
        for chunk in response.iter_bytes(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
        if len(expected) == digest.digest_size * 2 and digest.hexdigest() != expected:
            raise FarmError(
                Exit.ERROR, "The file arrived damaged: its sha256 is another. Try again."
            )
    return target


@contextlib.contextmanager
def _writing(target: Path) -> Generator[BinaryIO]:
    """Write beside the target and rename at the end; a part that broke off is removed."""
    if target == Path("-"):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            yield out
        part.replace(target)
    except OSError as err:
        raise FarmError(Exit.ERROR, f"{target} cannot be written: {err.strerror}.") from err
    finally:
        part.unlink(missing_ok=True)
