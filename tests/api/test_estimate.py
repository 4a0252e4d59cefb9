"""What a request would come to, before it is sent."""

import io
import time

import pytest

from shared.jobs import groups
from shared.jobs.groups import Identity, Reading
from shared.vocabulary.states import GroupState
from tests.api.callers import OFFER, Caller, Hand, png, rows

GIB = 2**30
MODEL = "wan2.2-t2v-a14b"
BODY = {"model": MODEL, "prompt": "a paper boat"}


def open_group(farm, name: str, gib: int | None = 80) -> None:
    identity = Identity(name, f"life-of-{name}", "host", 1, "cuda", OFFER.models)
    groups.register(farm, identity)
    cards = [{"rank": 0, "memory_total_bytes": gib and gib * GIB}]
    groups.beat(farm, identity, Reading(condition=GroupState.IDLE, devices=cards))


def test_a_request_is_foreseen_and_nothing_is_stored(api: Caller, farm):
    open_group(farm, "g0")
    now = time.time()

    told = api.post("/v1/videos/estimate", json=BODY | {"frames": 17})

    assert told.status_code == 200, told.text
    told = told.json
    assert (told["object"], told["fits"], told["queue_position"]) == ("video.estimate", ["g0"], 1)
    assert told["spec"]["frames"] == 17
    assert (told["basis"], told["cache_gain"]) == ("prior", None)
    assert told["run_s"]["p10"] < told["run_s"]["p50"] < told["run_s"]["p90"]
    assert told["gpu_seconds"] == told["run_s"]["p50"]
    assert told["starts_at"] >= int(now)
    assert told["completes_at"] >= told["starts_at"] + int(told["run_s"]["p50"])
    assert 0 < told["peak_memory_mb"] < 80 * 1024
    assert rows(farm) == 0


def test_the_farms_own_runs_tell_more_than_a_prior(api: Caller, hand: Hand, farm):
    open_group(farm, "g0")
    for _ in range(8):
        api.make(**BODY, cache="off")
        hand.complete(hand.claim(), {"peak_memory_bytes": 3 * GIB})

    told = api.post("/v1/videos/estimate", json=BODY | {"cache": "off"}).json

    assert (told["basis"], told["peak_memory_mb"], told["cache_gain"]) == ("measured", 3 * 1024, 1)


def test_without_a_group_it_says_what_it_can(api: Caller):
    told = api.post("/v1/videos/estimate", json=BODY).json

    assert (told["fits"], told["starts_at"], told["completes_at"]) == ([], None, None)
    assert told["run_s"]["p50"] > 0
    assert told["peak_memory_mb"] is None


def test_what_the_request_would_be_refused_for_is_refused_here(api: Caller, farm):
    open_group(farm, "g0", gib=12)

    large = api.post("/v1/videos/estimate", json=BODY | {"frames": 193})
    wrong = api.post("/v1/videos/estimate", json=BODY | {"frames": 80})

    assert (large.status_code, large.json["error"]["code"]) == (422, "does_not_fit")
    assert (wrong.status_code, wrong.json["error"]["param"]) == (400, "frames")


def test_only_groups_with_the_memory_are_named(api: Caller, farm):
    open_group(farm, "g0", gib=12)
    open_group(farm, "g1", gib=141)

    told = api.post("/v1/videos/estimate", json=BODY | {"frames": 193}).json

    assert told["fits"] == ["g1"]


@pytest.mark.parametrize("image", [None, png(200, 100)], ids=["text", "image"])
def test_an_image_is_looked_at_and_not_kept(api: Caller, farm, image):
    part = {"input_reference": (io.BytesIO(image), "a.png")} if image else {}
    form = {"prompt": "a boat"} | part

    told = api.post("/v1/videos/estimate", data=form, content_type="multipart/form-data")

    assert told.status_code == 200, told.text
    assert bool(told.json["spec"]["image"]) == bool(image)
    assert farm.storage.names("images") == []


def test_a_batch_is_foreseen_one_video_behind_the_other(api: Caller, farm):
    open_group(farm, "g0")
    asked = {"request": BODY | {"frames": 17}, "seeds": [1, 2], "grid": {"steps": [10, 20]}}

    told = api.post("/v1/batches/estimate", json=asked).json

    assert (told["object"], told["total"], rows(farm)) == ("batch.estimate", 4, 0)
    assert [one["set"] for one in told["data"]] == [
        {"steps": steps, "seed": seed} for steps in (10, 20) for seed in (1, 2)
    ]
    assert [one["queue_position"] for one in told["data"]] == [1, 2, 3, 4]
    costs = [one["gpu_seconds"] for one in told["data"]]
    assert told["gpu_seconds"] == pytest.approx(sum(costs))
    assert costs[0] == costs[1] < costs[2]
    ends = [one["completes_at"] for one in told["data"]]
    assert ends == sorted(ends)
    assert told["completes_at"] == ends[-1]


def test_what_is_wrong_with_a_foreseen_batch_is_said_where_it_stands(api: Caller, farm):
    open_group(farm, "g0", gib=12)
    fits = api.post("/v1/batches/estimate", json={"request": BODY, "grid": {"frames": [5, 81]}})
    wrong = api.post("/v1/batches/estimate", json={"request": BODY, "grid": {"frames": [5, 6]}})

    assert (fits.status_code, fits.json["error"]["code"]) == (422, "does_not_fit")
    assert (wrong.status_code, wrong.json["error"]["param"]) == (400, "grid.frames[1]")


def test_a_batch_without_a_group_has_no_end(api: Caller):
    told = api.post("/v1/batches/estimate", json={"request": BODY, "variations": 2}).json

    assert (told["total"], told["completes_at"]) == (2, None)
    assert told["gpu_seconds"] > 0
