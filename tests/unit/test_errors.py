"""Errors: each has a public code, a status that clients know, and words for people."""

import pytest

from shared.vocabulary.errors import (
    CODES,
    JOB_CODES,
    Fault,
    JobFailure,
    RequestRejected,
    StaleAttempt,
    WanfarmError,
)
from shared.vocabulary.spec import FailureKind

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    410: "not_found_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    416: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


@pytest.mark.parametrize("name", CODES)
def test_a_code_has_the_type_that_goes_with_its_status(name):
    code = CODES[name]

    assert code.type == TYPES[code.status]
    assert name == name.lower()


@pytest.mark.parametrize("name", CODES)
def test_clients_are_told_to_retry_only_what_can_pass(name):
    lasts = name == "quota_exceeded"  # for the rest of the day
    assert CODES[name].retryable == (CODES[name].status in {429, 500, 503} and not lasts)


def test_an_error_keeps_what_it_says():
    err = WanfarmError("queue_full", "The queue is full.", param="model", retry_after_s=30)

    assert str(err) == err.message == "The queue is full."
    assert (err.code, err.param, err.retry_after_s) == ("queue_full", "model", 30)


def test_an_error_without_a_public_code_is_our_bug():
    with pytest.raises(AssertionError, match="made_up"):
        WanfarmError("made_up", "No.")


def test_of_many_faults_the_first_heads_the_answer():
    faults = [
        Fault("frames", "invalid_value", "frames is 80."),
        Fault("size", "unknown_field", "size?"),
    ]

    err = RequestRejected(faults)

    assert (err.code, err.param, err.message) == ("invalid_value", "frames", "frames is 80.")
    assert err.faults == faults


@pytest.mark.parametrize("kind", FailureKind)
def test_every_way_to_fail_has_a_public_code(kind):
    assert JobFailure(kind, "").code == JOB_CODES[kind]


def test_a_late_attempt_is_not_an_answer_to_anyone():
    assert not issubclass(StaleAttempt, WanfarmError)
