"""The audit log: every deed leaves one row with who, what and in which request; admins read it."""

import inspect
from collections.abc import Callable

import pytest
from sqlalchemy import update

from shared.jobs import audit, groups, keys
from shared.jobs.groups import Identity
from shared.machinery.tables import Audit
from tests.api.callers import Caller, caller_of
from tests.services.jobs import ago
from worker import upkeep

URL = "https://hooks.example/farm?token=hush"
DAY = 86_400
DEEDS: dict[str, Callable[..., str]] = {
    "key.create": lambda admin, **_: _id(admin.post("/v1/keys", json={"name": "studio"})),
    "key.change": lambda admin, key, **_: _id(admin.patch(f"/v1/keys/{key}", json={"name": "b"})),
    "key.revoke": lambda admin, key, **_: _id(admin.delete(f"/v1/keys/{key}")),
    "group.drain": lambda admin, **_: _name(
        admin.post("/v1/groups/g0/drain", json={"reason": "new driver"})
    ),
    "group.resume": lambda admin, **_: _name(admin.post("/v1/groups/g0/resume")),
    "queue.pause": lambda admin, **_: (
        admin.post("/v1/queue/pause", json={"what": "both"}) and "intake dispatch"
    ),
    "queue.resume": lambda admin, **_: (
        admin.post("/v1/queue/resume", json={"what": "intake"}) and "intake"
    ),
    "webhook.create": lambda api, **_: _id(api.post("/v1/webhooks", json={"url": URL})),
    "webhook.change": lambda api, hook, **_: _id(
        api.patch(f"/v1/webhooks/{hook}", json={"description": "mine"})
    ),
    "webhook.rotate": lambda api, **_: api.post("/v1/webhooks/secret/rotate") and "default",
    "webhook.redeliver": lambda api, sent, **_: _id(
        api.post(f"/v1/webhooks/deliveries/{sent}/redeliver")
    ),
    "webhook.delete": lambda api, hook, **_: _id(api.delete(f"/v1/webhooks/{hook}")),
    "video.delete": lambda api, video, **_: _id(api.delete(f"/v1/videos/{video}")),
}


def _id(answer) -> str:
    return answer.json["id"]


def _name(answer) -> str:
    return answer.json["name"]


def newest(admin: Caller, **query: str) -> list[dict]:
    return admin.get("/v1/audit", query_string=query).json["data"]


@pytest.fixture
def world(farm, api, admin, stranger) -> dict:
    """Something to do each deed to."""
    groups.register(farm, Identity("g0", "life", "host", 1, "cpu", ("wan-tiny-t2v",)))
    hook = api.post("/v1/webhooks", json={"url": URL}).json["id"]
    return {
        "admin": admin,
        "api": api,
        "key": stranger.key.split("_")[1],
        "hook": hook,
        "sent": api.post(f"/v1/webhooks/{hook}/test").json["id"],
        "video": api.make()["id"],
    }


def test_every_deed_leaves_one_row_with_its_request(world):
    for action, do in DEEDS.items():
        before = {one["id"] for one in newest(world["admin"], limit="100")}

        done_to = do(**{name: _asking(who, action) for name, who in world.items()})

        after = newest(world["admin"], limit="100")
        (row,) = [one for one in after if one["id"] not in before]
        whose = "default-admin" if "admin" in inspect.signature(do).parameters else "default-submit"
        assert (row["action"], row["object_id"]) == (action, done_to)
        assert (row["key_name"], row["tenant"]) == (whose, "default")
        assert row["request_id"] == f"req-{action}"
        assert "hush" not in str(row)
    assert set(DEEDS) == set(audit.ACTIONS)


def _asking(who, action: str):
    """A caller whose requests carry an id; anything else as it is."""
    if not isinstance(who, Caller):
        return who
    named = Caller(who.client.application.test_client(), who.key)
    named.client.environ_base["HTTP_X_REQUEST_ID"] = f"req-{action}"
    return named


def test_a_row_says_how_it_was_meant(world, admin):
    DEEDS["group.drain"](**world)
    DEEDS["webhook.create"](**world)

    (drain,) = newest(admin, action="group.drain")
    (created, _) = newest(admin, action="webhook.create")
    assert drain["detail"] == {"mode": "finish", "reason": "new driver"}
    assert created["detail"] == {"host": "hooks.example"}


def test_what_was_refused_or_changed_nothing_is_no_deed(api, admin):
    admin.post("/v1/groups/g9/drain", json={})
    admin.delete("/v1/keys/zzzzzzzz")
    admin.post("/v1/queue/resume", json={"what": "both"})
    api.post("/v1/keys", json={"name": "mine"})

    assert newest(admin) == []


def test_what_the_farm_does_by_itself_is_no_deed(farm, admin):
    keys.create(farm, "first-admin", "admin")

    assert newest(admin) == []


def test_an_admin_of_any_tenant_reads_all_of_it_and_nobody_else_any(app, farm, world):
    DEEDS["video.delete"](**world)
    other = caller_of(app, farm, "admin", tenant="others")

    assert newest(other) == newest(world["admin"])
    assert newest(other)[0]["action"] == "video.delete"
    refused = world["api"].get("/v1/audit")
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "scope_missing")


def test_the_log_is_read_in_pages(admin):
    ids = [admin.post("/v1/keys", json={"name": f"key {n}"}).json["id"] for n in range(3)]

    first = admin.get("/v1/audit?limit=2").json
    rest = admin.get(f"/v1/audit?limit=2&after={first['last_id']}").json

    assert [one["object_id"] for one in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    wrong = admin.get("/v1/audit?after=audit_1").json["error"]
    assert (wrong["code"], wrong["param"]) == ("invalid_cursor", "after")
    assert admin.get("/v1/audit?action=key.steal").status_code == 400


@pytest.mark.parametrize(("age_s", "kept"), [(89 * DAY, 1), (91 * DAY, 0)])
def test_a_deed_is_forgotten_after_its_days(farm, admin, age_s, kept):
    admin.post("/v1/keys", json={"name": "studio"})
    with farm.db.connect() as db:
        db.execute(update(Audit).values(at=ago(age_s)))

    done = upkeep.round_of_duties(farm, upkeep.DUTIES)

    assert (done["audit"], len(newest(admin))) == (1 - kept, kept)
