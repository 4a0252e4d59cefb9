"""How the client finds a farm, and how patient it is with one that falters."""

import http.server
import json
import threading

import pytest

from cli.client import Ask, Client, Exit, FarmError, Target, find_target, parse_events
from cli.local import Local
from shared.machinery.settings import ConfigurationError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A state directory as `wanfarm up` leaves it, and nothing in the environment."""
    for name in ("WANFARM_URL", "WANFARM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    local = Local(tmp_path)
    monkeypatch.setenv("WANFARM_DATA_DIR", str(local.root))
    key_file = local.secret("admin-key", "wf_local")
    local.publish({"url": "http://127.0.0.1:8080", "admin_key_file": str(key_file)})
    return local


@pytest.mark.usefixtures("here")
def test_a_running_farm_of_this_folder_is_found_with_its_key():
    assert find_target(None, None) == Target("http://127.0.0.1:8080", "wf_local")


@pytest.mark.usefixtures("here")
def test_the_environment_beats_the_folder_and_options_beat_both(monkeypatch):
    monkeypatch.setenv("WANFARM_URL", "https://farm.example/")
    monkeypatch.setenv("WANFARM_API_KEY", "wf_environment")

    assert find_target(None, None) == Target("https://farm.example", "wf_environment")
    assert find_target("http://other", "wf_given") == Target("http://other", "wf_given")


@pytest.mark.usefixtures("here")
def test_the_key_of_this_folders_farm_goes_to_no_other():
    assert find_target("http://elsewhere", None).key is None


def test_no_farm_at_all_is_exit_code_6(here):
    here.forget()

    with pytest.raises(FarmError, match="wanfarm up") as caught:
        find_target(None, None)

    assert caught.value.exit_code == Exit.UNREACHABLE


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("url", ["farm:8080", "http://farm:port"])
def test_a_url_that_is_none_is_a_usage_error(url):
    with pytest.raises(FarmError) as caught:
        Client(find_target(url, None), print)

    assert caught.value.exit_code == Exit.USAGE


@pytest.mark.usefixtures("here")
def test_a_mistyped_setting_is_told_before_anything_is_sent(monkeypatch):
    monkeypatch.setenv("WANFARM_APIKEY", "x")

    with pytest.raises(ConfigurationError, match="WANFARM_API_KEY"):
        find_target(None, None)


def test_a_key_never_shows_in_a_representation():
    assert "secret" not in repr(Target("http://farm", "wf_secret"))


class Faltering(http.server.ThreadingHTTPServer):
    """Something in front of a farm that gives prepared answers and keeps what it was asked."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.asked.append(self.headers)
        answer = self.server.answers.pop(0)
        if answer is None:  # gone before it answered
            self.connection.close()
            return
        status, headers, body = answer
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": len(content)}).items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def log_message(self, *_words):
        pass


@pytest.fixture
def faltering():
    running = []

    def start(*answers):
        server = Faltering(answers)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join(5)
        server.server_close()


FULL = {"error": {"code": "queue_full", "message": "The queue is full.", "request_id": "req_1"}}


def test_a_farm_that_asks_to_come_again_is_asked_again_and_says_so(faltering):
    server = faltering((429, {"Retry-After": 1}, FULL), (200, {}, {"id": "video_1"}))
    notes = []

    with Client(Target(server.url, None), notes.append) as client:
        video = client.ask(Ask("POST", "/v1/videos", {}, headers={"Idempotency-Key": "k"}))

    assert video == {"id": "video_1"}
    assert [asked["Idempotency-Key"] for asked in server.asked] == ["k", "k"]
    assert notes == ["queue_full: The queue is full. Trying again in 1 s."]


def test_patience_ends(faltering):
    server = faltering((429, {"Retry-After": 600}, FULL))

    with Client(Target(server.url, None), print) as client, pytest.raises(FarmError) as caught:
        client.get("/v1/videos")

    assert caught.value.exit_code == Exit.REJECTED


def test_an_answer_that_is_lost_is_asked_for_again(faltering):
    server = faltering(None, (200, {}, {"id": "video_1"}))

    with Client(Target(server.url, None), print) as client:
        assert client.ask(Ask("POST", "/v1/videos", {})) == {"id": "video_1"}


def test_what_must_not_happen_twice_is_not_sent_twice(faltering):
    server = faltering(None, (200, {}, {}))

    with Client(Target(server.url, None), print) as client, pytest.raises(FarmError) as caught:
        client.ask(Ask("POST", "/v1/keys", {}, repeatable=False))

    assert caught.value.exit_code == Exit.UNREACHABLE
    assert len(server.asked) == 1


def test_an_error_page_of_a_proxy_is_told_by_its_status(faltering):
    server = faltering((502, {}, "bad gateway"))

    with Client(Target(server.url, None), print) as client, pytest.raises(FarmError) as caught:
        client.get("/v1/videos")

    assert caught.value.message == "The farm answered HTTP 502."


def test_events_are_read_past_comments_and_unknown_fields():
    stream = 'retry: 2000\n\n: hello\n\nid: 3\nevent: step\nfoo: 1\ndata: {"a":\ndata: 1}\n\n'

    (event,) = parse_events(stream.split("\n"))

    assert (event.id, event.type, event.data) == (3, "step", {"a": 1})
