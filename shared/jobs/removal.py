"""How things go for good. A video: mark, files, row; in this order, so that a crash leaves a mark.

An uploaded file goes the other way round, its row first: the picture may be a video's as well.
"""

import contextlib
from collections.abc import Iterator, Sequence

from sqlalchemy import Row, Select, case, func, select, union, update
from sqlalchemy import delete as sql_delete

from shared.jobs import audit, lifecycle
from shared.jobs.audit import Actor, Deed
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.machinery.tables import Attempt, File, Tenant, Video
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.metrics import STORAGE_SECONDS
from shared.vocabulary.states import MOVES, VideoState

_FINAL = [state for state in MOVES if state.is_final]
_SAVED = "checkpoints"
_GRACE_S = 3600.0
_PAGE = 500


def delete(farm: Farm, *video_ids: str, by: str, actor: Actor | None = None) -> None:
    """Hide videos at once, stop those that run, and purge what is final."""
    for video_id in video_ids:
        marked = update(Video).where(Video.id == video_id).values(delete_requested_at=func.now())
        audit.carry_out(farm, marked.returning(Video.id), Deed("video.delete", video_id), actor)
        _stop(farm, video_id, by)
    try:
        purge(farm, *video_ids)
    except WanfarmError as err:  # of the store; nobody finds them any more, so upkeep goes on
        logger(job_id=video_ids[0]).warning("video.purged_later", error=err.message)


def _stop(farm: Farm, video_id: str, by: str) -> None:
    with contextlib.suppress(WanfarmError):  # it is over, or gone, or upkeep asks again
        lifecycle.cancel(farm, video_id, by=by, reason="deleted")


def stop_deleted(farm: Farm) -> int:
    """Stop videos that were marked and not stopped, as by a process that died; returns how many."""
    unasked = (Video.state == VideoState.QUEUED) | Video.cancel_requested_at.is_(None)
    statement = select(Video.id).where(
        Video.delete_requested_at.isnot(None), Video.state.not_in(_FINAL), unasked
    )
    with farm.db.connect() as db:
        ids = db.scalars(statement.limit(64)).all()
    for video_id in ids:
        _stop(farm, video_id, "upkeep")
    return len(ids)


def purge(farm: Farm, *video_ids: str) -> int:
    """Remove files and rows of deleted videos that nothing runs any more; returns how many."""
    statement = select(Video.id, Video.image_sha256).where(
        Video.delete_requested_at.isnot(None), Video.state.in_(_FINAL)
    )
    if video_ids:
        statement = statement.where(Video.id.in_(video_ids))
    with farm.db.connect() as db:
        rows = db.execute(statement.limit(64)).all()
    for video_id, image in rows:
        _delete_files(farm, video_id)
        farm.saved.delete_tree(f"{_SAVED}/{video_id}")
        _remove_row(farm, video_id)
        if image:
            _drop_unused_image(farm, image)
    return len(rows)


def _delete_files(farm: Farm, video_id: str) -> None:
    with farm.meters.timed(STORAGE_SECONDS, op="delete"):
        farm.storage.delete_tree(f"videos/{video_id}")


def _remove_row(farm: Farm, video_id: str) -> None:
    """Remove a video's row; what its attempts cost stays with its tenant."""
    cost = select(func.coalesce(func.sum(Attempt.charged_s), 0.0)).where(
        Attempt.video_id == video_id
    )
    gone = sql_delete(Video).where(Video.id == video_id).returning(Video.tenant).cte("gone")
    kept = update(Tenant).where(Tenant.name == gone.c.tenant)
    with farm.db.connect() as db:
        db.execute(kept.values(purged_s=Tenant.purged_s + cost.scalar_subquery()))


def expire(farm: Farm) -> int:
    """Remove the files of results past their time; the row stays and says so. Returns how many."""
    statement = select(Video.id).where(Video.expires_at < func.now()).limit(64)
    with farm.db.connect() as db:
        ids = db.scalars(statement).all()
    for video_id in ids:
        _delete_files(farm, video_id)
        gone = Video.result.op("||")(func.jsonb_build_object("expired", True))  # noqa: FBT003
        with farm.db.connect() as db:
            change = update(Video).where(Video.id == video_id)
            db.execute(change.values(expires_at=None, result=gone))
    return len(ids)


def delete_file(farm: Farm, file_id: str) -> None:
    """Forget an uploaded file; videos that were made from it keep its picture."""
    _forget_files(farm, select(File.id).where(File.id == file_id))


