"""The rules of the ledger: all hold over a busy farm, and each finds what breaks it."""

import hashlib
import subprocess
import sys

import pytest
from sqlalchemy import delete, insert, text, update

from shared.jobs import files, invariants, keys, lifecycle, removal, running
from shared.jobs.invariants import FILES, PICTURES, RULES, STRAYS
from shared.machinery.tables import Attempt, Batch, Event, Tenant, Video
from tests.farm.conftest import ROOT, environment
from tests.services import together
from tests.services.jobs import (
    DIED,
    ago,
    claimed,
    edit,
    let_back_off_pass,
    let_lease_expire,
    submit,
    take,
)


def stored(farm, fence) -> dict:
    """The result of an attempt, with its file in the storage."""
    file = farm.storage.put_bytes(b"mp4", f"videos/{fence.video_id}/{fence.attempt}/video.mp4")
    named = {"key": file.key, "bytes": file.bytes, "sha256": file.sha256}
    return {"attempt": fence.attempt, "files": {"video": named}}


def done(farm, **given) -> str:
    fence = claimed(farm, **given).fence
    lifecycle.complete(farm, fence, stored(farm, fence), {})
    return fence.video_id


def write(farm, statement) -> None:
    with farm.db.connect() as db:
        db.execute(statement)


def unchecked(farm, statement) -> None:
    """Write what the schema's own checks would refuse."""
    with farm.db.connect() as db:
        for name in ("lease_in_progress", "final_ended", "completed_result"):
            db.execute(text(f"ALTER TABLE videos DROP CONSTRAINT {name}"))
        db.execute(text("DROP TRIGGER videos_moves ON videos"))
        db.execute(statement)


def rules_of(farm) -> set[tuple[str, str]]:
    return {(one.rule, one.of) for one in invariants.broken(farm, late_s=0)}


def test_they_hold_for_every_story_of_a_video(farm):
    done(farm)
    submit(farm)
    running.report(farm, claimed(farm, priority=1).fence, "step", {}, {"progress": 5})
    lifecycle.cancel(farm, submit(farm), by="a person")
    failing = claimed(farm, max_attempts=2, priority=2)
    lifecycle.give_back(farm, failing, DIED)
    let_back_off_pass(farm, failing.fence.video_id)
    lifecycle.give_back(farm, take(farm), DIED)
    drained = claimed(farm, priority=3)
    lifecycle.requeue_uncharged(farm, drained.fence, "leaving")
    removal.delete(farm, done(farm, priority=4), by="a person")
    pruned = claimed(farm, priority=5).fence
    running.report(farm, pruned, "step", {}, {"progress": 5})
    lifecycle.complete(farm, pruned, stored(farm, pruned), {})
    edit(farm, pruned.video_id, completed_at=ago(100_000))
    write(farm, delete(Event).where(Event.video_id == pruned.video_id, Event.type == "step"))
    expired = done(farm, priority=6)
    edit(farm, expired, expires_at=ago(1))
    removal.expire(farm)
    together.submit(farm, 3, priority=7)
    lifecycle.cancelled(farm, take(farm).fence)
    removal.delete(farm, take(farm).fence.video_id, by="a person")

    assert list(invariants.broken(farm)) == []


def lease_ran_out(farm) -> str:
    video_id = claimed(farm).fence.video_id
    let_lease_expire(farm, video_id)
    return video_id


def no_lease(farm) -> str:
    video_id = claimed(farm).fence.video_id
    unchecked(farm, update(Video).values(lease_until=None))
    return video_id


def failed_without_a_word(farm) -> str:
    claim = claimed(farm, max_attempts=1)
    lifecycle.give_back(farm, claim, DIED)
    edit(farm, claim.fence.video_id, error=None)
    return claim.fence.video_id


def event_is_missing(farm) -> str:
    video_id = done(farm)
    write(farm, delete(Event).where(Event.seq == 2))
    write(farm, update(Event).where(Event.seq == 3).values(data={"from": "queued", "to": "x"}))
    return video_id


def event_twice(farm) -> str:
    video_id = done(farm)
    again = {"video_id": video_id, "seq": 4, "type": "note", "attempt": 1, "data": {}}
    write(farm, insert(Event).values(again))
    return video_id


def moved_after_its_end(farm) -> str:
    video_id = done(farm)
    data = {"from": "completed", "to": "queued"}
    event = {"video_id": video_id, "seq": 4, "type": "state", "attempt": 1, "data": data}
    write(farm, insert(Event).values(event))
    unchecked(farm, update(Video).values(seq=4, state="queued", result=None, completed_at=None))
    return video_id


