"""The admin pages as plain HTTP: who may open them, what their forms do, what they never show."""

import re

import pytest
from flask.testing import FlaskClient

from api.dashboard.adminviews import PHRASES
from shared.jobs import audit, keys, pauses, webhooks
from shared.jobs.ledger import in_seconds
from shared.machinery.tables import ApiKey
from shared.vocabulary.limits import KeyLimits
from tests.services.hooks import listen

HTML = {"Accept": "text/html"}
OPS = audit.Actor("default", "abcdefgh", "ops-laptop", "req-0")
SECTIONS = ("/admin", "/admin/keys", "/admin/webhooks", "/admin/audit", "/admin/settings")
FORMS = (
    "/admin/pause",
    "/admin/resume",
    "/admin/keys",
    "/admin/keys/zzzzzzzz/revoke",
    "/admin/webhooks/evt_1/redeliver",
)
SHOWN = re.compile(r"wf_[a-z0-9]{8}_[\w-]{43}")


def session(app, farm, scope: keys.Scope = "admin") -> FlaskClient:
    """A logged-in browser."""
    client = app.test_client()
    _, key = keys.create(farm, f"{scope}-person", scope)
    assert client.post("/login", data={"key": key}).status_code == 303
    return client


@pytest.fixture
def page(app, farm) -> FlaskClient:
    return session(app, farm)


def hidden(text: str, name: str) -> str:
    return text.partition(f'name="{name}" value="')[2].partition('"')[0]


def send(page: FlaskClient, path: str, request_id: str = "req-1", **form: str):
    """Post a form as a page of ours does."""
    token = hidden(page.get("/admin").text, "csrf_token")
    headers = HTML | {"X-Request-ID": request_id}
    return page.post(path, data=form | {"csrf_token": token}, headers=headers)


def told(farm) -> list[tuple[str, str, str]]:
    rows = audit.deeds(farm, limit=10).rows
    return [(row["action"], row["object_id"], row["request_id"]) for row in rows]


@pytest.mark.parametrize("scope", ["read", "submit"])
def test_only_admins_see_the_pages_and_the_link_to_them(app, farm, scope):
    person = session(app, farm, scope)

    assert 'href="/admin"' not in person.get("/").text
    for path in SECTIONS:
        refused = person.get(path, headers=HTML)
        assert refused.status_code == 403, path
        assert "&#39;admin&#39;" in refused.text
    for path in FORMS:
        assert send(person, path).status_code == 403, path


def test_a_form_without_its_token_changes_nothing(page, farm):
    before = keys.all_keys(farm)

    for path in FORMS:
        assert page.post(path, data={"name": "x"}, headers=HTML).status_code == 403, path

    assert keys.all_keys(farm) == before
    assert (pauses.closed(farm), told(farm)) == ([], [])


def test_a_door_is_paused_with_its_reason_and_resumed(page, farm):
    answer = send(page, "/admin/pause", "req-a", what="intake", reason="moving <house>")

    shown = page.get("/admin").text
    assert "New videos are refused." in shown
    assert "moving &lt;house&gt;" in shown
    assert 'id="done"' in page.get(answer.location).text
    send(page, "/admin/resume", "req-b", what="intake")
    assert pauses.closed(farm) == []
    assert told(farm) == [("queue.resume", "intake", "req-b"), ("queue.pause", "intake", "req-a")]


def test_a_key_is_made_once_and_shown_once(app, page, farm):
    form = {"name": "studio", "scope": "read", "expires_in_s": "86400", "tenant": "films"}
    form["key_id"] = hidden(page.get("/admin/keys").text, "key_id")

    made = send(page, "/admin/keys", **form)
    again = send(page, "/admin/keys", **form)

    (key,) = SHOWN.findall(made.text)
    caller = keys.verify(farm, key)
    assert (caller.key_name, caller.scope, caller.tenant) == ("studio", "read", "films")
    assert (again.status_code, SHOWN.findall(again.text)) == (422, [])
    assert "made already" in again.text
    assert [row["name"] for row in keys.all_keys(farm)].count("studio") == 1
    assert not SHOWN.search(page.get("/admin/keys").text)
    assert told(farm) == [("key.create", caller.key_id, "req-1")]


