"""Limits of a key: how often it may ask, how much may wait, how much GPU time it has in a day."""

import pytest
from sqlalchemy import func, update

from api.plumbing.rates import Rates
from shared.jobs.keys import Caller as KeyHolder
from shared.machinery.settings import Settings
from shared.machinery.tables import ApiKey
from tests.api.callers import Caller, form, png

VIDEO = {"prompt": "a paper boat"}
HOLDER = KeyHolder("abcdefgh", "laptop", "default", "submit")


@pytest.fixture
def limited(app, admin: Caller):
    """Makes a key with limits."""

    def make(scope: str = "submit", **limits: object) -> tuple[str, Caller]:
        asked = {"name": "laptop", "scope": scope, "limits": limits}
        made = admin.post("/v1/keys", json=asked).json
        return made["id"], Caller(app.test_client(), made["key"])

    return make


def left(answer) -> tuple[int, int]:
    return (
        int(answer.headers["X-RateLimit-Limit"]),
        int(answer.headers["X-RateLimit-Remaining"]),
    )


def test_submits_beyond_the_rate_are_told_when_to_come_again(limited, api: Caller):
    _, caller = limited(submit_per_min=2)

    first, second, third = (caller.post("/v1/videos", json=VIDEO) for _ in range(3))

    assert [left(first), left(second)] == [(2, 1), (2, 0)]
    assert 30 <= int(second.headers["X-RateLimit-Reset"]) <= 60
    assert (third.status_code, third.json["error"]["code"]) == (429, "rate_limited")
    assert left(third) == (2, 0)
    assert 1 <= int(third.headers["Retry-After"]) <= 30
    assert third.headers["x-should-retry"] == "true"
    assert "'laptop' may make 2 submits a minute" in third.json["error"]["message"]
    assert api.post("/v1/videos", json=VIDEO).status_code == 200, "each key has its own"
    assert caller.get("/v1/videos").status_code == 200, "reads are another kind"


def test_remixes_and_batches_are_submits_too(limited):
    _, caller = limited(submit_per_min=2)
    video = caller.post("/v1/videos", json=VIDEO).json["id"]
    caller.post(f"/v1/videos/{video}/remix", json={})

    more = [
        caller.post("/v1/batches", json={"request": VIDEO}),
        caller.post(f"/v1/videos/{video}/remix", json={}),
        caller.post(f"/v1/videos/{video}/promote", json={}),
    ]

    assert {answer.json["error"]["code"] for answer in more} == {"rate_limited"}


