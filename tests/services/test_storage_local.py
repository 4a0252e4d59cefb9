"""A store in a directory: nothing is half there, and a refusal says what is wrong."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.machinery.storage import LocalStorage, fault_of
from shared.vocabulary.errors import WanfarmError

KEY = "videos/video_1/1/video.mp4"


@pytest.fixture
def store(tmp_path):
    return LocalStorage(tmp_path / "data")


def files_in(tmp_path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "data").rglob("*") if p.is_file())


def test_a_full_disk_is_told_and_keeps_the_earlier_file_whole(small_disk, tmp_path):
    store = LocalStorage(small_disk / "data")
    store.put_bytes(b"one", KEY)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(8 << 20))

    for put in (lambda: store.put(large, KEY), lambda: store.put_bytes(bytes(8 << 20), KEY)):
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
    assert fault_of(store).message == refused.value.message


def test_one_image_uploaded_by_many_at_once_is_stored_whole(store):
    content = os.urandom(1 << 20)

    with ThreadPoolExecutor(16) as pool:
        stored = list(pool.map(lambda _: store.put_bytes(content, "images/a.png"), range(64)))

    assert {one.bytes for one in stored} == {len(content)}
    assert store.read("images/a.png") == content
    assert store.names("images") == ["a.png"]


def test_what_a_killed_writer_left_is_removed_when_it_is_old(store):
    store.put_bytes(b"mp4", KEY)
    young, old = (store.path(KEY).with_name(f".{n}.part") for n in "ab")
    for part in (young, old):
        part.touch()
    os.utime(old, (0, 0))

    assert store.drop_unfinished(3600) == 1

    assert (young.exists(), old.exists(), store.read(KEY)) == (True, False, b"mp4")
    assert store.names("videos/video_1/1") == ["video.mp4"]


def test_free_space_is_told_before_there_is_a_directory(small_disk):
    assert 3 << 20 < LocalStorage(small_disk / "not" / "yet").free_bytes() <= 4 << 20
