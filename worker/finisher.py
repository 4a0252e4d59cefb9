"""From the ranks' files to a completed video: hashes, the store, the row."""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import lifecycle, running
from shared.jobs.ledger import Fence, Values
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.machinery.storage import Stored
from shared.vocabulary.errors import JobFailure, WanfarmError
from shared.vocabulary.metrics import STORAGE_SECONDS
from shared.vocabulary.spec import FailureKind
from worker.cache_record import lanes_of, record
from worker.engine.result import Report
from worker.ranks.faults import RankFault
from worker.ranks.messages import Done

T = TypeVar("T")

_COMPLETE_PAUSE_S: Final = 0.5
_STORE_PAUSES_S: Final = (0.5, 30.0)  # the first and the longest


def finish(farm: Farm, fence: Fence, done: Done, told: Values) -> None:
    """Store an attempt's files and complete its video.

    Args:
        farm: the handles.
        fence: the attempt.
        done: what the ranks made and report.
        told: what the parent adds to that: the pattern of all steps, what it renders with.

    Raises:
        RankFault: of kind `storage` when the store refuses for good.
        StaleAttempt: when the attempt no longer holds the row.
    """
    file = done.file
    paths = {"video": file.path, "thumbnail": file.thumbnail, "spritesheet": file.spritesheet}
    stored = _store_patiently(farm, fence, paths)
    video = stored["video"]
    result: Values = {
        "attempt": fence.attempt,
        "bytes": video.bytes,
        "sha256": video.sha256,
        "width": file.width,
        "height": file.height,
        "frames": file.frames,
        "fps": file.fps,
        "codec": "h264",
        "files": {
            name: {"key": one.key, "bytes": one.bytes, "sha256": one.sha256}
            for name, one in stored.items()
        },
    }
    report = _report(done.report) | told
    warnings = [_warning(one) for one in done.report.warnings]
    note = json.dumps({"result": result, "report": report, "warnings": warnings}).encode()
    _patiently(farm, fence, lambda: farm.storage.put_bytes(note, _note_key(fence)))
    _complete_patiently(farm, partial(lifecycle.complete, farm, fence, result, report, warnings))


def adopt(farm: Farm, fence: Fence) -> bool:
    """Complete a video with what an earlier attempt stored and could not commit.

    Its note is stored last and has the hash of each file, so a whole one is known from a part.

    Returns:
        Whether there was such an attempt.

    Raises:
        StaleAttempt: when the attempt no longer holds the row.
    """
    for earlier in range(fence.attempt - 1, 0, -1):
        note = farm.storage.read(_note_key(Fence(fence.video_id, earlier)))
        if note is None:
            continue
        told: Values = json.loads(note)
        files: list[Values] = [*told["result"]["files"].values()]
        if all(farm.storage.sha256(one["key"]) == one["sha256"] for one in files):
            running.carry_plan(farm, fence, earlier)
            lifecycle.complete(farm, fence, told["result"], told["report"], told["warnings"])
            return True
    return False


def _report(report: Report) -> Values:
    """Write down what the engine reports; what it decided step by step becomes lanes."""
    cost: Values = report.model_dump(mode="json", exclude={"steps": {"__all__": {"branches"}}})
    cost |= lanes_of(report.steps)
    if report.cache is not None:
        cost["cached"] = record(report.steps).model_dump(mode="json")
    return cost


def _warning(text: str) -> Values:
    """Read the engine's `code: sentence`."""
    code, _, message = text.partition(": ")
    about_cache = code.startswith(("cache_", "scm_"))
    return {"code": code, "param": "cache" if about_cache else None, "message": message}


def _complete_patiently(farm: Farm, complete: Callable[[], None]) -> None:
    """Write the end; a finished render outlives an outage of Postgres up to a lease long."""
    pause, give_up = threading.Event(), time.monotonic() + farm.settings.lease_s
    while True:
        try:
            return complete()
        except SQLAlchemyError:
            if time.monotonic() > give_up:
                raise
            pause.wait(_COMPLETE_PAUSE_S)


_NAMES: Final = {
    "video": "video.mp4",
    "thumbnail": "thumbnail.webp",
    "spritesheet": "spritesheet.jpg",
}


def _store_patiently(farm: Farm, fence: Fence, paths: dict[str, str]) -> dict[str, Stored]:
    folder = f"videos/{fence.video_id}/{fence.attempt}"

    def put(name: str, path: str) -> Stored:
        with farm.meters.timed(STORAGE_SECONDS, op="put"):
            return farm.storage.put(Path(path), f"{folder}/{_NAMES[name]}")

    return _patiently(farm, fence, lambda: {name: put(name, path) for name, path in paths.items()})


def _note_key(fence: Fence) -> str:
    return f"videos/{fence.video_id}/{fence.attempt}/result.json"


def _patiently(farm: Farm, fence: Fence, put: Callable[[], T]) -> T:
    """Store something; a store that refuses is asked again, and nothing is rendered again.

    Raises:
        RankFault: when it has refused for too long, or nobody wants the video any more.
    """
    give_up = time.monotonic() + farm.settings.store_wait_s
    pause_s, longest_s = _STORE_PAUSES_S
    while True:
        try:
            return put()
        except WanfarmError as err:
            if time.monotonic() > give_up or _is_unwanted(farm, fence):
                raise RankFault(JobFailure(FailureKind.STORAGE, err.message)) from err
            logger().warning("store.refused", error=err.message, again_in_s=pause_s)
        threading.Event().wait(pause_s)
        pause_s = min(2 * pause_s, longest_s)


def _is_unwanted(farm: Farm, fence: Fence) -> bool:
    """Tell whether a cancel is asked for; without Postgres that is not known."""
    try:
        return running.renew(farm, fence)
    except SQLAlchemyError:
        return False
