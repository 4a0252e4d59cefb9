"""Keys, scopes, sessions and what every answer carries."""

import pytest
from flask import Flask, Response

from api.app import close, create_app
from api.plumbing import auth
from shared.jobs import keys
from shared.machinery.settings import ConfigurationError, Settings
from shared.vocabulary.catalog import MODELS
from tests.api.callers import Caller, caller_of


@pytest.fixture
def browser(app: Flask, farm):
    """A logged-in browser and its form token."""
    _, key = keys.create(farm, "person", "submit")

    def login() -> Response:
        response = Response()
        auth.open_session(response, keys.verify(farm, key))
        return response

    app.add_url_rule("/login-for-tests", view_func=login)
    app.add_url_rule("/token-for-tests", view_func=lambda: auth.csrf_token())
    client = app.test_client()
    cookie = client.get("/login-for-tests").headers["Set-Cookie"]
    return client, client.get("/token-for-tests").text, cookie


def test_a_session_reads_with_its_cookie_alone(browser):
    client, _, cookie = browser

    assert client.get("/v1/videos").status_code == 200
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Lax", "Max-Age=43200"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"X-CSRF-Token": "made-up"}, 403),
        ({"X-CSRF-Token": "token"}, 200),
        ({"X-CSRF-Token": "token", "Origin": "http://localhost"}, 200),
        ({"X-CSRF-Token": "token", "Origin": "http://evil.example"}, 403),
        ({"X-CSRF-Token": "token", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_session_changes_things_only_from_our_own_pages(browser, headers, status):
    client, token, _ = browser
    if headers.get("X-CSRF-Token") == "token":
        headers = headers | {"X-CSRF-Token": token}

    answer = client.post("/v1/videos", json={"prompt": "a"}, headers=headers)

    assert answer.status_code == status
    if status == 403:
        assert answer.json["error"]["code"] == "csrf_failed"


def test_the_form_field_serves_as_token(browser):
    client, token, _ = browser

    answer = client.post("/v1/videos", data={"prompt": "a", "csrf_token": token})

    assert answer.status_code == 200


def test_a_revoked_key_ends_its_sessions(browser, admin: Caller, farm):
    client, _, _ = browser
    person = next(key for key in keys.all_keys(farm) if key["name"] == "person")

    admin.delete(f"/v1/keys/{person['id']}")

    assert client.get("/v1/videos").status_code == 401


def test_a_changed_cookie_is_no_session(app: Flask, browser):
    client = app.test_client()
    client.set_cookie(auth.COOKIE, browser[2].split(";")[0].split("=", 1)[1][:-2] + "xx")

    assert client.get("/v1/videos").json["error"]["code"] == "missing_key"


def test_keys_are_made_used_and_revoked(app: Flask, admin: Caller):
    made = admin.post("/v1/keys", json={"name": "laptop", "scope": "read"}).json
    caller = Caller(app.test_client(), made["key"])

    own = caller.get("/v1/keys/self").json
    listed = admin.get("/v1/keys").json["data"]
    ended = admin.delete(f"/v1/keys/{made['id']}").json

    assert (own["id"], own["scope"]) == (made["id"], "read")
    assert made["id"] in {key["id"] for key in listed}
    assert made["key"] not in str(listed)
    assert ended["revoked_at"] is not None
    assert caller.get("/v1/keys/self").status_code == 401


def test_only_admins_manage_keys(api: Caller):
    assert api.get("/v1/keys").json["error"]["code"] == "scope_missing"
    assert api.post("/v1/keys", json={"name": "a"}).status_code == 403


def test_without_auth_everybody_here_is_admin(settings: Settings, farm):
    app = create_app(settings.model_copy(update={"auth": "none"}))
    client = app.test_client()

    made = client.post("/v1/videos", json={"prompt": "a", "priority": 5})
    foreign = client.post("/v1/videos", json={}, headers={"Origin": "http://evil.example"})
    close(app)

    assert (made.status_code, made.json["tenant"]) == (200, "default")
    assert foreign.json["error"]["code"] == "csrf_failed"


@pytest.mark.parametrize(
    ("change", "variable"),
    [
        ({"auth": "none", "host": "0.0.0.0"}, "WANFARM_AUTH"),
        ({"secret_key": Settings.model_fields["secret_key"].default}, "WANFARM_SECRET_KEY"),
    ],
)
def test_an_open_door_stops_the_start(settings: Settings, change, variable):
    with pytest.raises(ConfigurationError, match=variable):
        create_app(settings.model_copy(update=change))


def test_every_answer_is_guarded_and_named(app: Flask):
    client = app.test_client()

    given = client.get("/v1/videos", headers={"X-Request-ID": "mine-1"})
    made = client.get("/livez", headers={"X-Request-ID": "not ok"})

    assert given.headers["X-Request-ID"] == "mine-1"
    assert made.headers["X-Request-ID"].startswith("req_")
    for answer in (given, made):
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_farm_tells_its_models_groups_and_queue(app, farm, api: Caller):
    from shared.jobs import groups
    from shared.vocabulary.states import GroupState

    life = groups.Identity("g0", "life-1", "host", 1, "cpu", ("wan-tiny-t2v",))
    groups.register(farm, life)
    groups.beat(farm, life, groups.Reading(GroupState.IDLE, warm_model="wan-tiny-t2v"))
    api.make()

    card = api.get("/v1/models/wanfarm/wan-tiny-t2v").json
    group = api.get("/v1/groups/g0").json
    queue = api.get("/v1/queue").json

    assert (card["id"], card["groups"], card["warm"]) == ("wan-tiny-t2v", ["g0"], True)
    assert [one["id"] for one in api.get("/v1/models").json["data"]] == [*MODELS]
    assert (group["state"], group["model"]) == ("idle", "wan-tiny-t2v")
    assert (queue["counts"]["queued"], queue["limits"]["per_key"]) == (1, 100)
    assert app.test_client().get("/health").json["checks"]["redis"] == "ok"


def test_health_needs_a_group_and_readiness_does_not(app: Flask):
    client = app.test_client()

    assert client.get("/readyz").json["status"] == "ok"
    assert client.get("/health").json["error"]["code"] == "not_ready"
    assert client.get("/livez", headers={"Host": "10.0.0.7"}).status_code == 200


def test_an_admin_looks_at_one_tenant(app, farm, admin: Caller, api: Caller, stranger: Caller):
    api.make()
    stranger.make()

    everybody = admin.get("/v1/videos").json["data"]
    one = admin.get("/v1/videos?tenant=others").json["data"]

    assert {video["tenant"] for video in everybody} == {"default", "others"}
    assert {video["tenant"] for video in one} == {"others"}
    assert caller_of(app, farm, "read", "others").get("/v1/videos").json["data"] == one
