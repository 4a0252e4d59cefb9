"""The read side: what one party sees of its videos, in which order, and the farm in numbers."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from bench.claim import fill
from shared.jobs import board, lifecycle, queries, running
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.states import VideoState
from tests.services.jobs import (
    DIED,
    OTHER_MODEL,
    RESULT,
    ago,
    claimed,
    completed,
    edit,
    row,
    submit,
)

LOW = {"guidance_low": None, "boundary": None, "model": OTHER_MODEL}


def ids(farm, limit=100, after=None, ascending=False, **narrow) -> list[str]:
    which = queries.Filter(**{"tenant": None} | narrow)
    page = queries.page(farm, which, limit=limit, after=after, ascending=ascending)
    return [found["id"] for found in page.rows]


def test_a_video_is_read_with_its_attempts_and_only_by_its_tenant(farm):
    video_id = completed(farm, tenant="one")

    assert [a["number"] for a in queries.one(farm, video_id, "one")["attempts"]] == [1]
    assert queries.one(farm, video_id, None)["id"] == video_id
    assert queries.one(farm, video_id, "two") is None
    assert queries.one(farm, "video_0000", None) is None


def test_a_page_is_newest_first_and_says_whether_more_follow(farm):
    first, second, third = (submit(farm) for _ in range(3))

    page = queries.page(farm, queries.Filter(tenant=None), limit=2)

    assert ([found["id"] for found in page.rows], page.has_more) == ([third, second], True)
    assert ids(farm, after=second) == [first]
    assert ids(farm, after=first) == []
    assert ids(farm, after=first, ascending=True) == [second, third]


def test_a_cursor_still_works_when_its_video_is_gone(farm):
    first, second, third = (submit(farm) for _ in range(3))
    edit(farm, second, delete_requested_at=ago(0))

    assert ids(farm) == [third, first]
    assert ids(farm, after=second) == [first]


@pytest.mark.parametrize(
    "narrow",
    [
        {"tenant": "one"},
        {"states": [VideoState.FAILED, VideoState.IN_PROGRESS]},
        {"model": OTHER_MODEL},
        {"group": "g0"},
        {"key_name": "studio"},
        {"text": "SNOW 100%"},
        {"metadata": {"shot": "7"}},
    ],
    ids=lambda narrow: next(iter(narrow)),
)
def test_a_list_is_narrowed_by(farm, narrow):
    wanted = claimed(
        farm,
        tenant="one",
        key_name="studio",
        prompt="fresh snow 100% white",
        metadata={"shot": "7", "take": "2"},
        **LOW,
    ).fence.video_id
    submit(farm, tenant="two", prompt="snow 1000", metadata={"shot": "8"})

    assert ids(farm, **narrow) == [wanted]


def test_videos_that_ended_with_an_error_are_found_by_its_code(farm):
    lost, hung = claimed(farm), claimed(farm)
    for one, code in ((lost, "worker_lost"), (hung, "engine_hung")):
        edit(farm, one.fence.video_id, state="failed", completed_at=ago(0), lease_until=None,
             error={"code": code, "message": "It ended.", "attempt": 1})  # fmt: skip
    stopped = submit(farm)
    lifecycle.cancel(farm, stopped, by="a person")

    assert ids(farm, error="worker_lost") == [lost.fence.video_id]
    assert ids(farm, error="cancelled") == [stopped]
    assert ids(farm, error="engine_hung", states=[VideoState.COMPLETED]) == []


def test_a_list_is_narrowed_by_time_of_creation(farm):
    old, new = submit(farm), submit(farm)
    edit(farm, old, created_at=ago(3600))
    between = row(farm, new)["created_at"] - timedelta(minutes=30)

    assert ids(farm, created_after=between) == [new]
    assert ids(farm, created_before=between) == [old]


def test_the_place_in_the_queue_counts_its_model_by_priority_then_age(farm):
    first, urgent, last = submit(farm), submit(farm, priority=2), submit(farm)
    submit(farm, **LOW)

    places = [queries.place(farm, row(farm, video_id)) for video_id in (first, urgent, last)]

    assert places == [2, 1, 3]


def test_events_are_read_from_any_number_on(farm):
    fence = claimed(farm).fence
    running.report(farm, fence, "step", {"step": 1, "steps": 2}, {"progress": 40})

    lines = queries.events(farm, fence.video_id, after=1)

    assert [(line["id"], line["type"], line["attempt"]) for line in lines] == [
        (2, "state", 1),
        (3, "step", 1),
    ]
    assert (lines[0]["from"], lines[0]["to"], lines[0]["group"]) == ("queued", "in_progress", "g0")
    assert (lines[1]["step"], lines[1]["video_id"]) == (1, fence.video_id)
    assert [line["id"] for line in queries.events(farm, fence.video_id, limit=1)] == [1]


def test_the_standing_of_a_video_tells_whether_it_moved_on(farm):
    video_id = submit(farm)
    before = queries.standing(farm, video_id)

    lifecycle.cancel(farm, video_id, by="a person")

    after = queries.standing(farm, video_id)
    assert (before.seq, before.is_over) == (1, False)
    assert (after.seq, after.state, after.is_over) == (2, VideoState.CANCELLED, True)
    assert queries.standing(farm, "video_0000") is None


def test_the_board_counts_what_is_live_and_what_ended_lately(farm):
    done, old = completed(farm, tenant="one"), completed(farm, tenant="one")
    edit(farm, done, started_at=ago(50), completed_at=ago(40))
    edit(farm, old, started_at=ago(7220), completed_at=ago(7200))
    failing = claimed(farm, tenant="two", max_attempts=1)
    lifecycle.give_back(farm, failing, DIED)
    claimed(farm, tenant="two")
    edit(farm, submit(farm, tenant="one"), created_at=ago(100))

    of_all, of_one = board.read(farm, None), board.read(farm, "one")

    assert (of_all.queued, of_all.in_progress) == (1, 1)
    assert (of_all.completed_1h, of_all.failed_24h) == (1, 1)
    assert (of_all.run_p50_s, of_all.oldest_queued_s) == (15, pytest.approx(100, abs=10))
    assert (of_one.in_progress, of_one.failed_24h) == (0, 0)


def test_an_empty_farm_has_an_empty_board(farm):
    assert board.read(farm, None) == board.Board([], 0, 0, None, None)


def test_gpu_seconds_count_every_ended_attempt_on_all_its_ranks(farm):
    claim = claimed(farm)
    lifecycle.complete(farm, claim.fence, RESULT, {})
    (attempt,) = row(farm, claim.fence.video_id)["attempts"]
    began = attempt["claimed_at"]
    ended = attempt | {"ended_at": began + timedelta(seconds=10), "ranks": 2}
    running = attempt | {"ended_at": None}

    assert queries.gpu_seconds([ended, running]) == 20.0
    assert queries.gpu_seconds([ended, ended]) == 40.0


@pytest.mark.parametrize("state", VideoState)
def test_a_row_is_over_when_its_state_is_final(state):
    assert queries.is_over(state.value) is state.is_final


def test_a_search_that_takes_too_long_names_what_it_searched_for(farm):
    fill(farm.settings.database_url, finished=5_000, waiting=0, tenants=1)
    with farm.db.connect() as db:
        db.execute(text("SET statement_timeout = 1"))  # ms; the pool gives this connection again

    with pytest.raises(WanfarmError) as refused:
        queries.page(farm, queries.Filter(tenant=None, text="zebra"), limit=100)

    assert (refused.value.code, refused.value.param) == ("search_too_wide", "q")
