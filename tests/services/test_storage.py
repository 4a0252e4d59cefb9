"""Files are stored whole or not at all, under keys of our own making."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.machinery.storage import LocalStorage
from shared.vocabulary.errors import WanfarmError

KEY = "videos/video_1/1/video.mp4"


@pytest.fixture
def store(tmp_path):
    return LocalStorage(tmp_path / "data")


def files_in(tmp_path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "data").rglob("*") if p.is_file())


def test_a_file_is_stored_with_its_size_and_hash(store, tmp_path):
    source = tmp_path / "out.mp4"
    source.write_bytes(b"m" * 3_000_000)

    stored = store.put(source, KEY)

    assert (stored.key, stored.bytes) == (KEY, 3_000_000)
    assert stored.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert store.path(KEY).read_bytes() == source.read_bytes()
    assert files_in(tmp_path) == ["video.mp4"]


def test_bytes_are_stored_with_the_same_care(store, tmp_path):
    stored = store.put_bytes(b"png", "images/a.png")

    assert (stored.bytes, stored.sha256) == (3, hashlib.sha256(b"png").hexdigest())
    assert files_in(tmp_path) == ["a.png"]


def test_storing_again_replaces_the_file(store):
    store.put_bytes(b"one", KEY)
    store.put_bytes(b"two", KEY)

    assert store.path(KEY).read_bytes() == b"two"


def test_a_source_that_vanished_leaves_nothing(store, tmp_path):
    with pytest.raises(FileNotFoundError):
        store.put(tmp_path / "nowhere.mp4", KEY)

    assert files_in(tmp_path) == []


def test_a_full_disk_is_told_and_keeps_the_earlier_file_whole(small_disk, tmp_path):
    store = LocalStorage(small_disk / "data")
    store.put_bytes(b"one", KEY)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2 << 20))

    for put in (lambda: store.put(large, KEY), lambda: store.put_bytes(bytes(2 << 20), KEY)):
        with pytest.raises(WanfarmError, match="Free space") as refused:
            put()
        assert (refused.value.code, refused.value.retry_after_s) == ("storage_full", 60)

    assert store.path(KEY).read_bytes() == b"one"
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["video.mp4"]


DELETE_AT = """
import sys
from pathlib import Path
from shared.machinery.storage import LocalStorage
store, key, moments, busy = LocalStorage(Path(sys.argv[1])), sys.argv[2], [*sys.argv[3:]], []
def delete(event, args):
    what, _, ending = moments[0].partition(" ") if moments and not busy else ("", "", "")
    if event == what and str(args[0]).endswith(ending):
        busy.append(moments.pop(0))
        store.delete_tree("videos/video_1")
        busy.clear()
sys.addaudithook(delete)  # runs right before what it is told of
store.put_bytes(b"mp4", key)
assert not moments, moments
"""
WRITE, RENAME, SYNC = "open .part", "os.rename .part", "open _1/1"


@pytest.mark.parametrize("moments", [[WRITE], [RENAME], [SYNC], [WRITE, RENAME, SYNC, WRITE]])
def test_a_folder_that_is_deleted_while_a_file_is_stored_is_made_again(store, tmp_path, moments):
    script = [sys.executable, "-c", DELETE_AT, tmp_path / "data", KEY, *moments]

    subprocess.run(script, check=True)

    assert store.read(KEY) == b"mp4"
    assert files_in(tmp_path) == ["video.mp4"]


def test_a_read_only_disk_is_not_called_full(small_disk):
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*root, "mount", "-o", "remount,ro", small_disk], check=True)
    store = LocalStorage(small_disk / "data")

    with pytest.raises(WanfarmError, match="read-only") as refused:
        store.put_bytes(b"png", KEY)

    assert refused.value.code == "not_ready"


def test_a_store_whose_folder_is_a_file_refuses_clearly(tmp_path):
    (tmp_path / "data").write_text("in the way")
    store = LocalStorage(tmp_path / "data")

    with pytest.raises(WanfarmError, match="needs a directory") as refused:
        store.put_bytes(b"png", KEY)

    assert (refused.value.code, refused.value.retry_after_s) == ("not_ready", 60)
    assert store.is_writable() is False


def test_one_image_uploaded_by_many_at_once_is_stored_whole(store, tmp_path):
    content = os.urandom(1 << 20)

    with ThreadPoolExecutor(16) as pool:
        stored = list(pool.map(lambda _: store.put_bytes(content, "images/a.png"), range(64)))

    assert {one.bytes for one in stored} == {len(content)}
    assert store.path("images/a.png").read_bytes() == content
    assert files_in(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    "key",
    ["../secret", "/etc/passwd", "videos/../../x", "videos//x", ".hidden", "a/.b", "", "A", "a\n"],
    ids=repr,
)
def test_a_key_of_another_make_is_refused(store, key):
    with pytest.raises(AssertionError):
        store.path(key)


def test_a_tree_is_removed_with_all_it_holds(store):
    store.put_bytes(b"1", "videos/video_1/1/video.mp4")
    store.put_bytes(b"2", "videos/video_1/2/video.mp4")
    store.put_bytes(b"3", "videos/video_2/1/video.mp4")

    store.delete_tree("videos/video_1")
    store.delete_tree("videos/video_1")

    assert not store.path("videos/video_1").exists()
    assert store.exists("videos/video_2/1/video.mp4")


def test_a_file_is_removed_once_or_more(store):
    store.put_bytes(b"1", "images/a.png")

    store.delete("images/a.png")
    store.delete("images/a.png")

    assert not store.exists("images/a.png")


def test_a_healthy_store_is_writable(store):
    assert store.is_writable() is True
