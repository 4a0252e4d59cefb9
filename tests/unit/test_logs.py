"""Log lines: their keys in order, in every thread, and no secret in any of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.machinery import logs

ROOT = Path(__file__).parents[2]
WRITE = """
import logging, sys, threading
from shared.machinery import logs
logs.configure("INFO", service="api")
logs.begin(request_id="req_1")
logs.begin(request_id="req_2")
log = logs.logger(group="g0")
log.info("it.happened", attempt=1, job_id="video_1", rank=3, more={"seen": 1})
log.debug("it.whispered")
thread = threading.Thread(target=lambda: logs.logger().info("beside"))
thread.start()
thread.join()
logging.getLogger("lib").warning("of a library")
secret = sys.argv[1]
log.info("planted", text=f"before {secret} after", deep=[{secret: secret}])
logging.getLogger("lib").warning("planted %s", secret)
try:
    raise ValueError(secret)
except ValueError:
    log.exception("planted")
"""
SECRETS = {
    "a key": "wf_0a1b2c3d_Zx-9_kd83hdSECRET",
    "a webhook's secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=",
    "a webhook's signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    "a password of Postgres": "postgresql+psycopg://farm:SECRET@db/farm",
    "a password of Redis": "redis://:SECRET@cache:6379/0",
    "a cookie": "wanfarm_session=eyJrZXkiOiJ4In0.aSc4Vg.q-SECRET_9Qw1",
    "a cookie's value": "eyJrZXkiOiJ4In0.aSc4Vg.q-SECRET_9Qw1",
    "a one-time login": "/login?t=SECRETq8fj3hd8",
    "a signed link": "/v1/videos/video_1/content?exp=1&sig=5ec4e7SECRET",
    "a signed link of S3": "https://s3/x?X-Amz-Expires=1&X-Amz-Signature=5ec4e7SECRET",
    "a header": "Authorization: Bearer SECRET",
    "a prompt in pydantic's words": "[type=string_type, input_value='SECRET', input_type=str]",
}


def lines(secret: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", WRITE, secret], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return ran.stderr.splitlines()


def test_a_line_has_its_keys_in_order_and_says_whose_it_is():
    first, beside, library, *_ = map(json.loads, lines("-"))

    head = ["ts", "level", "event", "service", "request_id", "job_id", "attempt", "group", "rank"]
    assert [*first] == [*head, "more"]
    assert (first["level"], first["service"], first["request_id"]) == ("info", "api", "req_2")
    assert list(beside) == ["ts", "level", "event", "service"]
    assert (library["event"], library["service"]) == ("of a library", "api")


def test_no_secret_is_written_wherever_it_stands():
    """All at once, as a process takes longer to start than to write."""
    told = "\n".join(lines(" ".join(SECRETS.values())))

    assert told.count("planted") >= 3
    assert "SECRET" not in told
    assert "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" not in told
    assert "K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN" not in told
    assert "before [secret]" in told
    for line in told.splitlines():
        json.loads(line)


@pytest.mark.parametrize("name", SECRETS)
def test_each_secret_is_known(name):
    assert "[secret]" in logs.redacted(SECRETS[name])


@pytest.mark.parametrize(
    "text",
    [
        "video_01m7q5cqg0eejstb3z1dq9397k",
        "req_01m7q5cqg0eejstb3z1dq9397k",
        "http://127.0.0.1:8080/v1/videos?after=x&limit=2",
        "design=modern, v1, v2",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_is_no_secret_stays(text):
    assert logs.redacted(text) == text


def test_a_prompt_is_told_by_length_and_hash_unless_people_want_it():
    assert logs.prompt("a paper boat", whole=True) == "a paper boat"
    assert logs.prompt("a paper boat", whole=False) == {"chars": 12, "sha256": "9629c1d31fe836a2"}
