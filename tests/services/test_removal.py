"""How a video goes for good: hidden at once, its files before its row, what others use kept."""

import os
import time

import pytest
from sqlalchemy import func, select, text, update

from shared.jobs import files, keys, lifecycle, queries, removal, running
from shared.machinery.tables import Attempt, Event, File, Video
from shared.vocabulary.errors import WanfarmError
from tests.services.jobs import (
    DIED,
    RESULT,
    ago,
    claimed,
    completed,
    edit,
    row,
    submit,
    take,
)

SHA = "a" * 64
IMAGE = {"model": "wan-tiny-i2v", "image": {"sha256": SHA, "width": 64, "height": 64}}


@pytest.fixture
def settings(settings, tmp_path):
    return settings.model_copy(update={"lora_dir": tmp_path / "loras"})


def rows(farm, table=Video) -> int:
    with farm.db.connect() as db:
        return db.scalar(select(func.count()).select_from(table))


def with_file(farm, video_id: str) -> str:
    key = f"videos/{video_id}/1/video.mp4"
    farm.storage.put_bytes(b"mp4", key)
    return key


def age(farm, key: str, seconds: float = 7200) -> None:
    """Let a stored file be older than it is."""
    then = time.time() - seconds
    os.utime(farm.storage.path(key), (then, then))


def test_a_waiting_video_is_deleted_at_once(farm):
    video_id = submit(farm)

    removal.delete(farm, video_id, by="a person")

    assert (rows(farm), rows(farm, Event)) == (0, 0)


def test_a_completed_video_goes_with_its_files_attempts_and_events(farm):
    video_id, other = completed(farm), completed(farm)
    key, kept = with_file(farm, video_id), with_file(farm, other)

    removal.delete(farm, video_id, by="a person")

    assert not farm.storage.path(f"videos/{video_id}").exists(), key
    assert farm.storage.exists(kept)
    assert (rows(farm), rows(farm, Attempt)) == (1, 1)


def test_a_failed_video_can_be_deleted(farm):
    claim = claimed(farm, max_attempts=1)
    lifecycle.give_back(farm, claim, DIED)

    removal.delete(farm, claim.fence.video_id, by="a person")

    assert rows(farm) == 0


def test_a_running_video_is_hidden_now_and_gone_when_it_has_stopped(farm):
    fence = claimed(farm).fence

    removal.delete(farm, fence.video_id, by="a person")

    assert queries.one(farm, fence.video_id, None) is None
    assert running.renew(farm, fence) is True
    assert rows(farm) == 1
    lifecycle.cancelled(farm, fence)
    assert removal.purge(farm) == 1
    assert rows(farm) == 0


def test_a_video_that_completes_while_it_is_deleted_is_purged_too(farm):
    fence = claimed(farm).fence
    removal.delete(farm, fence.video_id, by="a person")
    lifecycle.complete(farm, fence, RESULT, {})
    key = with_file(farm, fence.video_id)

    removal.purge(farm)

    assert (rows(farm), farm.storage.exists(key)) == (0, False)


@pytest.mark.parametrize("times", [1, 2])
def test_deleting_what_is_gone_is_fine(farm, times):
    video_id = submit(farm)
    for _ in range(times):
        removal.delete(farm, video_id, by="a person")

    removal.delete(farm, "video_0000", by="a person")

    assert rows(farm) == 0


@pytest.mark.parametrize("runs", [False, True])
def test_a_video_whose_deletion_died_half_way_is_stopped_and_purged(farm, runs):
    video_id = submit(farm)
    fence = take(farm).fence if runs else None
    edit(farm, video_id, delete_requested_at=ago(1))

    assert removal.stop_deleted(farm) == 1
    assert removal.stop_deleted(farm) == 0

    if fence:
        assert running.renew(farm, fence) is True
        lifecycle.cancelled(farm, fence)
    assert (removal.purge(farm), rows(farm)) == (1, 0)


MOVES_ON = """
CREATE FUNCTION moves_on() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER moves_on BEFORE UPDATE ON videos FOR EACH ROW
WHEN (NEW.cancel_requested_at IS NOT NULL) EXECUTE FUNCTION moves_on()
"""


def test_a_video_that_moves_under_our_hands_is_deleted_all_the_same(farm):
    """Whoever deletes it is told so once it is hidden: nobody could find it for a second try."""
    video_id = submit(farm)
    with farm.db.connect() as db:
        db.execute(text(MOVES_ON))
    try:
        with pytest.raises(WanfarmError, match="keeps moving"):
            lifecycle.cancel(farm, video_id, by="a person")

        removal.delete(farm, video_id, by="a person")
    finally:
        with farm.db.connect() as db:
            db.execute(text("DROP FUNCTION moves_on CASCADE"))

    assert queries.one(farm, video_id, None) is None
    assert (removal.stop_deleted(farm), removal.purge(farm), rows(farm)) == (1, 1, 0)


def test_what_nobody_deleted_is_never_purged(farm):
    completed(farm)

    assert removal.purge(farm) == 0

    assert rows(farm) == 1


