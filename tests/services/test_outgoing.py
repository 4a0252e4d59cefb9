"""A POST to a stranger's address: vetted, checked by its certificate, and bounded."""

import ssl

import pytest

from tests.services.receiver import CERTIFICATE, Receiver
from worker.outgoing import Sender


@pytest.fixture
def receiver():
    with Receiver() as one:
        yield one


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::1]"])
def test_outside_a_lab_nothing_private_is_called_however_it_is_written(receiver, host):
    tls = ssl.create_default_context()
    url = f"https://{host}:{receiver.port}/"

    answer = Sender(tls).post(url, b"{}", {})
    shown = Sender(tls, allow_private=True).post(url.replace("https", "http"), b"{}", {})

    assert answer.status is None
    assert "public internet" in answer.problem
    assert host == "[::1]" or shown.status == 200  # the address does lead to the receiver
    assert len(receiver.got) == (host != "[::1]")


def test_the_certificate_must_be_the_hosts(tmp_path):
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    with Receiver(secure=True) as receiver:
        url = f"https://localhost:{receiver.port}/"

        good = Sender(trusting, allow_private=True).post(url, b"{}", {})
        other_name = Sender(trusting, allow_private=True).post(
            url.replace("localhost", "127.0.0.1"), b"{}", {}
        )
        unknown = Sender(ssl.create_default_context(), allow_private=True).post(url, b"{}", {})

    assert (good.status, good.head) == (200, "thank you")
    assert [one.status for one in (other_name, unknown)] == [None, None]
    assert "certificate" in other_name.problem
    assert "certificate" in unknown.problem
    assert len(receiver.got) == 1


def test_a_receiver_that_does_not_answer_is_left_in_time(receiver):
    receiver.go.clear()

    answer = Sender(ssl.create_default_context(), allow_private=True, total_s=0.2).post(
        receiver.url, b"{}", {}
    )

    assert (answer.status, answer.problem) == (None, "No answer came in time.")


def test_of_a_long_answer_only_the_beginning_is_read(receiver):
    receiver.text = "\0" + "x" * 5_000_000

    answer = Sender(ssl.create_default_context(), allow_private=True).post(receiver.url, b"", {})

    assert (answer.status, len(answer.head), answer.head[:2]) == (200, 1024, "\ufffdx")
