"""What becomes of an attempt that went wrong, was lost, or may not go on."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from shared.jobs import lifecycle, running
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.retry import MAX_LOSSES
from shared.vocabulary.spec import FailureKind
from tests.services.jobs import (
    DIED,
    OFFER,
    RESULT,
    ago,
    claimed,
    edit,
    let_back_off_pass,
    let_lease_expire,
    row,
    states_of,
    submit,
    take,
    uptime_s,
)

# kind, what becomes of the video, attempts left of three, least back-off in seconds
AFTER_THE_FIRST = [
    (FailureKind.BAD_INPUT, "failed", 2, 0),
    (FailureKind.BAD_CHECKPOINT, "failed", 2, 0),
    (FailureKind.BAD_LORA, "failed", 2, 0),
    (FailureKind.TIMEOUT, "failed", 2, 0),
    (FailureKind.DEADLINE, "failed", 2, 0),
    (FailureKind.DOES_NOT_FIT, "failed", 2, 0),
    (FailureKind.OUT_OF_MEMORY, "queued", 2, 0.5),
    (FailureKind.INTERNAL, "queued", 2, 0.5),
    (FailureKind.CUDA_ERROR, "queued", 2, 0.5),
    (FailureKind.COLLECTIVE, "queued", 2, 0.5),
    (FailureKind.RANK_DIED, "queued", 2, 0.5),
    (FailureKind.HANG, "queued", 2, 0.5),
    (FailureKind.NON_FINITE, "queued", 2, 0.5),
    (FailureKind.STORAGE, "queued", 2, 0.5),
    (FailureKind.LOST, "queued", 3, 0),
]


def test_the_table_below_has_every_kind():
    assert {kind for kind, *_ in AFTER_THE_FIRST} == set(FailureKind)


@pytest.mark.parametrize(("kind", "state", "left", "wait_s"), AFTER_THE_FIRST)
def test_a_first_failure_of_each_kind(farm, kind, state, left, wait_s):
    claim = claimed(farm)
    video_id = claim.fence.video_id

    assert lifecycle.give_back(farm, claim, JobFailure(kind, "It broke.")) == state

    after = row(farm, video_id)
    assert (after["state"], after["attempts_left"]) == (state, left)
    (attempt,) = after["attempts"]
    assert (attempt["kind"], attempt["message"]) == (kind, "It broke.")
    assert attempt["outcome"] == ("failed" if state == "failed" else "requeued")
    if state == "failed":
        assert after["error"]["code"] == JobFailure(kind, "").code
    else:
        backs_off_s = (after["run_after"] - attempt["ended_at"]).total_seconds()
        assert wait_s / 2 <= backs_off_s <= wait_s


def test_a_video_that_backs_off_is_not_claimed_before_its_time(farm):
    claim = claimed(farm)
    lifecycle.give_back(farm, claim, DIED)
    edit(farm, claim.fence.video_id, run_after=ago(-60))

    assert lifecycle.claim(farm, OFFER) is None

    let_back_off_pass(farm, claim.fence.video_id)
    assert take(farm).fence.attempt == 2


@pytest.mark.parametrize("kind", [FailureKind.OUT_OF_MEMORY, FailureKind.INTERNAL])
def test_the_second_failure_of_a_hopeless_kind_ends_the_video(farm, kind):
    claim = claimed(farm, max_attempts=5)
    lifecycle.give_back(farm, claim, JobFailure(kind, "Again."))
    let_back_off_pass(farm, claim.fence.video_id)

    assert lifecycle.give_back(farm, take(farm), JobFailure(kind, "Again.")) == "failed"


def test_without_attempts_left_a_failure_is_final(farm):
    claim = claimed(farm, max_attempts=1)

    assert lifecycle.give_back(farm, claim, DIED) == "failed"

    error = row(farm, claim.fence.video_id)["error"]
    assert error == {"code": "engine_crashed", "message": DIED.message, "attempt": 1}


def test_a_lease_that_ran_out_puts_the_video_back_uncharged(farm):
    video_id = claimed(farm).fence.video_id
    let_lease_expire(farm, video_id)

    assert lifecycle.rescue(farm) == 1

    back = row(farm, video_id)
    assert states_of(farm, video_id) == ["queued", "in_progress", "queued"]
    assert (back["attempts_left"], back["group_name"], back["lease_until"]) == (3, None, None)
    assert back["attempts"][0]["kind"] == "lost"
    assert take(farm).fence.attempt == 2


def test_a_renewed_lease_is_left_alone(farm):
    first, second = claimed(farm).fence, claimed(farm).fence
    let_lease_expire(farm, first.video_id)
    let_lease_expire(farm, second.video_id)
    running.renew(farm, second)

    assert lifecycle.rescue(farm) == 1

    assert row(farm, first.video_id)["state"] == "queued"
    assert row(farm, second.video_id)["state"] == "in_progress"


def test_a_postgres_that_has_just_started_counts_nobody_as_lost(farm):
    claim = claimed(farm)
    let_lease_expire(farm, claim.fence.video_id)
    patient = farm.settings.model_copy(update={"lease_s": uptime_s(farm) + 600})

    assert lifecycle.rescue(replace(farm, settings=patient)) == 0

    assert row(farm, claim.fence.video_id)["state"] == "in_progress"
    lifecycle.complete(farm, claim.fence, RESULT, {})


def test_a_video_whose_workers_vanish_four_times_is_given_up(farm):
    video_id = submit(farm, max_attempts=1)
    for _ in range(MAX_LOSSES):
        assert row(farm, video_id)["state"] == "queued"
        take(farm)
        let_lease_expire(farm, video_id)
        lifecycle.rescue(farm)

    poison = row(farm, video_id)
    assert (poison["state"], poison["error"]["code"]) == ("failed", "worker_lost")
    assert [attempt["number"] for attempt in poison["attempts"]] == [1, 2, 3, 4]


def test_handing_a_video_back_costs_no_attempt_and_is_no_loss(farm):
    video_id = submit(farm, max_attempts=1)
    for _ in range(MAX_LOSSES + 1):
        lifecycle.requeue_uncharged(farm, take(farm).fence, "The worker is leaving.")

    take(farm)
    let_lease_expire(farm, video_id)
    lifecycle.rescue(farm)

    back = row(farm, video_id)
    assert (back["state"], back["attempts_left"]) == ("queued", 1)
    assert {attempt["outcome"] for attempt in back["attempts"][:-1]} == {"drained"}


def test_a_parent_that_comes_back_takes_over_what_its_group_held_and_no_more(farm):
    mine = claimed(farm).fence.video_id
    submit(farm)
    other = take(farm, replace(OFFER, group="g1")).fence.video_id

    assert lifecycle.take_over(farm, "g0") == 1

    assert row(farm, mine)["state"] == "queued"
    assert row(farm, other)["state"] == "in_progress"


@pytest.mark.parametrize("field", ["start_by", "finish_by"])
def test_a_deadline_that_passes_in_the_queue_ends_the_video(farm, field):
    late, early = submit(farm), submit(farm, start_within_s=600, finish_within_s=600)
    edit(farm, late, **{field: ago(1)})

    assert lifecycle.expire_deadlines(farm) == 1

    assert states_of(farm, late) == ["queued", "cancelled"]
    assert row(farm, late)["error"]["code"] == "deadline_missed"
    assert row(farm, early)["state"] == "queued"


def test_the_deadline_of_a_running_video_is_its_parents_affair(farm):
    claim = claimed(farm, finish_within_s=600)
    assert 590 < claim.finish_in_s <= 600
    edit(farm, claim.fence.video_id, finish_by=ago(1))

    assert lifecycle.expire_deadlines(farm) == 0

    assert row(farm, claim.fence.video_id)["state"] == "in_progress"


def test_many_rescuers_at_once_end_an_attempt_once(farm):
    video_id = claimed(farm).fence.video_id
    let_lease_expire(farm, video_id)
    start = threading.Barrier(8)

    def one(_: int) -> int:
        start.wait()
        return lifecycle.rescue(farm)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(8))) == 1

    assert states_of(farm, video_id) == ["queued", "in_progress", "queued"]
