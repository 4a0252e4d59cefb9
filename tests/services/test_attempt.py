"""A parent's attempts with real ranks and a fake engine: outages, losses, leaving, bad disks."""

import threading

from psycopg import sql

from shared.jobs import lifecycle, running
from shared.vocabulary.states import GroupState
from tests.services.jobs import (
    OFFER,
    edit,
    let_lease_expire,
    row,
    states_of,
    submit,
    take,
)

LONG = {"prompt": "wait", "steps": 40}  # two seconds


def step_of(farm, video_id: str) -> int:
    return (row(farm, video_id)["detail"] or {}).get("step", 0)


def admit(services, farm, *, yes: bool) -> None:
    """Let connections to the farm's database in, or end them all."""
    name = farm.db.url.database
    with services.admin() as admin:
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        admin.execute(allow.format(sql.Identifier(name), sql.Literal(yes)))
        if not yes:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            admin.execute(ended, (name,))


def test_a_render_outlives_an_outage_of_postgres_that_covers_its_end(
    farm, services, parent, eventually
):
    video_id = submit(farm, **LONG)
    parent.keeper.start()
    parent.thread.start()
    eventually(lambda: step_of(farm, video_id) > 1, within=30)

    admit(services, farm, yes=False)
    threading.Event().wait(3)  # the render ends meanwhile; a lease is six seconds
    admit(services, farm, yes=True)

    parent.thread.join(30)
    assert states_of(farm, video_id) == ["queued", "in_progress", "completed"]


def test_an_attempt_that_lost_its_row_stops_its_ranks_before_the_next_job(farm, parent, eventually):
    lost = submit(farm, **LONG | {"steps": 100})
    parent.thread.start()
    eventually(lambda: step_of(farm, lost) > 1, within=30)

    def is_rescued() -> bool:  # the parent may renew its lease in between
        let_lease_expire(farm, lost)
        return lifecycle.rescue(farm) > 0

    eventually(is_rescued)
    other = take(farm)
    waiting = submit(farm)
    parent.thread.join(30)

    assert row(farm, waiting)["state"] == "completed"
    assert [attempt["kind"] for attempt in row(farm, waiting)["attempts"]] == [None]
    assert running.renew(farm, other.fence) is False


def test_a_worker_that_leaves_during_a_load_hands_the_job_back(
    farm, parent, checkpoint, eventually
):
    (checkpoint / "go").unlink()
    video_id = submit(farm, **LONG)
    parent.thread.start()
    eventually(lambda: parent.runner.reading().condition is GroupState.LOADING, within=30)

    parent.runner.leave()
    parent.runner.hand_back()
    (checkpoint / "go").touch()

    parent.thread.join(30)
    back = row(farm, video_id)
    assert (back["state"], back["attempts_left"]) == ("queued", 3)
    assert back["attempts"][0]["outcome"] == "drained"


def test_a_cancel_during_a_load_ends_the_video_before_its_first_step(
    farm, parent, checkpoint, eventually
):
    (checkpoint / "go").unlink()
    video_id = submit(farm, **LONG)
    parent.keeper.start()
    parent.thread.start()
    eventually(lambda: parent.runner.reading().condition is GroupState.LOADING, within=30)

    lifecycle.cancel(farm, video_id, by="a person")
    (checkpoint / "go").touch()

    parent.thread.join(30)
    assert states_of(farm, video_id) == ["queued", "in_progress", "cancelled"]


def test_a_deadline_that_passes_during_a_load_is_kept(farm, parent, checkpoint, eventually):
    (checkpoint / "go").unlink()
    video_id = submit(farm, finish_within_s=2, **LONG | {"steps": 100})
    parent.keeper.start()
    parent.thread.start()
    eventually(lambda: [h for h in parent.keeper._held.values() if h.asked], within=30)

    (checkpoint / "go").touch()

    parent.thread.join(30)
    assert row(farm, video_id)["error"]["code"] == "deadline_missed"


def test_a_failed_attempt_of_a_running_parent_is_followed_by_another(farm, parent):
    video_id = submit(farm, prompt="die", max_attempts=2)

    parent.work()
    edit(farm, video_id, run_after=row(farm, video_id)["created_at"])
    parent.work()

    messages = [attempt["message"] for attempt in row(farm, video_id)["attempts"]]
    assert messages == ["Rank 0 died (exit code 9)."] * 2
    assert lifecycle.claim(farm, OFFER) is None


def test_a_video_that_ran_out_of_memory_is_tried_again_one_rung_down(farm, start):
    video_id, parent = submit(farm), start("Crowded")

    parent.work()
    edit(farm, video_id, run_after=row(farm, video_id)["created_at"])
    parent.work()

    first, second = row(farm, video_id)["attempts"]
    assert (first["kind"], first["outcome"]) == ("out_of_memory", "requeued")
    assert second["outcome"] == "completed"
    away = [one["plan"]["residency"]["text_encoder"] for one in (first, second)]
    assert away == [False, True]


def test_running_out_of_memory_twice_fails_the_video_and_not_its_worker(farm, parent):
    video_id, other = submit(farm, prompt="memory"), submit(farm)

    parent.work()
    edit(farm, video_id, run_after=row(farm, video_id)["created_at"])
    parent.work()

    assert row(farm, video_id)["error"]["code"] == "out_of_memory"
    assert len(row(farm, video_id)["attempts"]) == 2
    assert row(farm, other)["state"] == "completed"


def test_a_video_that_is_too_large_for_its_group_is_refused_before_it_runs(farm, start):
    video_id, parent = submit(farm), start("Tiny")

    parent.work()

    failed = row(farm, video_id)
    assert failed["error"]["code"] == "does_not_fit"
    assert "A GPU here has 1.0 GB." in failed["error"]["message"]
    assert failed["attempts_left"] == 2
    assert parent.ranks.alive
