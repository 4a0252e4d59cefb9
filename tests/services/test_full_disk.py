"""A disk that fills up: nothing new is taken, and what was rendered is stored when it can be."""

import contextlib

import pytest
from structlog.testing import capture_logs

from shared.jobs import invariants, lifecycle, pauses
from shared.machinery.farm import open_farm
from shared.vocabulary.errors import WanfarmError
from tests.services.jobs import edit, row, states_of, submit

MIB = 1 << 20


@pytest.fixture
def settings(settings, small_disk):
    """The farm's files are on a disk of four MiB."""
    changes = {"data_dir": small_disk / "data", "min_free_mb": 0, "store_wait_s": 60}
    return settings.model_copy(update=changes)


@pytest.fixture
def filler(small_disk):
    """A file that takes all the room there is, until it is removed."""
    path = small_disk / "filler"
    with path.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(4096))
    return path


def files_on(disk) -> list[str]:
    return sorted(path.name for path in disk.rglob("*") if path.is_file())


@contextlib.contextmanager
def waiting_for_room(farm, parent, eventually):
    """A rendered video that the store refused; its parent ends with the block."""
    video_id = submit(farm)
    parent.keeper.start()
    with capture_logs() as logs:
        parent.thread.start()
        eventually(lambda: [one for one in logs if one["event"] == "store.refused"], within=30)
        yield video_id
        parent.thread.join(30)


def test_a_video_waits_for_room_and_is_not_rendered_again(
    farm, parent, small_disk, filler, eventually
):
    with waiting_for_room(farm, parent, eventually) as video_id:
        assert row(farm, video_id)["detail"]["phase"] == "store"
        assert not set(files_on(small_disk)) & {"video.mp4", "result.json"}
        filler.unlink()

    assert states_of(farm, video_id) == ["queued", "in_progress", "completed"]
    stored = files_on(small_disk / "data" / "videos")
    assert stored == ["result.json", "spritesheet.jpg", "thumbnail.webp", "video.mp4"]
    assert list(invariants.broken(farm)) == []


def test_a_video_that_is_cancelled_while_it_waits_for_room_waits_no_longer(
    farm, parent, small_disk, filler, eventually
):
    with waiting_for_room(farm, parent, eventually) as video_id:
        lifecycle.cancel(farm, video_id, by="a person")

    assert row(farm, video_id)["state"] == "cancelled"
    assert files_on(small_disk) == ["filler", "g0.heartbeat"]


def test_a_store_that_never_has_room_ends_the_attempt_and_another_follows(
    farm, settings, checkpoint, small_disk, filler, start
):
    impatient = settings.model_copy(update={"store_wait_s": 0})
    with contextlib.closing(open_farm(impatient)) as short:
        parent = start("Filmmaker", short)
        video_id = submit(farm, max_attempts=2)
        parent.work()
        back = row(farm, video_id)
        edit(farm, video_id, run_after=back["created_at"])
        filler.unlink()
        parent.work()

    first, second = row(farm, video_id)["attempts"]
    assert (back["state"], first["kind"], first["outcome"]) == ("queued", "storage", "requeued")
    assert first["message"].endswith("Free space on it, then retry.")
    assert second["outcome"] == "completed"
    assert [name for name in files_on(small_disk) if name.endswith(".part")] == []


def test_intake_closes_before_the_disk_is_full_and_opens_when_there_is_room(
    farm, settings, small_disk, eventually
):
    careful = settings.model_copy(update={"min_free_mb": 2})
    with contextlib.closing(open_farm(careful)) as careful_farm:
        taken = submit(careful_farm)
        (small_disk / "large").write_bytes(bytes(3 * MIB))

        eventually(lambda: pauses.lack_of_room(careful_farm))
        with pytest.raises(WanfarmError, match="WANFARM_MIN_FREE_MB") as refused:
            submit(careful_farm)

        (small_disk / "large").unlink()
        eventually(lambda: pauses.lack_of_room(careful_farm) is None)
        again = submit(careful_farm)

    assert (refused.value.code, refused.value.retry_after_s) == ("storage_full", 60)
    assert [row(farm, one)["state"] for one in (taken, again)] == ["queued"] * 2
