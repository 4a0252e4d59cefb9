"""What people meet when the result store runs out of room."""

import io

import pytest

from tests.api.callers import Caller, png, rows

TEXT = {"json": {"prompt": "a boat"}}


@pytest.fixture
def settings(settings, small_disk):
    """More free space is asked for than the disk has when it is empty."""
    return settings.model_copy(update={"data_dir": small_disk, "min_free_mb": 1_000})


@pytest.mark.parametrize("with_image", [False, True])
def test_a_new_video_is_refused_for_now(api: Caller, farm, with_image):
    picture = {"data": {"prompt": "a boat", "input_reference": (io.BytesIO(png()), "a.png")}}

    answer = api.post("/v1/videos", **(picture if with_image else TEXT))

    assert (answer.status_code, answer.json["error"]["code"]) == (503, "storage_full")
    assert "WANFARM_MIN_FREE_MB" in answer.json["error"]["message"]
    assert (answer.headers["Retry-After"], answer.headers["x-should-retry"]) == ("60", "true")
    assert (rows(farm), farm.storage.names("images")) == (0, [])


def test_the_farm_says_so_and_still_answers(api: Caller):
    ready = api.get("/readyz")
    page = api.get("/", headers={"Accept": "text/html"})

    assert (ready.status_code, ready.json["status"]) == (200, "degraded")
    assert ready.json["checks"]["storage"] == "nearly full, new videos are refused"
    assert "WANFARM_MIN_FREE_MB" in page.text
