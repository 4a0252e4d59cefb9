"""The ledger as pages and as a stream that resumes without a gap."""

import json
import threading
from collections.abc import Iterator

import pytest

from api.plumbing.runtime import EXTENSION
from shared.machinery.settings import Settings
from tests.api.callers import Caller, Hand

SSE = {"Accept": "text/event-stream"}


def messages(chunks: Iterator[bytes]) -> list[tuple[int | None, str, dict]]:
    """Read a whole stream: id, event and data of each message."""
    text = b"".join(chunks).decode()
    assert text.startswith("retry: 2000\n\n")
    found = []
    for block in text.split("\n\n")[1:]:
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ":" in line[1:])
        if "event" in lines:
            number = int(lines["id"]) if "id" in lines else None
            found.append((number, lines["event"], json.loads(lines["data"])))
    return found


def run(hand: Hand, steps: int = 5) -> None:
    claimed = hand.claim()
    for step in range(1, steps + 1):
        hand.step(claimed, step)
    hand.complete(claimed)


def test_a_page_tells_what_happened_in_order(api: Caller, hand: Hand):
    video_id = api.make()["id"]
    run(hand)

    first = api.get(f"/v1/videos/{video_id}/events?limit=3").json
    rest = api.get(f"/v1/videos/{video_id}/events?after={first['last_id']}").json

    events = first["data"] + rest["data"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [event["id"] for event in events] == list(range(1, 9))
    assert [event["type"] for event in events] == ["state"] * 2 + ["step"] * 5 + ["state"]
    assert events[1] | {"at": 0} == {
        "id": 2, "type": "state", "video_id": video_id, "at": 0, "attempt": 1,
        "from": "queued", "to": "in_progress", "group": "g0",
    }  # fmt: skip


def test_a_stream_follows_a_video_from_snapshot_to_end(api: Caller, hand: Hand):
    video_id = api.make()["id"]
    threading.Timer(0.3, run, [hand]).start()

    stream = api.get(f"/v1/videos/{video_id}/events", headers=SSE)
    told = messages(stream.response)

    assert stream.headers["Cache-Control"] == "no-store"
    assert stream.headers["X-Accel-Buffering"] == "no"
    assert told[0][:2] == (1, "snapshot")
    assert told[0][2]["id"] == video_id
    assert [number for number, _, _ in told] == [1, 2, 3, 4, 5, 6, 7, 8, None]
    assert told[-1][1:] == ("end", {"status": "completed"})


@pytest.mark.parametrize("seen", range(8))
def test_a_stream_resumes_exactly_after_what_was_seen(api: Caller, hand: Hand, seen):
    video_id = api.make()["id"]
    run(hand)

    headers = SSE | {"Last-Event-ID": str(seen)}
    told = messages(api.get(f"/v1/videos/{video_id}/events", headers=headers).response)

    assert [number for number, _, _ in told] == [*range(seen + 1, 9), None]
    assert all(event != "snapshot" for _, event, _ in told)


def test_a_stream_past_the_end_is_told_to_stop(api: Caller, hand: Hand):
    video_id = api.make()["id"]
    run(hand)

    headers = SSE | {"Last-Event-ID": "8"}
    answer = api.get(f"/v1/videos/{video_id}/events", headers=headers)

    assert (answer.status_code, answer.data) == (204, b"")


def test_an_id_that_is_none_is_refused(api: Caller):
    headers = SSE | {"Last-Event-ID": "x"}
    answer = api.get(f"/v1/videos/{api.make()['id']}/events", headers=headers)

    assert (answer.status_code, answer.json["error"]["code"]) == (400, "invalid_header")


def test_a_stream_ends_when_its_video_is_deleted(api: Caller):
    video_id = api.make()["id"]
    threading.Timer(0.3, api.delete, [f"/v1/videos/{video_id}"]).start()

    told = messages(api.get(f"/v1/videos/{video_id}/events", headers=SSE).response)

    assert told[0][1] == "snapshot"


def test_places_for_streams_are_limited_and_given_back(api: Caller, farm):
    path = f"/v1/videos/{api.make()['id']}/events"
    limit = farm.settings.max_streams_per_key

    streams = [api.get(path, headers=SSE) for _ in range(limit)]
    refused = api.get(path, headers=SSE)
    waits = api.get(f"{path.removesuffix('/events')}?wait=30")
    streams[0].close()
    taken = api.get(path, headers=SSE)

    assert (refused.status_code, refused.json["error"]["code"]) == (429, "stream_limit")
    assert refused.headers["Retry-After"] == "5"
    assert "Preference-Applied" not in waits.headers
    assert taken.status_code == 200
    for stream in [*streams, taken]:
        stream.close()


def test_a_stream_beyond_the_places_of_a_process_is_refused_before_its_key_is_read(
    app, farm, api: Caller
):
    hub = app.extensions[EXTENSION].hub
    path = f"/v1/videos/{api.make()['id']}/events"
    held = [hub.hold(f"key {number}") for number in range(farm.settings.max_streams)]

    refused = app.test_client().get(path, headers=SSE)
    page = api.get(path)
    held[0].release()
    nameless = app.test_client().get(path, headers=SSE)

    assert (refused.status_code, refused.json["error"]["code"]) == (503, "too_many_streams")
    assert 5 <= int(refused.headers["Retry-After"]) <= 15
    assert page.status_code == 200
    assert nameless.status_code == 401


class TestWithoutRedis:
    """Nothing listens where Redis should be."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"})

    def test_a_stream_is_told_all_the_same(self, api: Caller, hand: Hand):
        video_id = api.make()["id"]
        threading.Timer(0.2, run, [hand]).start()

        told = messages(api.get(f"/v1/videos/{video_id}/events", headers=SSE).response)

        assert [number for number, _, _ in told] == [*range(1, 9), None]


def heard(stream, make) -> list[dict]:
    """What a live feed tells first, while somebody makes videos again and again."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.1):
            make()

    maker = threading.Thread(target=go_on)
    maker.start()
    try:
        said = (chunk.decode() for chunk in stream.response)
        lines = next(text for text in said if text.startswith("event: state"))
    finally:
        over.set()
        maker.join()
        stream.close()
    return json.loads(lines.split("data: ", 1)[1])


def test_the_live_feed_tells_of_the_tenants_videos_alone(
    api: Caller, stranger: Caller, admin: Caller
):
    def make() -> None:
        stranger.make()
        api.make()

    ours = heard(api.get("/v1/events", headers=SSE), make)
    anyones = heard(admin.get("/v1/events", headers=SSE), stranger.make)

    assert (ours["from"], ours["to"]) == (None, "queued")
    assert api.get(f"/v1/videos/{ours['video_id']}").status_code == 200
    assert api.get(f"/v1/videos/{anyones['video_id']}").status_code == 404


def test_the_live_feed_has_no_pages(api: Caller):
    refused = api.get("/v1/events")

    assert (refused.status_code, refused.json["error"]["param"]) == (400, "Accept")
