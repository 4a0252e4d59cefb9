"""The slow duties: each removes what is past its time and nothing else, one process at a time."""

import signal
import subprocess
import sys

import pytest
from sqlalchemy import func, select, text, update

from shared.jobs import keys, lifecycle, removal, running
from shared.machinery.tables import Event, Idempotency, LoginToken, Video
from tests.farm.conftest import ROOT, environment
from tests.services.jobs import RESULT, ago, claimed, completed, edit, row, submit
from worker import upkeep

HOUR, DAY = 3600, 86_400


def count(farm, table) -> int:
    with farm.db.connect() as db:
        return db.scalar(select(func.count()).select_from(table))


def set_all(farm, table, **columns) -> None:
    with farm.db.connect() as db:
        db.execute(update(table).values(**columns))


@pytest.mark.parametrize("duties", [upkeep.DUTIES, upkeep.HOURLY], ids=["each minute", "hourly"])
def test_a_round_says_what_each_duty_did(farm, duties):
    assert upkeep.round_of_duties(farm, duties) == dict.fromkeys(duties, 0)


def test_a_round_purges_and_expires(farm):
    deleted, old = claimed(farm).fence, completed(farm)
    removal.delete(farm, deleted.video_id, by="a person")
    lifecycle.cancelled(farm, deleted)
    edit(farm, old, expires_at=ago(1))

    done = upkeep.round_of_duties(farm, upkeep.DUTIES)

    assert (done["purged"], done["expired"]) == (1, 1)
    assert count(farm, Video) == 1


def test_while_one_process_does_its_duties_another_does_none(farm):
    with farm.db.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": upkeep._LOCK})

        assert upkeep.round_of_duties(farm, upkeep.DUTIES) is None

        other.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": upkeep._LOCK})
    assert upkeep.round_of_duties(farm, upkeep.DUTIES) is not None


@pytest.mark.parametrize(("ended_s", "kept"), [(HOUR, 1), (DAY + HOUR, 0)])
def test_steps_are_forgotten_a_day_after_the_end_and_states_never(farm, ended_s, kept):
    fence = claimed(farm).fence
    running.report(farm, fence, "step", {"step": 1}, {"progress": 5})
    lifecycle.complete(farm, fence, RESULT, {})
    edit(farm, fence.video_id, completed_at=ago(ended_s))

    upkeep.round_of_duties(farm, upkeep.DUTIES)

    with farm.db.connect() as db:
        types = list(db.scalars(select(Event.type).order_by(Event.seq)))
    assert types == ["state", "state", *["step"] * kept, "state"]


@pytest.mark.parametrize(
    ("age_s", "deleted", "kept"),
    [(HOUR, True, 1), (DAY + HOUR, True, 0), (DAY + HOUR, False, 1)],
    ids=["young", "old and gone", "old but alive"],
)
def test_an_idempotency_key_is_forgotten_when_it_is_old_and_its_video_gone(
    farm, age_s, deleted, kept
):
    video_id = submit(farm, idempotency_key="k", fingerprint="f")
    set_all(farm, Idempotency, at=ago(age_s))
    if deleted:
        removal.delete(farm, video_id, by="a person")

    upkeep.round_of_duties(farm, upkeep.DUTIES)

    assert count(farm, Idempotency) == kept


@pytest.mark.parametrize(("age_s", "kept"), [(HOUR, 1), (DAY + HOUR, 0)])
def test_a_login_is_forgotten_a_day_after_it_stopped_working(farm, age_s, kept):
    key_id, _ = keys.create(farm, "studio", "read")
    keys.create_login_token(farm, key_id)
    set_all(farm, LoginToken, expires_at=ago(age_s))

    upkeep.round_of_duties(farm, upkeep.DUTIES)

    assert count(farm, LoginToken) == kept


def test_the_upkeep_process_works_until_it_is_asked_to_stop(farm, eventually):
    old = completed(farm)
    edit(farm, old, expires_at=ago(1))
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.upkeep"], env=environment(farm.settings), cwd=ROOT
    )
    try:
        eventually(lambda: row(farm, old)["result"].get("expired"), within=30)
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
