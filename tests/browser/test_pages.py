"""The pages as plain HTTP: doors, tokens, caching, and answers to who is no browser."""

import gzip
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import close, create_app
from shared.jobs import keys, queries
from shared.machinery.farm import Farm
from shared.machinery.settings import Settings
from tests.browser.staging import Stage
from tests.services.jobs import ago, edit

HTML = {"Accept": "text/html"}


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings)
    yield app
    close(app)


@pytest.fixture
def guest(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def member(app: Flask, key: str) -> FlaskClient:
    client = app.test_client()
    assert client.post("/login", data={"key": key}).status_code == 303
    return client


def token_of(client: FlaskClient) -> str:
    page = client.get("/jobs").text
    return page.partition('name="csrf_token" value="')[2].partition('"')[0]


@pytest.mark.parametrize("path", ["/", "/jobs", "/new", "/jobs/video_x"])
def test_a_guest_is_sent_to_the_login_and_back(guest: FlaskClient, path: str):
    answer = guest.get(path, headers=HTML)

    assert answer.status_code == 303
    assert answer.location == f"/login?next={path}"


@pytest.mark.parametrize("goal", ["//evil.example/", "/\\evil.example", "https://evil.example"])
def test_the_way_back_never_leaves_this_server(guest: FlaskClient, key: str, goal: str):
    answer = guest.post("/login", data={"key": key, "next": goal})

    assert answer.location == "/"


def test_looking_at_a_login_link_does_not_spend_it(guest: FlaskClient, farm: Farm, key: str):
    token = keys.create_login_token(farm, key.split("_")[1])

    for _ in range(3):
        assert guest.get(f"/login?t={token}").status_code == 200

    assert guest.post("/login", data={"token": token}).status_code == 303


def test_a_form_without_its_token_changes_nothing(member: FlaskClient, stage: Stage):
    video_id = stage.submit("a ball")

    answer = member.post(f"/jobs/{video_id}/cancel", headers=HTML)

    assert answer.status_code == 403
    assert queries.one(stage.farm, video_id, None)["state"] == "queued"


def test_a_foreign_page_cannot_cancel(member: FlaskClient, stage: Stage):
    video_id = stage.submit("a ball")
    form = {"csrf_token": token_of(member)}

    answer = member.post(
        f"/jobs/{video_id}/cancel", data=form, headers=HTML | {"Origin": "https://evil.example"}
    )

    assert answer.status_code == 403


def test_a_fragment_that_has_not_changed_is_not_sent_again(member: FlaskClient, stage: Stage):
    video_id = stage.submit("a ball")
    stage.complete(stage.claim().fence)
    days = 3.52 * 86_400  # "just now" and "7 days" would pass, and so would an exact "3d12h"
    moments = dict.fromkeys(("created_at", "started_at", "completed_at"), ago(days))
    edit(stage.farm, video_id, **moments, expires_at=ago(-days))
    first = member.get(f"/_/jobs/{video_id}")

    again = member.get(f"/_/jobs/{video_id}", headers={"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.data) == (304, b"")


def test_more_that_match_than_a_form_may_have_fields_are_named_and_done(
    app: Flask, member: FlaskClient, stage: Stage
):
    app.config["MAX_FORM_PARTS"] = 8
    ids = [stage.submit(f"a ball, number {number}") for number in range(10)]
    form = {"csrf_token": token_of(member), "do": "cancel"}

    question = member.post("/jobs/ticked?q=ball", data=form | {"all": "on"}).text
    named = question.partition('name="ids" value="')[2].partition('"')[0]
    answer = member.post("/jobs/ticked?q=ball", data=form | {"ids": named, "sure": "1"}).text

    assert "Cancel 10 jobs?" in question
    assert named.split(",") == ids[::-1]
    assert "10 asked to stop" in answer


def test_static_files_may_be_kept_for_ever_and_change_their_name(guest: FlaskClient):
    page = guest.get("/login").text
    url = page.partition('<link rel="stylesheet" href="')[2].partition('"')[0]

    with guest.get(url) as kept, guest.get("/static/0123456789abcdef/app/base.css") as other:
        assert "immutable" in kept.headers["Cache-Control"]
        assert "immutable" not in other.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/nowhere", "/jobs/video_nothing", "/jobs/a/b/c"])
def test_what_is_not_there_is_told_in_the_shell(member: FlaskClient, path: str):
    answer = member.get(path, headers=HTML)

    assert answer.status_code == 404
    assert "<h1>Nothing here</h1>" in answer.text
    assert "Log out" in answer.text


def test_a_program_gets_json_from_unknown_paths(guest: FlaskClient):
    answer = guest.get("/nowhere")

    assert answer.status_code == 404
    assert answer.json["error"]["code"] == "not_found"


def test_the_api_answers_for_its_own_paths(member: FlaskClient):
    answer = member.get("/v1/nowhere", headers=HTML)

    assert answer.status_code == 404
    assert answer.mimetype == "application/json"


def test_another_tenant_sees_nothing_of_ours(app: Flask, farm: Farm, stage: Stage):
    video_id = stage.submit("a secret ball")
    stranger = app.test_client()
    stranger.post("/login", data={"key": keys.create(farm, "them", "submit", tenant="t2")[1]})

    assert stranger.get(f"/jobs/{video_id}", headers=HTML).status_code == 404
    assert stranger.get(f"/jobs/{video_id}/image", headers=HTML).status_code == 404
    assert "secret" not in stranger.get("/jobs").text + stranger.get("/").text


def finished(stage: Stage) -> str:
    video_id = stage.submit("a ball")
    stage.complete(stage.claim().fence)
    return video_id


def test_a_remix_leads_to_itself_beside_its_original(member: FlaskClient, stage: Stage):
    first = finished(stage)
    form = {"csrf_token": token_of(member)}
    second = member.post(f"/jobs/{first}/rerun", data=form).location.rpartition("/")[2]
    stage.complete(stage.claim().fence)

    link = f"/compare?ids={first},{second}"
    assert f'href="{link}"' in member.get(f"/jobs/{second}").text
    assert "All settings are the same" in member.get(link).text


@pytest.mark.parametrize("count", [0, 1, 7])
def test_fewer_than_two_or_more_than_six_are_not_compared(member: FlaskClient, count: int):
    ids = ",".join(f"video_{number}" for number in range(count))

    answer = member.get(f"/compare?ids={ids}", headers=HTML)

    assert answer.status_code == 400
    assert f"ids names {count} video" in answer.text


def test_an_unfinished_or_expired_video_is_named_with_what_to_do(member: FlaskClient, stage: Stage):
    done, expired = finished(stage), finished(stage)
    waiting = stage.submit("a ball")
    edit(stage.farm, expired, result={"expired": True})

    early = member.get(f"/compare?ids={done}&ids={waiting}", headers=HTML)
    late = member.get(f"/compare?ids={done}&ids={expired}", headers=HTML)

    assert (early.status_code, late.status_code) == (409, 410)
    assert f"no file of …{waiting[-5:]} (queued)" in early.text
    assert f"no file of …{expired[-5:]} (expired)" in late.text
    assert "Re-run it" in late.text


def test_what_is_unknown_or_of_others_cannot_be_compared(
    app: Flask, farm: Farm, member: FlaskClient, stage: Stage
):
    ours = f"{finished(stage)},{finished(stage)}"
    stranger = app.test_client()
    stranger.post("/login", data={"key": keys.create(farm, "them", "submit", tenant="t2")[1]})

    assert member.get(f"/compare?ids={ours}", headers=HTML).status_code == 200
    assert member.get(f"/compare?ids={ours},video_x", headers=HTML).status_code == 404
    assert stranger.get(f"/compare?ids={ours}", headers=HTML).status_code == 404


def weight(client: FlaskClient, url: str) -> int:
    with client.get(url) as answer:
        return len(gzip.compress(answer.data))


def test_a_page_is_light(member: FlaskClient, stage: Stage):
    for number in range(12):
        stage.submit(f"ball {number}")
    page = member.get("/").text
    urls = [part.partition('"')[0] for part in page.split('="/static/')[1:]]

    names = [f"/static/{url}" for url in urls]
    base = names[0].rpartition("/app/")[0]
    names += [f"{base}/app/{module}.js" for module in ("live", "keys", "forms")]
    total = sum(weight(member, name) for name in set(names))

    assert total + len(gzip.compress(page.encode())) < 70_000
