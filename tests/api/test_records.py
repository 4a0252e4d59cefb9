"""How a video was made, and its log."""

import pytest

from tests.api.callers import Caller, Hand


def test_a_finished_video_tells_how_it_was_made(api: Caller, finished: str):
    video = api.get(f"/v1/videos/{finished}").json

    told = api.get(video["urls"]["provenance"].removeprefix("http://localhost")).json

    assert (told["id"], told["prompt"], told["spec"]) == (finished, video["prompt"], video["spec"])
    assert told["manifest"] == video["provenance"]
    assert told["result"] == video["result"]
    assert [one["outcome"] for one in told["attempts"]] == ["completed"]


def test_an_unfinished_video_has_not_been_made_in_any_way(api: Caller):
    waiting, stopped = api.make(), api.make()
    api.post(f"/v1/videos/{stopped['id']}/cancel")

    early = api.get(f"/v1/videos/{waiting['id']}/provenance")
    never = api.get(f"/v1/videos/{stopped['id']}/provenance")

    assert (early.status_code, early.json["error"]["code"]) == (409, "video_not_ready")
    assert (never.status_code, never.json["error"]["code"]) == (410, "content_gone")


def test_the_log_is_the_ledger_a_line_an_event(api: Caller, hand: Hand):
    video = api.make()
    claim = hand.claim()
    hand.step(claim, 3)
    hand.complete(claim)
    path = f"/v1/videos/{video['id']}/log"

    whole, tail = api.get(path), api.get(f"{path}?tail=2")

    lines = whole.text.splitlines()
    assert whole.mimetype == "text/plain"
    assert len(lines) == len(api.get(f"/v1/videos/{video['id']}/events").json["data"])
    assert lines[0].endswith(" attempt=0 state to=queued from=null")
    assert " attempt=1 step step=3 steps=20" in lines[2]
    assert tail.text.splitlines() == lines[-2:]


@pytest.mark.parametrize("kind", ["provenance", "log"])
def test_nobody_reads_anothers_records(stranger: Caller, finished: str, kind):
    refused = stranger.get(f"/v1/videos/{finished}/{kind}")

    assert (refused.status_code, refused.json["error"]["code"]) == (404, "video_not_found")
