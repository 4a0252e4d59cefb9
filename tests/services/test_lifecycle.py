"""The moves of a video: who may make them, what each leaves behind, and that no other exists."""

import itertools
import threading

import pytest

from shared.jobs import lifecycle, running
from shared.jobs.ledger import Write, move
from shared.vocabulary.errors import StaleAttempt, WanfarmError
from shared.vocabulary.states import MOVES, VideoState
from tests.services.jobs import (
    DIED,
    OFFER,
    RESULT,
    claimed,
    completed,
    everything,
    let_back_off_pass,
    let_lease_expire,
    row,
    seconds_until,
    states_of,
    submit,
    take,
)

PAIRS = list(itertools.product(VideoState, VideoState))


def in_state(farm, state: VideoState) -> str:
    if state is VideoState.QUEUED:
        return submit(farm)
    if state is VideoState.COMPLETED:
        return completed(farm)
    claim = claimed(farm, max_attempts=1)
    if state is VideoState.FAILED:
        lifecycle.give_back(farm, claim, DIED)
    if state is VideoState.CANCELLED:
        lifecycle.cancelled(farm, claim.fence)
    return claim.fence.video_id


def test_a_video_goes_from_the_queue_to_its_result(farm):
    video_id = submit(farm)
    claim = take(farm)

    lifecycle.complete(farm, claim.fence, RESULT, {"pattern": {}})

    done = row(farm, video_id)
    assert states_of(farm, video_id) == ["queued", "in_progress", "completed"]
    assert (done["result"], done["progress"], done["lease_until"]) == (RESULT, 100, None)
    assert done["started_at"] <= done["completed_at"] < done["expires_at"]
    (attempt,) = done["attempts"]
    assert (attempt["outcome"], attempt["report"]) == ("completed", {"pattern": {}})
    assert attempt["ended_at"] is not None


@pytest.mark.parametrize("old", VideoState)
def test_a_move_outside_the_table_is_refused(farm, old):
    video_id = in_state(farm, old)

    for new in set(VideoState) - MOVES[old]:
        with pytest.raises(AssertionError, match=f"{old} -> {new}"):
            move(farm, video_id, old, new, Write())

    assert row(farm, video_id)["state"] == old


@pytest.mark.parametrize("state", VideoState)
def test_a_move_from_a_state_the_video_is_not_in_writes_nothing(farm, state):
    video_id = in_state(farm, state)
    before = everything(farm)

    for old, new in PAIRS:
        if new in MOVES[old] and old != state:
            assert move(farm, video_id, old, new, Write()) is None

    assert everything(farm) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda farm, claim: running.report(farm, claim.fence, "step", {}, {"progress": 9}),
        lambda farm, claim: running.renew(farm, claim.fence),
        lambda farm, claim: lifecycle.complete(farm, claim.fence, RESULT, {}),
        lambda farm, claim: lifecycle.give_back(farm, claim, DIED),
        lambda farm, claim: lifecycle.requeue_uncharged(farm, claim.fence, "leaving"),
    ],
    ids=["report", "renew", "complete", "give_back", "requeue_uncharged"],
)
@pytest.mark.parametrize("by_now", ["queued", "claimed anew", "cancelled", "completed by another"])
def test_a_late_attempt_is_refused_and_writes_nothing(farm, write, by_now):
    late = claimed(farm)
    let_lease_expire(farm, late.fence.video_id)
    lifecycle.rescue(farm)
    if by_now == "cancelled":
        lifecycle.cancel(farm, late.fence.video_id, by="a person")
    elif by_now != "queued":
        second = take(farm)
        if by_now == "completed by another":
            lifecycle.complete(farm, second.fence, RESULT, {})
    before = everything(farm)

    with pytest.raises(StaleAttempt):
        write(farm, late)

    assert everything(farm) == before


def test_a_late_attempt_that_stopped_does_not_cancel_the_next_one(farm):
    late = claimed(farm)
    let_lease_expire(farm, late.fence.video_id)
    lifecycle.rescue(farm)
    take(farm)

    assert lifecycle.cancelled(farm, late.fence, step=3) is False

    assert row(farm, late.fence.video_id)["state"] == "in_progress"


def test_completing_again_after_a_lost_answer_is_fine(farm):
    claim = claimed(farm)
    lifecycle.complete(farm, claim.fence, RESULT, {})
    before = everything(farm)

    lifecycle.complete(farm, claim.fence, RESULT, {})

    assert everything(farm) == before


def test_a_report_tells_how_far_it_is_and_renews_the_lease(farm):
    fence = claimed(farm).fence
    let_lease_expire(farm, fence.video_id)
    detail = {"phase": "denoise", "step": 1}

    asked = running.report(farm, fence, "step", {"step": 1}, {"progress": 40, "detail": detail})

    assert asked is False
    told = row(farm, fence.video_id)
    assert (told["progress"], told["detail"], told["seq"]) == (40, detail, 3)
    assert seconds_until(farm, fence.video_id, "lease_until") > farm.settings.lease_s - 2


def test_renewing_says_whether_a_cancel_is_asked_for(farm):
    fence = claimed(farm).fence

    before = running.renew(farm, fence)
    lifecycle.cancel(farm, fence.video_id, by="a person")

    assert (before, running.renew(farm, fence)) == (False, True)
    assert running.report(farm, fence, "step", {}, {}) is True


