"""The openai client repeats a POST whose answer was lost, without a key: one video all the same."""

import pytest

from tests.api.callers import Caller, rows

BODY = {"prompt": "a paper boat", "seed": 1}


def send(api: Caller, count: int, **changes) -> tuple[str, str | None]:
    """Ask for a video as the client does; gives its id, and whether it was there before."""
    headers = {"X-Stainless-Retry-Count": str(count)}
    answer = api.post("/v1/videos", json=BODY | changes, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json["id"], answer.headers.get("Idempotency-Replayed")


def test_a_retry_gets_the_video_of_the_request_before(api: Caller, farm):
    first, _ = send(api, 0)

    assert send(api, 1) == (first, "true")
    assert send(api, 2) == (first, "true")
    assert rows(farm) == 1


def test_two_equal_requests_are_two_videos(api: Caller, farm):
    assert send(api, 0) != send(api, 0)
    assert rows(farm) == 2


def test_the_retry_of_a_second_equal_request_is_no_retry_of_the_first(api: Caller, farm):
    first, _ = send(api, 0)
    send(api, 1)

    second, replayed = send(api, 1)  # its own first try never came

    assert (second != first, replayed) == (True, None)


@pytest.mark.parametrize("changes", [{"seed": 2}, {"prompt": "a boat"}], ids=["seed", "prompt"])
def test_another_request_is_not_taken_for_a_retry(api: Caller, farm, changes):
    first, _ = send(api, 0)

    assert send(api, 1, **changes)[0] != first


def test_a_retry_whose_first_try_never_came_makes_the_video(api: Caller, farm):
    made, replayed = send(api, 1)

    assert replayed is None
    assert send(api, 2) == (made, "true")


def test_another_key_retries_nothing_of_ours(api: Caller, admin: Caller, farm):
    first, _ = send(api, 0)

    assert send(admin, 1)[0] != first