def expire_files(farm: Farm) -> int:
    """Forget uploaded files past their time; returns how many."""
    return _forget_files(farm, select(File.id).where(File.expires_at < func.now()).limit(64))


def _forget_files(farm: Farm, which: Select[str]) -> int:
    gone = sql_delete(File).where(File.id.in_(which)).returning(File.sha256)
    with farm.db.connect() as db:
        pictures = db.scalars(gone).all()
    for sha256 in pictures:
        with contextlib.suppress(WanfarmError):  # of the store; `drop_strays` looks again
            _drop_unused_image(farm, sha256)
    return len(pictures)


def drop_saved(farm: Farm) -> int:
    """Remove saved latents of videos that are over; returns of how many.

    They are in the data directory, which may be the host's own: each host looks after its own.
    """
    left = farm.saved.names(_SAVED)
    unfinished = select(Video.id).where(Video.id.in_(left), Video.state.not_in(_FINAL))
    with farm.db.connect() as db:
        wanted = set(db.scalars(unfinished))
    over = [video_id for video_id in left if video_id not in wanted]
    for video_id in over:
        farm.saved.delete_tree(f"{_SAVED}/{video_id}")
    return len(over)


def saved_key(video_id: str, attempt: int) -> str:
    """Name the stored folder of an attempt's saved latents."""
    return f"{_SAVED}/{video_id}/{attempt}"


def drop_strays(farm: Farm) -> int:
    """Remove stored files that nothing refers to; returns how many folders and files."""
    found = 0
    for key in strays(farm):  # each at once: an image may be sent again while others are looked at
        farm.storage.delete_tree(key)
        farm.storage.delete(key)
        found += 1
    homes = (farm.storage, farm.saved, farm.loras)
    return found + sum(one.drop_unfinished(_GRACE_S) for one in homes)


def strays(farm: Farm) -> Iterator[str]:
    """Find stored files that nothing refers to, and nothing will: keys of folders and files.

    A worker whose attempt was taken over may store its files all the same, at any time. A video
    that is not over keeps what all its attempts stored: a later one may complete it with that.
    """
    for ids in _pages(farm.storage.names("videos")):
        rows = {row.id: row for row in _rows(farm, ids)}
        for video_id in ids:
            row = rows.get(video_id)
            if row is None:
                yield f"videos/{video_id}"
            elif row.state in _FINAL and (row.attempt > 1 or row.kept != row.attempt):
                folders = farm.storage.names(f"videos/{video_id}")
                yield from (f"videos/{video_id}/{one}" for one in folders if one != str(row.kept))
    for names in _pages(farm.storage.names("images")):
        hashes = [name.partition(".")[0] for name in names]
        used = _used_images(farm, hashes)
        yield from (
            image_key(one) for one in hashes if one not in used and _is_old(farm, image_key(one))
        )


def _rows(farm: Farm, ids: Sequence[str]) -> Sequence[Row[str, str, int, int | None]]:
    kept = case((Video.result.has_key("expired"), None), else_=Video.result["attempt"].as_integer())
    statement = select(Video.id, Video.state, Video.attempt, kept.label("kept"))
    with farm.db.connect() as db:
        return db.execute(statement.where(Video.id.in_(ids))).all()


def _pages(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[first : first + _PAGE] for first in range(0, len(names), _PAGE))


def _drop_unused_image(farm: Farm, sha256: str) -> None:
    """Remove an image at once, if it may be; upkeep looks again at one that was just sent."""
    if not _used_images(farm, [sha256]) and _is_old(farm, image_key(sha256)):
        farm.storage.delete(image_key(sha256))


def _used_images(farm: Farm, hashes: Sequence[str]) -> set[str]:
    """Tell which of these images a video or an uploaded file refers to."""
    videos = select(Video.image_sha256).where(Video.image_sha256.in_(hashes))
    files = select(File.sha256).where(File.sha256.in_(hashes))
    with farm.db.connect() as db:
        return set(db.scalars(union(videos, files)))


def _is_old(farm: Farm, key: str) -> bool:
    """Tell whether a file is older than any request that has stored it and has no row yet."""
    age = farm.storage.age_s(key)
    return age is not None and age > _GRACE_S


def image_key(sha256: str) -> str:
    """Name the stored file of an input image."""
    return f"images/{sha256}.png"