def test_a_keys_own_limits_stand_below_its_name(page, farm):
    limits = KeyLimits(max_queued=5, gpu_seconds_per_day=7200)
    keys.make(farm, keys.NewKey("laptop", "submit", limits=limits))

    assert "5 waiting · 7200 GPU-seconds a day" in page.get("/admin/keys").text


def test_a_faulty_key_is_refused_beside_its_fields(page, farm):
    form = {"name": "", "tenant": "No Such", "key_id": keys.new_key_id()}

    refused = send(page, "/admin/keys", **form)

    assert refused.status_code == 400
    assert 'id="name-fault"' in refused.text
    assert 'id="tenant-fault"' in refused.text
    assert len(keys.all_keys(farm)) == 1


def test_a_revoked_key_is_refused_and_listed_as_ended(app, page, farm):
    key_id, key = keys.create(farm, "laptop", "submit")
    headers = {"Authorization": f"Bearer {key}"}

    answer = send(page, f"/admin/keys/{key_id}/revoke")

    assert app.test_client().get("/v1/keys/self", headers=headers).status_code == 401
    shown = page.get(answer.location).text
    assert f"revoked the key <code>{key_id} (laptop)</code>" in shown
    assert "1 revoked or expired" in shown
    assert told(farm) == [("key.revoke", key_id, "req-1")]
    assert send(page, "/admin/keys/zzzzzzzz/revoke").status_code == 404


def test_an_expired_key_is_no_key_that_works(page, farm):
    keys.create(farm, "guest", "read", expires_in_s=60)
    with farm.db.connect() as db:
        guest = ApiKey.__table__.update().where(ApiKey.name == "guest")
        db.execute(guest.values(expires_at=in_seconds(-1)))

    shown = page.get("/admin/keys").text

    assert "1 revoked or expired" in shown
    assert "Revoke guest" not in shown


def test_a_dead_delivery_is_found_and_sent_again(page, farm):
    hook = listen(farm, "https://hooks.example/farm")
    dead, alive = (webhooks.test(farm, hook)["id"] for _ in range(2))
    webhooks.change(farm, hook["id"], {"enabled": False})  # both are dead
    webhooks.redeliver(farm, alive, None)

    listed = page.get("/admin/webhooks?state=dead").text
    assert (f'id="{dead}"' in listed, f'id="{alive}"' in listed) == (True, False)
    answer = send(page, f"/admin/webhooks/{dead}/redeliver", state="dead")

    assert answer.location.startswith("/admin/webhooks?done=req-1&state=dead")
    assert webhooks.delivery(farm, dead, None)["dead_at"] is None
    assert told(farm) == [("webhook.redeliver", dead, "req-1")]


def test_the_log_is_filtered_and_read_in_pages(page, farm):
    for number in range(51):
        keys.make(farm, keys.NewKey(f"key {number}", "read"), OPS)
    send(page, "/admin/pause", what="dispatch")

    first = page.get("/admin/audit").text
    older = first.partition('id="older" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert first.count('<tr id="audit_') == 50
    assert page.get(older).text.count('<tr id="audit_') == 2
    only = page.get("/admin/audit?action=queue.pause").text
    assert only.count('<tr id="audit_') == 1
    assert page.get("/admin/audit?after=nonsense&action=nonsense&done=%00").status_code == 200


def test_settings_name_their_source_and_hide_every_secret(app, page, farm):
    settings = farm.settings
    shown = page.get("/admin/settings").text

    assert settings.secret_key.get_secret_value() not in shown
    for part in ("WANFARM_SECRET_KEY", "(hidden)", "WANFARM_AUDIT_DAYS", "90 days", "7 days"):
        assert part in shown


def test_every_deed_has_words():
    assert {*PHRASES} == {*audit.ACTIONS}