class TestRatesOfTheFarm:
    """Two requests a second, one upload a minute, submits without a limit."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        few = {"requests_per_s": 2, "uploads_per_min": 1, "submit_per_min": 0}
        return settings.model_copy(update=few)

    def test_reads_and_uploads_have_their_own(self, api: Caller):
        first, second = (api.post("/v1/files", **form(file=png())) for _ in range(2))

        assert (first.status_code, second.json["error"]["code"]) == (200, "rate_limited")
        assert left(api.get("/v1/videos")) == (2, 1)

    def test_without_a_limit_nothing_is_told(self, api: Caller):
        answers = [api.post("/v1/videos", json=VIDEO) for _ in range(5)]

        assert {answer.status_code for answer in answers} == {200}
        assert not any("X-RateLimit-Limit" in answer.headers for answer in answers)


def taken(rates: Rates, settings: Settings) -> bool:
    allowance = rates.take(settings, HOLDER, "submits")
    assert allowance is not None
    return not allowance.wait_s


def test_what_was_used_comes_back_evenly(settings):
    now = [1000.0]
    rates, few = Rates(lambda: now[0]), settings.model_copy(update={"submit_per_min": 6})

    burst = [taken(rates, few) for _ in range(8)]
    later = []
    for _ in range(12):  # one is back each ten seconds
        now[0] += 5
        later.append(taken(rates, few))
    now[0] += 3600
    again = [taken(rates, few) for _ in range(8)]

    assert burst == again == [True] * 6 + [False] * 2
    assert later == [False, True] * 6


def test_a_key_may_have_less_room_in_the_queue(limited, api: Caller):
    _, caller = limited(max_queued=1)
    caller.make()

    full = caller.post("/v1/videos", json=VIDEO).json["error"]

    assert full["code"] == "queue_full"
    assert "(1 of 1 waiting)" in full["message"]
    api.make()


def test_a_key_may_ask_for_more_priority_or_less(limited, admin: Caller):
    _, raised = limited(max_priority=3)
    _, bound = limited(scope="admin", max_priority=-2)

    assert raised.make(priority=3)["priority"] == 3
    refused = raised.post("/v1/videos", json=VIDEO | {"priority": 4}).json["error"]
    assert (refused["code"], refused["param"]) == ("priority_not_allowed", "priority")
    assert "may ask for 3 at most" in refused["message"]
    unsaid = bound.post("/v1/videos", json=VIDEO).json["error"]
    assert "may ask for -2 at most" in unsaid["message"]
    assert bound.make(priority=-2)["priority"] == -2
    assert admin.make(priority=10)["priority"] == 10


def test_a_quota_counts_what_the_keys_videos_took_today(limited, hand, farm, api: Caller):
    key_id, caller = limited(gpu_seconds_per_day=0.000_001)
    waits = caller.make()["id"]
    hand.complete(hand.claim())

    refused = caller.post("/v1/videos", json=VIDEO)

    used = caller.get("/v1/keys/self").json["gpu_seconds_today"]
    assert used > 0
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "quota_exceeded")
    assert refused.headers["Retry-After"] == "600"
    assert refused.headers["x-should-retry"] == "false"
    assert caller.get(f"/v1/videos/{waits}").json["status"] == "completed"
    api.make()
    with farm.db.connect() as db:
        yesterday = func.current_date() - 1
        db.execute(update(ApiKey).where(ApiKey.id == key_id).values(used_day=yesterday))
    caller.make()


def test_limits_change_one_by_one_and_go_back(limited, admin: Caller):
    key_id, caller = limited(max_queued=1, submit_per_min=5)
    path = f"/v1/keys/{key_id}"

    admin.patch(path, json={"limits": {"max_priority": 1}, "name": "studio"})
    changed = admin.patch(path, json={"limits": {"max_queued": None}, "expires_in_s": 60}).json

    told = {name: value for name, value in changed["limits"].items() if value is not None}
    assert told == {"submit_per_min": 5, "max_priority": 1}
    assert changed["name"] == "studio"
    assert changed["expires_at"] is not None
    assert caller.get("/v1/keys/self").json["limits"] == changed["limits"]
    forever = admin.patch(path, json={"expires_in_s": None}).json
    assert (forever["expires_at"], forever["name"]) == (None, "studio")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"limits": {"max_queued": 0}}, "invalid_value", "limits.max_queued"),
        ({"limits": {"max_queue": 3}}, "unknown_field", "limits.max_queue"),
        ({"limits": {"gpu_seconds_per_day": 0}}, "invalid_value", "limits.gpu_seconds_per_day"),
        ({"limits": {"max_priority": 11}}, "invalid_value", "limits.max_priority"),
        ({"scope": "admin"}, "unknown_field", "scope"),
        ({"name": ""}, "invalid_value", "name"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(limited, admin, body, code, param):
    key_id, _ = limited()

    error = admin.patch(f"/v1/keys/{key_id}", json=body).json["error"]

    assert (error["code"], error["param"]) == (code, param)


def test_a_key_that_is_not_or_is_revoked_cannot_be_changed(limited, admin: Caller, api: Caller):
    key_id, _ = limited()
    admin.delete(f"/v1/keys/{key_id}")

    for unknown in (key_id, "zzzzzzzz"):
        answer = admin.patch(f"/v1/keys/{unknown}", json={"name": "a"})
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "key_not_found")
    assert api.patch(f"/v1/keys/{key_id}", json={}).status_code == 403
