"""What every store promises: whole files or none, under keys of our own making."""

import hashlib
import os

import pytest

from shared.machinery.farm import open_storage
from shared.machinery.settings import load_settings
from shared.machinery.storage import fault_of

KEY = "videos/video_1/1/video.mp4"
LARGE = 20_000_000  # sent in parts


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path):
    if request.param == "local":
        return open_storage(load_settings(data_dir=tmp_path / "data"))
    return open_storage(load_settings(**request.getfixturevalue("bucket")))


@pytest.mark.parametrize("size", [3_000_000, LARGE, 0])
def test_a_file_is_stored_with_its_size_and_hash(store, tmp_path, size):
    source = tmp_path / "out.mp4"
    source.write_bytes(os.urandom(size))

    stored = store.put(source, KEY)

    assert (stored.key, stored.bytes) == (KEY, size)
    assert stored.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert store.sha256(KEY) == stored.sha256
    assert store.names("videos/video_1/1") == ["video.mp4"]


def test_bytes_are_stored_with_the_same_care(store):
    stored = store.put_bytes(b"png", "images/a.png")

    assert (stored.bytes, stored.sha256) == (3, hashlib.sha256(b"png").hexdigest())
    assert store.read("images/a.png") == b"png"


def test_storing_again_replaces_the_file(store):
    store.put_bytes(b"one", KEY)
    store.put_bytes(b"two", KEY)

    assert store.read(KEY) == b"two"


def test_a_source_that_vanished_leaves_the_earlier_file(store, tmp_path):
    store.put_bytes(b"one", KEY)

    with pytest.raises(FileNotFoundError):
        store.put(tmp_path / "nowhere.mp4", KEY)

    assert store.read(KEY) == b"one"


def test_what_is_not_there_is_none(store, tmp_path):
    store.put_bytes(b"1", KEY)  # its folder is no file

    for key in ("images/a.png", "videos/video_1/1"):
        assert store.exists(key) is False
        assert store.at_hand(key, tmp_path) is None
    for look in (store.read, store.sha256, store.age_s):
        assert look("images/a.png") is None
    assert store.names("images") == []


def test_names_are_those_right_below(store):
    for key in (KEY, "videos/video_1/result.json", "videos/video_2/1/video.mp4", "images/a.png"):
        store.put_bytes(b"1", key)

    assert store.names("videos") == ["video_1", "video_2"]
    assert store.names("videos/video_1") == ["1", "result.json"]


def test_a_file_is_at_hand_as_a_path(store, tmp_path):
    store.put_bytes(b"png", "images/a.png")

    assert store.at_hand("images/a.png", tmp_path).read_bytes() == b"png"


def test_a_new_file_is_young(store):
    store.put_bytes(b"png", "images/a.png")

    assert -2 < store.age_s("images/a.png") < 60


@pytest.mark.parametrize(
    "key",
    ["../secret", "/etc/passwd", "videos/../../x", "videos//x", ".hidden", "a/.b", "", "A", "a\n"],
    ids=repr,
)
def test_a_key_of_another_make_is_refused(store, key):
    with pytest.raises(AssertionError):
        store.put_bytes(b"1", key)


def test_a_tree_is_removed_with_all_it_holds(store):
    for key in (KEY, "videos/video_1/2/video.mp4", "videos/video_10/1/video.mp4"):
        store.put_bytes(b"1", key)

    store.delete_tree("videos/video_1")
    store.delete_tree("videos/video_1")

    assert store.names("videos") == ["video_10"]
    assert store.read("videos/video_10/1/video.mp4") == b"1"


def test_a_file_is_removed_once_or_more(store):
    store.put_bytes(b"1", "images/a.png")

    store.delete("images/a.png")
    store.delete("images/a.png")

    assert not store.exists("images/a.png")


def test_a_healthy_store_takes_files(store):
    assert fault_of(store) is None