def skipped_a_state(farm) -> str:
    video_id = done(farm)
    write(farm, update(Event).where(Event.seq == 3).values(data={"from": "queued", "to": "failed"}))
    return video_id


def attempt_is_missing(farm) -> str:
    video_id = claimed(farm).fence.video_id
    write(farm, delete(Attempt))
    return video_id


def attempt_never_ended(farm) -> str:
    video_id = done(farm)
    write(farm, update(Attempt).values(ended_at=None))
    return video_id


def two_at_once(farm) -> str:
    claim = claimed(farm)
    lifecycle.requeue_uncharged(farm, claim.fence, "leaving")
    take(farm)
    write(farm, update(Attempt).where(Attempt.number == 1).values(ended_at=ago(-60)))
    return claim.fence.video_id


def completed_twice(farm) -> str:
    claim = claimed(farm)
    lifecycle.requeue_uncharged(farm, claim.fence, "leaving")
    again = take(farm).fence
    lifecycle.complete(farm, again, stored(farm, again), {})
    write(farm, update(Attempt).values(outcome="completed"))
    return again.video_id


def result_of_another(farm) -> str:
    video_id = done(farm)
    write(farm, update(Video).values(result=Video.result.op("||")(text("""'{"attempt": 2}'"""))))
    return video_id


def charged_for_nothing(farm) -> str:
    done(farm)
    write(farm, update(Tenant).values(used_s=Tenant.used_s + 1))
    return "default"


def batch_lost_count(farm) -> str:
    batch_id = together.submit(farm, 2)
    take(farm)
    write(farm, update(Batch).values(unfinished=1))
    return batch_id


RUNS, STATE, GAPLESS, MOVED, ENDS, ATTEMPTS, OVERLAP, RESULT, CHARGED, BATCH = RULES


@pytest.mark.parametrize(
    ("plant", "rules"),
    [
        (lease_ran_out, {RUNS}),
        (no_lease, {RUNS, STATE}),
        (failed_without_a_word, {STATE}),
        (event_is_missing, {GAPLESS, MOVED, ENDS}),
        (event_twice, {GAPLESS}),
        (moved_after_its_end, {MOVED, RESULT}),
        (skipped_a_state, {MOVED, ENDS}),
        (attempt_is_missing, {ATTEMPTS}),
        (attempt_never_ended, {ATTEMPTS}),
        (two_at_once, {OVERLAP}),
        (completed_twice, {RESULT}),
        (result_of_another, {RESULT}),
        (charged_for_nothing, {CHARGED}),
        (batch_lost_count, {BATCH}),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_breaks_a_rule_is_found_by_name(farm, plant, rules):
    video_id = plant(farm)

    found = {(rule, of) for rule, of in rules_of(farm) if rule not in {STRAYS, FILES}}

    assert found == {(rule, video_id) for rule in rules}


def test_a_file_that_is_gone_or_changed_is_found(farm):
    gone, changed = done(farm), done(farm)
    farm.storage.delete(f"videos/{gone}/1/video.mp4")
    farm.storage.path(f"videos/{changed}/1/video.mp4").write_bytes(b"mp5")

    assert rules_of(farm) == {(FILES, gone), (FILES, changed)}


def test_a_picture_that_was_uploaded_and_is_gone_is_found(farm):
    keys.ensure_tenant(farm, "default")
    sha256 = hashlib.sha256(b"png").hexdigest()
    about = {"bytes": 3, "width": 64, "height": 64, "filename": "a.png", "purpose": "vision"}
    farm.storage.put_bytes(b"png", removal.image_key(sha256))
    file = files.add(farm, "default", about | {"sha256": sha256})
    assert rules_of(farm) == set()

    farm.storage.delete(removal.image_key(sha256))

    assert rules_of(farm) == {(PICTURES, file["id"])}


def verify(farm) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "cli.main", "db", "verify"]
    return subprocess.run(
        argv, env=environment(farm.settings), cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_whoever_runs_the_farm_can_ask(farm):
    video_id = done(farm)
    assert verify(farm).returncode == 0

    farm.storage.delete(f"videos/{video_id}/1/video.mp4")

    said = verify(farm)
    assert said.returncode == 1
    assert said.stdout.startswith(f"{video_id}: videos/{video_id}/1/video.mp4 is not there.")


def test_a_file_that_belongs_to_nobody_is_found(farm):
    done(farm)
    farm.storage.put_bytes(b"mp4", "videos/video_0000/1/video.mp4")

    assert rules_of(farm) == {(STRAYS, "videos/video_0000")}


def test_every_rule_has_something_that_breaks_it():
    planted = test_what_breaks_a_rule_is_found_by_name.pytestmark[0].args[1]

    assert {rule for _, rules in planted for rule in rules} == set(RULES)
