"""People close the doors of the queue: nothing is taken in, or nothing is started."""

import pytest

from shared.jobs import lifecycle, pauses, tick
from shared.vocabulary.errors import WanfarmError
from tests.services.jobs import MODEL, OFFER, row, submit


def test_with_the_intake_closed_a_video_is_refused_with_the_reason(farm):
    pauses.close(farm, ("intake",), by="ops", reason="moving house")

    with pytest.raises(WanfarmError) as refused:
        submit(farm)

    assert (refused.value.code, refused.value.retry_after_s) == ("intake_paused", 60)
    assert "moving house" in refused.value.message
    pauses.reopen(farm, ("intake",))
    assert row(farm, submit(farm))["state"] == "queued"


def test_a_video_that_was_taken_before_is_found_again_all_the_same(farm):
    keyed = {"idempotency_key": "k", "fingerprint": "f"}
    first = submit(farm, **keyed)

    pauses.close(farm, pauses.DOORS, by="ops")

    assert submit(farm, **keyed) == first


def test_with_the_dispatch_closed_videos_wait_and_what_runs_goes_on(farm):
    submit(farm)
    running = lifecycle.claim(farm, OFFER)
    waiting = submit(farm)

    pauses.close(farm, ("dispatch",), by="ops")

    assert lifecycle.claim(farm, OFFER) is None
    assert tick.due_by_model(farm).get(MODEL, 0) == 0
    lifecycle.complete(farm, running.fence, {"files": {}}, {})
    pauses.reopen(farm, ("dispatch",))
    assert tick.due_by_model(farm)[MODEL] == 1
    assert lifecycle.claim(farm, OFFER).fence.video_id == waiting


def test_the_newest_reason_counts(farm):
    pauses.close(farm, pauses.DOORS, by="ops", reason="one")
    pauses.close(farm, ("intake",), by="night", reason="two")

    told = [(one["what"], one["by"], one["reason"]) for one in pauses.closed(farm)]
    assert told == [("dispatch", "ops", "one"), ("intake", "night", "two")]
