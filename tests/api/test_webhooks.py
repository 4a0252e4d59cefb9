"""Webhooks over HTTP: added, changed, tested, listed, sent again; and whose they are."""

import json
import ssl
from dataclasses import replace

import pytest

from shared.jobs import deliveries
from shared.jobs.deliveries import Answer
from shared.vocabulary.ids import new_id
from tests.api.callers import caller_of
from tests.services.receiver import Receiver
from worker.deliveries import deliver
from worker.outgoing import Sender

URL = "https://hooks.example/farm"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"public_url": "https://farm.example/"})


@pytest.fixture
def hook(api) -> dict:
    return api.post("/v1/webhooks", json={"url": URL}).json


def code_of(answer) -> tuple:
    error = answer.json["error"]
    return answer.status_code, error["code"], error["param"]


def test_a_webhook_is_added_listed_changed_and_removed(api, hook):
    path = f"/v1/webhooks/{hook['id']}"

    assert hook["events"] == ["video.completed", "video.failed", "video.cancelled"]
    assert (hook["object"], hook["url"], hook["enabled"]) == ("webhook", URL, True)
    assert api.get("/v1/webhooks").json["data"] == [hook] == [api.get(path).json]
    changed = api.patch(path, json={"enabled": False, "description": "mine"}).json
    assert changed == hook | {"enabled": False, "description": "mine"}
    assert api.patch(path, json={}).json == changed
    gone = api.delete(path).json
    assert (gone["id"], gone["deleted"]) == (hook["id"], True)
    assert code_of(api.get(path))[:2] == (404, "webhook_not_found")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "url"),
        ({"url": "http://hooks.example/"}, "invalid_value", "url"),
        ({"url": "https://169.254.169.254/"}, "invalid_value", "url"),
        ({"url": URL + "x" * 2048}, "invalid_value", "url"),
        ({"url": URL, "events": []}, "invalid_value", "events"),
        ({"url": URL, "events": ["video.begun"]}, "invalid_value", "events.0"),
        ({"url": URL, "enabled": None}, "invalid_value", "enabled"),
        ({"url": URL, "event": []}, "unknown_field", "event"),
    ],
)
def test_a_faulty_webhook_is_refused_by_field(api, hook, body, code, param):
    assert code_of(api.post("/v1/webhooks", json=body)) == (400, code, param)
    if body:
        changed = api.patch(f"/v1/webhooks/{hook['id']}", json=body)
        assert code_of(changed) == (400, code, param)


def test_a_tenant_has_twenty_webhooks_and_no_more(api, stranger):
    for _ in range(20):
        api.post("/v1/webhooks", json={"url": URL})

    assert code_of(api.post("/v1/webhooks", json={"url": URL})) == (400, "invalid_value", "url")
    assert stranger.post("/v1/webhooks", json={"url": URL}).status_code == 200


def test_a_webhook_belongs_to_its_tenant(api, admin, stranger, hook, hand):
    api.make()
    hand.complete(hand.claim())
    (sent,) = api.get("/v1/webhooks/deliveries").json["data"]
    path, again = f"/v1/webhooks/{hook['id']}", f"/v1/webhooks/deliveries/{sent['id']}/redeliver"

    for answer in (
        stranger.get(path),
        stranger.patch(path, json={"enabled": False}),
        stranger.post(f"{path}/test"),
        stranger.delete(path),
        stranger.post(again),
        api.get(f"/v1/webhooks/{new_id('hook')}"),
        api.get("/v1/webhooks/nonsense"),
    ):
        assert code_of(answer)[:2] == (404, "webhook_not_found")
    for listed in ("/v1/webhooks", "/v1/webhooks/deliveries"):
        assert stranger.get(listed).json["data"] == []
        assert admin.get(listed).json == api.get(listed).json
    assert stranger.get("/v1/webhooks/secret").json != api.get("/v1/webhooks/secret").json


def test_reading_is_not_enough_to_see_webhooks(app, farm):
    reader = caller_of(app, farm, "read")

    for path in ("/v1/webhooks", "/v1/webhooks/secret", "/v1/webhooks/deliveries"):
        assert code_of(reader.get(path))[:2] == (403, "scope_missing")


def test_the_secret_stays_until_it_is_rotated(api):
    first = api.get("/v1/webhooks/secret").json
    rotated = api.post("/v1/webhooks/secret/rotate").json

    assert first["secret"].startswith("whsec_")
    assert (first["former"], first["former_until"]) == (None, None)
    assert rotated["former"] == first["secret"] != rotated["secret"]
    assert rotated == api.get("/v1/webhooks/secret").json


def test_a_webhook_carries_the_video_as_the_api_serves_it(app, api, farm, hand):
    sender = Sender(ssl.create_default_context(), allow_private=True)
    with Receiver() as receiver:
        made = api.make(webhook_url="https://own.example/")
        hand.complete(hand.claim(), {"steps": []})
        deliver(farm, sender, replace(deliveries.claim(farm), url=receiver.url))
    (got,) = receiver.got

    said = got.verify(api.get("/v1/webhooks/secret").json["secret"])

    assert said["data"] == api.get(f"/v1/videos/{made['id']}").json
    assert said["data"]["url"].startswith("https://farm.example/v1/videos/video_")
    link = said["data"]["url"].partition("example")[2]
    assert app.test_client().get(link, buffered=True).status_code == 200
    (one,) = api.get("/v1/webhooks/deliveries").json["data"]
    assert (one["url"], one["webhook_id"]) == ("https://own.example/", None)


def test_the_log_tells_of_each_delivery_and_sends_one_again(api, farm, hook):
    sent = api.post(f"/v1/webhooks/{hook['id']}/test").json
    assert (sent["type"], sent["state"], sent["try"], sent["at"]) == (
        "webhook.test", "pending", 0, None,
    )  # fmt: skip
    deliveries.record(farm, deliveries.claim(farm), Answer(503, 12, "busy"))

    (failed,) = api.get("/v1/webhooks/deliveries?state=pending").json["data"]
    assert (failed["try"], failed["status_code"], failed["latency_ms"]) == (1, 503, 12)
    assert (failed["response_head"], failed["video_id"]) == ("busy", None)
    assert 3 <= failed["next_try_at"] - failed["at"] <= 7

    again = api.post(f"/v1/webhooks/deliveries/{sent['id']}/redeliver").json
    assert again["next_try_at"] >= failed["at"]
    deliveries.record(farm, deliveries.claim(farm), Answer(200, 5))
    (done,) = api.get("/v1/webhooks/deliveries?state=delivered").json["data"]
    assert (done["id"], done["try"], done["next_try_at"]) == (sent["id"], 2, None)


def test_the_log_is_read_in_pages(api, hook):
    ids = [api.post(f"/v1/webhooks/{hook['id']}/test").json["id"] for _ in range(3)]

    first = api.get("/v1/webhooks/deliveries?limit=2").json
    rest = api.get(f"/v1/webhooks/deliveries?limit=2&after={first['last_id']}").json

    assert [one["id"] for one in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    wrong = api.get("/v1/webhooks/deliveries?after=evt_1")
    assert code_of(wrong) == (400, "invalid_cursor", "after")


def test_a_remix_tells_the_address_of_its_own_request_only(api, hand):
    made = api.make(webhook_url="https://own.example/")
    hand.complete(hand.claim())
    api.post(f"/v1/videos/{made['id']}/remix", json={})
    hand.complete(hand.claim())

    told = api.get("/v1/webhooks/deliveries").json["data"]
    assert [one["video_id"] for one in told] == [made["id"]]
    assert "own.example" not in json.dumps(api.get("/v1/videos").json)
