"""What the processes of a farm say of themselves: figures that add up, and no secret."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import update

from shared.jobs import keys, webhooks
from shared.machinery.tables import Video
from tests.farm.conftest import CAMERA, House, free_port
from tests.services.receiver import Receiver

PROMPT = "a wolf that nobody must read about"


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def told(url: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(
        one.value
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60).text)
        for one in family.samples
        if one.name == f"wanfarm_{name}" and labels.items() <= one.labels.items()
    )


def refused(url: str) -> float:
    """How many requests without a key the API has counted."""
    route = {"route": "/v1/models", "status": "401"}
    return told(url, "http_request_duration_seconds_count", **route)


def counts_of(pid: int) -> Path:
    """The folder in which a process of gunicorn counts."""
    found = re.search(r"\S*/wanfarm-metrics-\w+", Path(f"/proc/{pid}/maps").read_text())
    assert found
    return Path(found[0])


def test_what_cannot_even_be_parsed_is_refused_in_the_envelope(
    house: House, eventually: Callable[..., object]
):
    url = house.serve()
    eventually(lambda: answers(url), within=30)
    spoiled = {
        "a line too long": f"GET /v1/videos?q={'x' * 9000} HTTP/1.1\r\nHost: a\r\n\r\n",
        "a header without a name": "GET /v1/videos HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "no HTTP": "hello\r\n\r\n",
    }

    for what, text in spoiled.items():
        with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=60) as line:
            line.sendall(text.encode())
            head, _, body = line.makefile("rb").read().partition(b"\r\n\r\n")
        error = json.loads(body)["error"]
        assert head.startswith(b"HTTP/1.1 400 "), what
        assert (error["code"], error["param"]) == ("invalid_header", None), what
        assert error["request_id"].startswith("req_"), what


def test_the_processes_of_the_api_count_together_and_one_that_dies_takes_nothing_along(
    house: House, eventually: Callable[..., object]
):
    url = house.serve(api_processes=2)
    master = house.workers[-1]
    eventually(lambda: answers(url) and len(master.ranks()) == 2, within=30)
    for _ in range(20):
        httpx.get(f"{url}/v1/models", timeout=60)
    first, second = master.ranks()
    folder = counts_of(first)
    assert counts_of(second) == folder
    eventually(lambda: len(list(folder.glob("histogram_*.db"))) == 2)
    assert {refused(url) for _ in range(6)} == {20}

    os.kill(first, signal.SIGKILL)
    eventually(lambda: second in master.ranks() and len({*master.ranks()} - {first}) == 2)

    httpx.get(f"{url}/v1/models", timeout=60)
    assert {refused(url) for _ in range(6)} == {21}
    assert not list(folder.glob(f"gauge_*_{first}.db"))

    master.kill()
    eventually(lambda: not folder.exists())


@pytest.fixture
def settings(settings):
    planted = {"secret_key": SecretStr("planted-secret-key")}
    given = {"log_level": "DEBUG", "webhook_allow_private": True}
    return settings.model_copy(update=planted | given)


def log_in(client: httpx.Client, once: str) -> str:
    """Use a one-time login up, and look around with the cookie; gives it."""
    client.get("/login", params={"t": once})
    entered = client.post("/login", data={"token": once}, headers={"X-Request-ID": "it-was-me"})
    cookie = entered.cookies["wanfarm_session"]
    client.get("/", headers={"Cookie": f"wanfarm_session={cookie}"})
    return cookie


def render(client: httpx.Client, completes: Callable[..., dict], **asked: str) -> str:
    """Have a video made, and fetch it by its signed link; gives the signature."""
    video_id = client.post("/v1/videos", json=asked).raise_for_status().json()["id"]
    completes(video_id)
    link = client.get(f"/v1/videos/{video_id}").json()["url"]
    assert client.get(link).status_code == 200
    return link.partition("sig=")[2]


def go_wrong(client: httpx.Client, house: House, wait: Callable[..., object], key: str) -> None:
    """Meet a client's faults, one of a rank and one of the API's own."""
    client.get(f"/v1/nothing?key={key}")
    with socket.create_connection((client.base_url.host, client.base_url.port)) as line:
        line.sendall(f"GET /v1/models?key={key} NONSENSE\r\n\r\n".encode())
        assert b"400 Bad Request" in line.recv(100)
    client.post("/v1/videos", json={"prompt": PROMPT, "frames": PROMPT})
    worker = house.start(engine="tests.engine.filming:Gossip")
    video_id = client.post("/v1/videos", json={"prompt": PROMPT}).json()["id"]
    wait(lambda: "ranks.fault" in worker.log.read_text(), within=30)
    with house.farm.db.connect() as db:  # as another version might have left it
        db.execute(update(Video).where(Video.id == video_id).values(spec={"prompt": PROMPT}))
    assert client.get(f"/v1/videos/{video_id}").status_code == 500
    worker.kill()


def test_no_process_writes_a_secret_into_its_log(house: House, eventually, completes):
    key_id, key = keys.create(house.farm, "planted", "admin")
    once = keys.create_login_token(house.farm, key_id)
    secret = webhooks.secrets_of(house.farm, "default").all[0]
    url, port = house.serve(), free_port()
    worker = house.start(engine=CAMERA, metrics_port=port)
    house.start("worker.upkeep")
    eventually(lambda: answers(url), within=30)
    header = {"Authorization": f"Bearer {key}", "X-Request-ID": key}

    with Receiver() as receiver, httpx.Client(base_url=url, headers=header, timeout=60) as client:
        signed = render(client, completes, prompt=PROMPT, webhook_url=receiver.url)
        eventually(lambda: receiver.got, within=20)
        signature = receiver.got[0].headers["webhook-signature"].split(",")[1]
        assert told(f"http://127.0.0.1:{port}", "jobs_finished_total", state="completed") == 1
        worker.leave()
        go_wrong(client, house, eventually, key)
    with httpx.Client(base_url=url, timeout=60) as browser:
        cookie = log_in(browser, once)

    text = "\n".join(one.log.read_text() for one in house.workers)
    planted = [key, once, secret, cookie, PROMPT, "planted-secret-key", signed, signature]
    assert [one for one in planted if one in text] == []
    the_lines_tell_what_happened([json.loads(one) for one in text.splitlines() if one[:1] == "{"])


def the_lines_tell_what_happened(lines: list[dict]) -> None:
    def line(event: str, **facts: str) -> dict:
        return next(one for one in lines if one["event"] == event and facts.items() <= one.items())

    assert {one["service"] for one in lines} == {"api", "worker", "upkeep"}
    submitted, ended = line("video.submitted"), line("attempt.ended")
    assert (submitted["request_id"], submitted["job_id"]) == ("[secret]", ended["job_id"])
    assert submitted["prompt"]["chars"] == len(PROMPT)
    fault = line("ranks.fault")
    assert (fault["group"], fault["rank"]) == ("g0", 0)
    assert "nobody can draw [prompt]" in fault["trace"]
    assert line("request.answered", request_id="it-was-me")["status"] == 303
    assert line("request.failed")["level"] == "error"
    assert any("Invalid request" in one["event"] for one in lines)  # in gunicorn's words
    assert line("delivery.tried")["status"] == 200
