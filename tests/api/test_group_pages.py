"""The pages of groups over plain HTTP: who sees what, and who may drain and resume."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.dashboard import words
from shared.jobs import groups, keys, lifecycle
from shared.jobs.groups import Identity, Reading
from shared.machinery.farm import Farm
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState

HTML = {"Accept": "text/html"}
LIFE = Identity("g0", "life-1", "gpu-1", 1, "cuda", tuple(MODELS))
GPU = {"rank": 0, "pid": 7, "device": "NVIDIA H100", "memory_total_bytes": 80_000_000_000}
HOT = {"utilization_ratio": 0.98, "temperature_c": 64, "power_w": 610.4}
HEARD = GPU | {"memory_bytes": 61_000_000_000} | HOT


@pytest.fixture
def group(farm: Farm) -> str:
    groups.register(farm, LIFE)
    groups.beat(farm, LIFE, Reading(GroupState.IDLE, "wan-tiny-t2v", devices=[HEARD]))
    return "/groups/g0"


def browser_of(app: Flask, farm: Farm, scope: keys.Scope, tenant: str = "default") -> FlaskClient:
    """A browser that is logged in."""
    client = app.test_client()
    key = keys.create(farm, f"{tenant}-{scope}", scope, tenant=tenant)[1]
    assert client.post("/login", data={"key": key}).status_code == 303
    return client


def send(client: FlaskClient, path: str, **form: str):
    page = client.get("/groups").text
    token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
    return client.post(path, data={"csrf_token": token} | form, headers=HTML)


def drain_of(farm: Farm) -> tuple[str | None, str | None]:
    (row,) = groups.all_groups(farm)
    return row["drain"], row["drain_reason"]


def test_an_admin_drains_and_resumes_by_plain_forms(app, farm, group):
    client = browser_of(app, farm, "admin")

    drained = send(client, f"{group}/drain", mode="requeue", reason=" new <driver> ")
    assert (drained.status_code, drained.location) == (303, group)
    assert drain_of(farm) == ("requeue", "new <driver>")
    page = client.get(group).text
    assert "was asked to take no other job" in page
    assert "Reason: new &lt;driver&gt;" in page
    assert 'id="resume"' in page
    assert 'id="drain"' not in page

    resumed = send(client, f"{group}/resume")
    assert (resumed.status_code, resumed.location) == (303, group)
    assert drain_of(farm) == (None, None)
    assert 'id="drain"' in client.get(group).text


def test_others_see_no_buttons_and_are_refused(app, farm, group):
    for scope in ("read", "submit"):
        client = browser_of(app, farm, scope)
        page = client.get(group).text
        assert "/drain" not in page
        assert "/resume" not in page
        for what in ("drain", "resume"):
            assert send(client, f"{group}/{what}").status_code == 403
    assert drain_of(farm) == (None, None)


def test_what_cannot_be_done_changes_nothing(app, farm, group):
    client = browser_of(app, farm, "admin")

    for path, form, status in (
        (f"{group}/drain", {"csrf_token": "x"}, 403),
        (f"{group}/drain", {"mode": "now"}, 400),
        (f"{group}/drain", {"reason": "a" * 301}, 400),
        (f"{group}/drain", {"reason": "a\0b"}, 400),
        ("/groups/g9/drain", {}, 404),
        ("/groups/g9/resume", {}, 404),
        ("/groups/%00/drain", {}, 404),
    ):
        assert send(client, path, **form).status_code == status, (path, form)
    assert drain_of(farm) == (None, None)


def test_what_is_not_there_is_not_found(admin, group):
    for path in ("/groups/g9", "/_/groups/g9", f"{group}/drain", f"{group}/x"):
        assert admin.get(path, headers=HTML).status_code == 404, path


def test_a_guest_is_sent_to_the_login(app):
    for path in ("/groups", "/groups/g0"):
        assert app.test_client().get(path, headers=HTML).location == f"/login?next={path}"


def test_what_nvml_tells_is_shown_and_what_it_does_not_is_a_dash(admin, farm, group):
    assert all(text in admin.get(group).text for text in ("98 %", "64 °C", "610 W", "61.0 GB"))

    groups.beat(farm, LIFE, Reading(GroupState.IDLE, devices=[GPU]))

    page = admin.get(group).text
    assert not any(text in page for text in ("°C", " W<", "0 %"))
    assert page.count(f"<code>{words.DASH}</code>") == 3


def test_another_tenants_job_and_failure_are_not_named(app, api, hand, farm, group):
    failed = api.make(prompt="a secret boat", max_attempts=1)["id"]
    died = JobFailure(FailureKind.RANK_DIED, "Rank 0 died near the secret boat.")
    lifecycle.give_back(farm, hand.claim(), died)
    running = api.make(prompt="a secret boat")["id"]
    hand.claim()
    groups.beat(farm, LIFE, Reading(GroupState.BUSY, video_id=running, failure_streak=1))
    ours, theirs = browser_of(app, farm, "read"), browser_of(app, farm, "read", "others")

    for path in ("/groups", group):
        page = theirs.get(path).text
        assert "a job of another tenant" in page
        assert not any(text in page for text in (failed, running, "secret"))
        assert running in ours.get(path).text
    assert "Rank 0 died near" in ours.get(group).text
    assert "engine crashed" in theirs.get(group).text


def test_a_report_tells_of_a_group_that_has_loaded_nothing_in_utc(admin, farm, group):
    groups.beat(farm, LIFE, Reading(GroupState.IDLE, problem="Rank 0 died."))

    report = admin.get(group).text.partition('id="report-text">')[2].partition("</code>")[0]

    facts = {line[:18].strip(): line[18:].strip() for line in report.splitlines()}
    assert (facts["loaded"], facts["warm since"]) == ("none", words.DASH)
    assert facts["since"].endswith(" UTC")
    assert facts["problem"] == "Rank 0 died."


def test_the_list_teaches_how_a_first_group_starts(admin):
    page = admin.get("/groups").text

    assert "docker compose --profile gpu up" in page
    assert "wanfarm up" in page


def test_a_group_that_says_nothing_new_is_not_sent_again(admin, group):
    for path in ("/_/groups", f"/_{group}"):
        first = admin.get(path)

        again = admin.get(path, headers={"If-None-Match": first.headers["ETag"]})

        assert (again.status_code, again.data) == (304, b"")


def test_each_state_of_a_group_has_its_page(admin, farm, group):
    for state in GroupState:
        groups.beat(farm, LIFE, Reading(state, problem="<Rank> 0 died."))
        for mode in (None, "finish", "requeue"):
            groups.resume(farm, "g0") if mode is None else groups.drain(farm, "g0", mode)
            pages = [admin.get(path).text for path in ("/groups", group)]
            assert all(state.value in page for page in pages), (state, mode)
            assert "&lt;Rank&gt; 0 died." in pages[1]
            assert (f'action="{group}/resume"' in pages[1]) == (mode is not None)


def test_a_group_tells_of_its_work_over_the_api(admin, farm, api, hand, group):
    api.make()
    hand.complete(hand.claim())
    groups.beat(farm, LIFE, Reading(GroupState.IDLE, "wan-tiny-t2v", failure_streak=1))

    told = admin.get(f"/v1{group}").json

    assert (told["jobs_last_hour"], told["failure_streak"], told["parallel"]) == (1, 1, None)
    assert told["warm_since"] <= told["last_heartbeat_at"]
    assert admin.get("/v1/groups").json["data"] == [told]