def test_an_image_is_kept_while_another_video_uses_it(farm):
    key = farm.storage.put_bytes(b"png", removal.image_key(SHA)).key
    age(farm, key)
    first, second = submit(farm, **IMAGE), submit(farm, **IMAGE)

    removal.delete(farm, first, by="a person")
    assert farm.storage.exists(key)

    removal.delete(farm, second, by="a person")
    assert not farm.storage.exists(key)


def uploaded(farm, tenant: str = "default", sha256: str = SHA) -> dict:
    """A file whose picture was stored a while ago."""
    age(farm, farm.storage.put_bytes(b"png", removal.image_key(sha256)).key)
    keys.ensure_tenant(farm, tenant)
    about = {"bytes": 3, "width": 64, "height": 64, "filename": "a.png", "purpose": "vision"}
    return files.add(farm, tenant, about | {"sha256": sha256})


def test_a_picture_goes_with_the_last_that_refers_to_it(farm):
    """Two tenants' files and a video: none of them takes it from the others."""
    mine, theirs = uploaded(farm), uploaded(farm, "others")
    video_id, key = submit(farm, **IMAGE), removal.image_key(SHA)

    removal.delete_file(farm, mine["id"])
    assert (removal.drop_strays(farm), farm.storage.exists(key)) == (0, True)
    removal.delete(farm, video_id, by="a person")
    assert (removal.drop_strays(farm), farm.storage.exists(key)) == (0, True)
    removal.delete_file(farm, theirs["id"])
    assert not farm.storage.exists(key)


def test_an_uploaded_file_past_its_time_goes_with_its_picture(farm):
    old, young = uploaded(farm), uploaded(farm, sha256="b" * 64)
    with farm.db.connect() as db:
        db.execute(update(File).where(File.id == old["id"]).values(expires_at=ago(1)))

    assert removal.expire_files(farm) == 1

    assert rows(farm, File) == 1
    assert files.one(farm, young["id"], "default") == young
    assert farm.storage.names("images") == [f"{'b' * 64}.png"]
    assert removal.expire_files(farm) == 0


def test_what_a_killed_upload_of_an_adapter_left_is_removed_when_it_is_old(farm):
    folder = farm.settings.lora_dir
    for name in (".dead.part", ".alive.part", "style"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0").touch()
    for path in (folder / ".dead.part" / "0", folder / ".dead.part", folder / ".alive.part"):
        os.utime(path, (0, 0))

    assert removal.drop_strays(farm) == 1

    assert sorted(path.name for path in folder.iterdir()) == [".alive.part", "style"]


def test_a_result_past_its_time_loses_its_files_and_says_so(farm):
    old, young = completed(farm), completed(farm)
    gone, kept = with_file(farm, old), with_file(farm, young)
    edit(farm, old, expires_at=ago(1))

    assert removal.expire(farm) == 1

    assert (farm.storage.exists(gone), farm.storage.exists(kept)) == (False, True)
    assert row(farm, old)["result"] == RESULT | {"expired": True}
    assert row(farm, old)["state"] == "completed"
    assert removal.expire(farm) == 0


def test_a_result_lives_as_long_as_was_asked_for(farm):
    video_id = completed(farm, expires_in_s=3600)

    done = row(farm, video_id)

    assert (done["expires_at"] - done["completed_at"]).total_seconds() == 3600


def test_a_deleted_video_is_not_claimed_by_a_parent_that_looks_meanwhile(farm):
    video_id, other = submit(farm), submit(farm)
    edit(farm, video_id, delete_requested_at=ago(0))

    removal.delete(farm, video_id, by="a person")

    assert take(farm).fence.video_id == other


def test_an_image_that_was_just_sent_is_kept_for_the_video_that_comes_with_it(farm):
    """It is stored before its row: between the two nobody refers to it."""
    key = farm.storage.put_bytes(b"png", removal.image_key(SHA)).key
    removal.delete(farm, submit(farm, **IMAGE), by="a person")

    assert removal.drop_strays(farm) == 0
    assert farm.storage.exists(key)

    age(farm, key)
    assert removal.drop_strays(farm) == 1
    assert not farm.storage.exists(key)


def test_what_a_late_worker_stored_is_removed_and_what_is_needed_never(farm):
    taken_over = claimed(farm).fence
    lost = with_file(farm, taken_over.video_id)
    lifecycle.requeue_uncharged(farm, taken_over, "leaving")
    needed = f"videos/{taken_over.video_id}/2/video.mp4"
    farm.storage.put_bytes(b"mp4", needed)
    again = take(farm)
    assert removal.drop_strays(farm) == 0  # a third attempt could still need either
    lifecycle.complete(farm, again.fence, RESULT | {"attempt": 2}, {})
    waiting = with_file(farm, submit(farm))
    gone = with_file(farm, "video_0000")

    assert removal.drop_strays(farm) == 2

    assert [farm.storage.exists(key) for key in (lost, needed, waiting, gone)] == [
        False,
        True,
        True,
        False,
    ]
