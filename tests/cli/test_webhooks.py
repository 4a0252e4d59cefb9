"""The verbs of webhooks."""

import json

import pytest

from shared.jobs import deliveries
from shared.jobs.deliveries import Answer

URL = "https://hooks.example/farm"


@pytest.fixture
def hook(wanfarm) -> str:
    return wanfarm("webhooks", "add", URL, "--event", "video.failed", "--quiet").out.strip()


def test_a_webhook_is_added_listed_and_removed(wanfarm, hook):
    head, row = wanfarm("webhooks", "ls").out.splitlines()
    shown = dict(zip(head.split("\t"), row.split("\t"), strict=True))

    assert (shown["id"], shown["url"], shown["events"]) == (hook, URL, "failed")
    assert wanfarm("webhooks", "rm", hook).code == 0
    assert "There is no webhook" in wanfarm("webhooks", "rm", hook).err


def test_a_bad_address_is_refused_with_its_reason(wanfarm):
    said = wanfarm("webhooks", "add", "https://10.0.0.1/")

    assert said.code == 8
    assert "public internet" in said.err


def test_what_was_sent_is_listed_and_sent_again(wanfarm, farm, hook):
    sent = wanfarm("webhooks", "test", hook, "--quiet").out.strip()
    deliveries.record(farm, deliveries.claim(farm), Answer(410, 12))

    (row,) = wanfarm("webhooks", "deliveries", "--state", "dead").out.splitlines()[1:]
    assert row.split("\t")[0] == sent
    assert "410" in row.split("\t")
    again = json.loads(wanfarm("webhooks", "deliveries", "--redeliver", sent, "--json").out)
    assert (again["id"], again["state"]) == (sent, "pending")


def test_the_secret_is_printed_and_rotated(wanfarm):
    first = wanfarm("webhooks", "secret").out
    second = wanfarm("webhooks", "secret", "--rotate").out

    assert first.startswith("whsec_")
    assert first != second
    assert wanfarm("webhooks", "secret").out == second


def test_a_video_is_submitted_with_an_address_of_its_own(wanfarm):
    assert wanfarm("submit", "a ball", "--webhook", URL).code == 0
    assert "https://" in wanfarm("submit", "a ball", "--webhook", "http://hooks.example/").err