def test_a_waiting_video_is_cancelled_at_once_and_is_never_claimed(farm):
    video_id = submit(farm)

    assert lifecycle.cancel(farm, video_id, by="a person", reason="typo") == "cancelled"

    assert lifecycle.claim(farm, OFFER) is None
    gone = row(farm, video_id)
    assert (gone["cancelled_by"], gone["error"]["code"]) == ("a person: typo", "cancelled")
    assert gone["completed_at"] is not None


def test_a_running_video_is_only_asked_to_stop(farm):
    claim = claimed(farm)

    state = lifecycle.cancel(farm, claim.fence.video_id, by="a person")

    assert state == row(farm, claim.fence.video_id)["state"] == "in_progress"
    assert lifecycle.cancelled(farm, claim.fence, step=7) is True
    gone = row(farm, claim.fence.video_id)
    assert gone["error"]["message"] == "The video was cancelled at step 7."
    assert gone["attempts"][0]["outcome"] == "cancelled"


def test_the_first_to_ask_for_a_cancel_is_remembered(farm):
    fence = claimed(farm).fence
    lifecycle.cancel(farm, fence.video_id, by="Ada")
    asked_at = row(farm, fence.video_id)["cancel_requested_at"]

    lifecycle.cancel(farm, fence.video_id, by="Bob")

    asked = row(farm, fence.video_id)
    assert (asked["cancelled_by"], asked["cancel_requested_at"]) == ("Ada", asked_at)


def test_cancelling_a_cancelled_video_again_changes_nothing(farm):
    video_id = in_state(farm, VideoState.CANCELLED)
    before = everything(farm)

    assert lifecycle.cancel(farm, video_id, by="a person") == "cancelled"

    assert everything(farm) == before


@pytest.mark.parametrize("state", [VideoState.COMPLETED, VideoState.FAILED])
def test_what_has_ended_cannot_be_cancelled(farm, state):
    video_id = in_state(farm, state)

    with pytest.raises(WanfarmError, match=f"The video is {state.word}") as refused:
        lifecycle.cancel(farm, video_id, by="a person")

    assert refused.value.code == "not_cancellable"


def test_cancelling_what_is_not_there_says_so(farm):
    with pytest.raises(WanfarmError) as refused:
        lifecycle.cancel(farm, "video_0000", by="a person")

    assert refused.value.code == "video_not_found"


def test_a_finished_render_wins_over_a_cancel_that_came_during_it(farm):
    fence = claimed(farm).fence
    lifecycle.cancel(farm, fence.video_id, by="a person")

    lifecycle.complete(farm, fence, RESULT, {})

    assert lifecycle.cancelled(farm, fence) is False
    assert states_of(farm, fence.video_id)[-1] == "completed"


@pytest.mark.parametrize("round_", range(5))
def test_of_complete_and_cancel_at_once_exactly_one_happens(farm, round_):
    fence = claimed(farm).fence
    lifecycle.cancel(farm, fence.video_id, by="a person")
    start, stale = threading.Barrier(2), []

    def complete():
        start.wait()
        try:
            lifecycle.complete(farm, fence, RESULT, {})
        except StaleAttempt:
            stale.append("complete")

    other = threading.Thread(target=complete)
    other.start()
    start.wait()
    was_cancelled = lifecycle.cancelled(farm, fence)
    other.join(10)

    assert was_cancelled == bool(stale)
    end = "cancelled" if was_cancelled else "completed"
    assert states_of(farm, fence.video_id) == ["queued", "in_progress", end]


@pytest.mark.parametrize(
    "end",
    [
        lambda farm, claim: lifecycle.give_back(farm, claim, DIED),
        lambda farm, claim: lifecycle.requeue_uncharged(farm, claim.fence, "leaving"),
        lambda farm, claim: lifecycle.rescue(farm),
        lambda farm, claim: lifecycle.take_over(farm, "g0"),
    ],
    ids=["give_back", "requeue_uncharged", "rescue", "take_over"],
)
def test_a_cancel_that_was_asked_for_wins_over_another_try(farm, end):
    claim = claimed(farm)
    lifecycle.cancel(farm, claim.fence.video_id, by="a person")
    let_lease_expire(farm, claim.fence.video_id)

    end(farm, claim)

    assert states_of(farm, claim.fence.video_id) == ["queued", "in_progress", "cancelled"]


def test_each_attempt_has_a_number_and_a_row_of_its_own(farm):
    claim = claimed(farm, max_attempts=3)
    video_id = claim.fence.video_id

    for number in (1, 2, 3):
        assert claim.fence.attempt == number
        assert lifecycle.give_back(farm, claim, DIED) == ("failed" if number == 3 else "queued")
        let_back_off_pass(farm, video_id)
        claim = lifecycle.claim(farm, OFFER)

    outcomes = [(a["number"], a["outcome"]) for a in row(farm, video_id)["attempts"]]
    assert outcomes == [(1, "requeued"), (2, "requeued"), (3, "failed")]


def test_the_plan_of_an_attempt_is_kept_with_it(farm):
    fence = claimed(farm).fence

    running.record_plan(farm, fence, {"ranks": 2, "cfg": 2}, {"high": None})

    kept = row(farm, fence.video_id)["attempts"][0]
    assert (kept["plan"], kept["cache"]) == ({"ranks": 2, "cfg": 2}, {"high": None})
