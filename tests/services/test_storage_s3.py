"""A store in a bucket: what it refuses, what it leaves behind, and a farm that works with it."""

import subprocess
import sys
from dataclasses import replace

import httpx
import pytest

from shared.jobs import invariants, lifecycle, queries, removal
from shared.machinery.farm import open_storage
from shared.machinery.settings import ConfigurationError, child_environment, load_settings
from shared.machinery.storage import LocalStorage, Served, fault_of
from shared.vocabulary.errors import WanfarmError
from tests.conftest import S3_PAGE
from tests.services.jobs import RESULT, claimed, completed, row, states_of, submit

KEY = "videos/video_1/1/video.mp4"
TELL = """
import sys
if sys.argv[1:]: sys.modules[sys.argv[1]] = None  # as if it were not installed
from shared.machinery.farm import open_storage
from shared.machinery.settings import ConfigurationError, load_settings
try:
    open_storage(load_settings(s3_bucket="farm"))
except ConfigurationError as err:
    print(err)
"""


@pytest.fixture
def store(bucket):
    return open_storage(load_settings(**bucket))


@pytest.fixture
def settings(settings, bucket):
    """The farm of these tests keeps its results in a bucket."""
    return settings.model_copy(update=bucket)


def away(settings):
    """The same with nobody at the endpoint."""
    return settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_key_stops_the_start(missing, bucket, monkeypatch):
    monkeypatch.delenv(missing)

    with pytest.raises(ConfigurationError, match=missing):
        open_storage(load_settings(**bucket))


def test_a_farm_without_the_package_says_what_to_install(bucket):
    script = [sys.executable, "-c", TELL, "boto3"]

    said = subprocess.run(script, capture_output=True, text=True, check=True).stdout

    assert said.endswith("Install wanfarm[s3].\n")


def test_no_key_stops_the_start():
    environment = {n: v for n, v in child_environment().items() if not n.startswith("AWS_")}
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}

    ran = subprocess.run(
        [sys.executable, "-c", TELL],
        env=environment | nowhere,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.startswith("WANFARM_S3_BUCKET needs AWS_ACCESS_KEY_ID")


def test_a_bucket_that_is_not_there_is_told(bucket):
    store = open_storage(load_settings(**bucket | {"s3_bucket": "nobodys"}))

    assert fault_of(store).code == "not_ready"
    assert "WANFARM_S3_BUCKET" in fault_of(store).message
    for ask in (store.names, store.delete_tree):
        with pytest.raises(WanfarmError, match="WANFARM_S3_BUCKET"):
            ask("videos")


def test_a_server_that_is_away_is_told(settings):
    store = open_storage(away(settings))

    assert "WANFARM_S3_ENDPOINT" in fault_of(store).message


def test_an_upload_that_was_killed_is_removed_when_it_is_old(store, bucket):
    address = f"{bucket['s3_endpoint']}/{bucket['s3_bucket']}"
    for key in ("wanfarm/videos/x", "of-others"):
        httpx.post(f"{address}/{key}?uploads").raise_for_status()

    assert store.drop_unfinished(100 * 365 * 86_400) == 0  # this server dates them all to 2010
    assert store.drop_unfinished(3600) == 1

    left = httpx.get(f"{address}?uploads").text
    assert ("wanfarm/videos/x" in left, "of-others" in left) == (False, True)


def test_only_what_is_below_the_prefix_is_ever_touched(store, bucket):
    other = open_storage(load_settings(**bucket, s3_prefix="others/"))
    for one in (store, other):
        one.put_bytes(b"mp4", KEY)

    store.delete_tree("videos/video_1")

    assert (store.read(KEY), other.read(KEY)) == (None, b"mp4")


@pytest.mark.parametrize("attached", [False, True])
def test_an_address_serves_the_file_as_it_should_be(store, attached):
    store.put_bytes(b"0123456789", KEY)
    served = Served("video/mp4", "a.mp4", attached=attached)

    answer = httpx.get(store.locate(KEY, served), headers={"Range": "bytes=2-4"})

    assert store.locate(KEY, served).startswith(f"{store.origin}/")
    assert (answer.status_code, answer.content) == (206, b"234")
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Disposition"].startswith("attachment" if attached else "inline")


def test_more_files_than_one_page_lists_are_all_seen_and_removed(store):
    for number in range(S3_PAGE + 1):
        store.put_bytes(b"1", f"videos/video_1/{number}")

    assert len(store.names("videos/video_1")) == S3_PAGE + 1
    store.delete_tree("videos/video_1")
    assert store.names("videos/video_1") == []


def test_a_video_is_rendered_from_and_into_a_bucket(farm, parent):
    video_id = submit(farm)

    parent.work()

    assert states_of(farm, video_id) == ["queued", "in_progress", "completed"]
    files = row(farm, video_id)["result"]["files"]
    assert all(farm.storage.exists(one["key"]) for one in files.values())
    assert list(invariants.broken(farm)) == []
    assert LocalStorage(farm.settings.data_dir).names("videos") == []


def test_what_nothing_refers_to_is_removed_from_a_bucket_and_what_is_needed_never(farm):
    done = claimed(farm).fence
    lifecycle.complete(farm, done, RESULT | {"attempt": 1}, {})
    needed = f"videos/{done.video_id}/1/video.mp4"
    fence = claimed(farm).fence
    running, stray = f"videos/{fence.video_id}/1/video.mp4", "videos/video_0000/1/video.mp4"
    young = removal.image_key("a" * 64)
    for key in (needed, running, stray, young):
        farm.storage.put_bytes(b"mp4", key)

    assert removal.drop_strays(farm) == 1

    kept = [key for key in (needed, running, stray, young) if farm.storage.exists(key)]
    assert kept == [needed, running, young]
    lifecycle.complete(farm, fence, RESULT, {})
    removal.delete(farm, fence.video_id, by="a person")
    assert not farm.storage.exists(running)


def test_a_parent_outlives_a_bucket_that_is_away(farm, settings, start):
    fence = claimed(farm, max_attempts=2).fence
    lifecycle.requeue_uncharged(farm, fence, "leaving")
    parent = start("Filmmaker", replace(farm, storage=open_storage(away(settings))))

    parent.work()  # it looks first for what the attempt before had stored

    ended = row(farm, fence.video_id)["attempts"][1]
    assert (ended["kind"], ended["outcome"]) == ("storage", "requeued")
    assert "WANFARM_S3_ENDPOINT" in ended["message"]
    assert parent.ranks.alive


def test_a_video_is_deleted_while_the_bucket_is_away(farm, settings):
    """It is hidden at once, and its files go when the store is back."""
    video_id = completed(farm)
    farm.storage.put_bytes(b"mp4", f"videos/{video_id}/1/video.mp4")
    cut_off = replace(farm, storage=open_storage(away(settings)))

    removal.delete(cut_off, video_id, by="a person")

    assert queries.one(farm, video_id, None) is None
    assert farm.storage.names("videos") == [video_id]
    assert removal.purge(farm) == 1
    assert farm.storage.names("videos") == []
