"""A video that was rendered and stored is not rendered again because its commit was lost."""

import pytest
from sqlalchemy import delete, text, update

from shared.jobs import invariants, lifecycle
from shared.machinery.tables import Attempt, Event, Video
from tests.services.jobs import row, states_of, submit


@pytest.fixture
def stored(farm, parent):
    """A video whose files are whole on the disk, and whose commit never came."""
    video_id = submit(farm)
    parent.work()
    seq = row(farm, video_id)["seq"]
    with farm.db.connect() as db:
        before = {"state": "in_progress", "lease_until": row(farm, video_id)["created_at"]}
        gone = dict.fromkeys(("completed_at", "result", "expires_at"))
        db.execute(text("ALTER TABLE videos DISABLE TRIGGER videos_moves"))
        db.execute(update(Video).values(seq=seq - 1, **before, **gone))
        db.execute(text("ALTER TABLE videos ENABLE TRIGGER videos_moves"))
        db.execute(delete(Event).where(Event.seq == seq))
        db.execute(update(Attempt).values(ended_at=None, outcome=None, report=None))
    assert lifecycle.take_over(farm, "g0") == 1
    return video_id


def phases(farm, video_id: str, attempt: int) -> list[str]:
    with farm.db.connect() as db:
        found = db.execute(Event.__table__.select().where(Event.video_id == video_id))
        return [one.type for one in found if one.attempt == attempt]


def test_what_was_stored_completes_the_video(farm, parent, stored):
    parent.work()

    video = row(farm, stored)
    first, second = video["attempts"]
    assert states_of(farm, stored)[-2:] == ["in_progress", "completed"]
    assert phases(farm, stored, 2) == ["state", "state"]  # it rendered nothing
    assert (first["kind"], second["outcome"]) == ("lost", "completed")
    assert second["message"] == "Completed with the files that attempt 1 had stored."
    assert second["plan"] == first["plan"] is not None
    assert second["report"]["software"]
    assert video["result"]["attempt"] == 1
    assert list(invariants.broken(farm)) == []


@pytest.mark.parametrize("file", ["video.mp4", "thumbnail.webp", "result.json"])
def test_a_part_of_it_does_not(farm, parent, stored, file):
    path = farm.storage.path(f"videos/{stored}/1/{file}")
    if file == "result.json":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])

    parent.work()

    assert row(farm, stored)["result"]["attempt"] == 2
    assert "phase" in phases(farm, stored, 2)
