"""Where files live: by key, never by a name from outside; whole or not at all."""

import contextlib
import errno
import hashlib
import io
import math
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from shared.machinery.disk import sync
from shared.vocabulary.errors import WanfarmError

_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)*")
_CHUNK: Final = 1 << 20
_PART: Final = ".part"
_TRIES: Final = 10  # each takes another process that deletes the same folder in that instant
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_REMEDIES: Final = {
    errno.EACCES: "Let the farm's user write to WANFARM_DATA_DIR",
    errno.EPERM: "Let the farm's user write to WANFARM_DATA_DIR",
    errno.EROFS: "Its file system is read-only, often after a disk fault: check it, mount it anew",
    errno.ENOTDIR: "A file is where WANFARM_DATA_DIR needs a directory: move it away",
    errno.EEXIST: "A file is where WANFARM_DATA_DIR needs a directory: move it away",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it was stored."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Served:
    """How whoever fetches a file is to take it."""

    media_type: str
    name: str  # to save it under
    attached: bool = False  # save it rather than show it
    headers_only: bool = False  # an address is good for one method


class Storage(Protocol):
    """Files by key. What cannot be done raises `storage_full` or `not_ready`."""

    @property
    def origin(self) -> str | None:
        """Where fetchers are sent, as `https://host`; None when we serve the files."""
        ...

    def put(self, source: Path, key: str) -> Stored:
        """Store a file, whole or not at all, in place of an earlier one.

        Raises:
            OSError: when the source cannot be opened.
        """
        ...

    def put_bytes(self, content: bytes, key: str) -> Stored:
        """Store bytes, with the same care as a file."""
        ...

    def exists(self, key: str) -> bool:
        """Tell whether a file is there."""
        ...

    def names(self, prefix: str) -> list[str]:
        """List what is right under a prefix; none there is fine."""
        ...

    def read(self, key: str) -> bytes | None:
        """Read a small file; None when it is not there."""
        ...

    def sha256(self, key: str) -> str | None:
        """Hash a file as it is now; None when it is not there."""
        ...

    def age_s(self, key: str) -> float | None:
        """Tell how long ago a file was written; None when it is not there."""
        ...

    def at_hand(self, key: str, folder: Path) -> Path | None:
        """Give a path to read a file at, a copy in the folder if need be; None: not there."""
        ...

    def locate(self, key: str, served: Served) -> Path | str:
        """Say where to fetch a file: a path of ours, or an address that is good for a while."""
        ...

    def drop_unfinished(self, older_than_s: float) -> int:
        """Remove what writers that were killed have left; returns how many."""
        ...

    def free_bytes(self) -> int | None:
        """Tell how much may still be written, at most a second old; None when nobody knows."""
        ...

    def delete_tree(self, prefix: str) -> None:
        """Remove all files under a prefix; none there is fine."""
        ...

    def delete(self, key: str) -> None:
        """Remove one file; none there is fine."""
        ...


def fault_of(storage: Storage) -> WanfarmError | None:
    """Write a small file, which is what a result needs; gives what refused it."""
    try:
        storage.put_bytes(b"ok", "probe/write")
    except WanfarmError as err:
        return err
    return None


def checked(key: str) -> str:
    """Hold that a key is of our own make: of row ids and hashes only."""
    assert _KEY.fullmatch(key), key
    return key


class LocalStorage:
    """Files under one directory, which every process of the farm sees."""

    origin = None

    def __init__(self, root: Path) -> None:
        """Take the directory; it is made at the first write."""
        self._root = root
        self._free, self._free_until = 0, 0.0

    def put(self, source: Path, key: str) -> Stored:
        """Copy a file in: temporary name, fsync, rename, fsync of the folder."""
        with source.open("rb") as content:
            return self._store(content, key)

    def put_bytes(self, content: bytes, key: str) -> Stored:
        return self._store(io.BytesIO(content), key)

    def _store(self, content: BinaryIO, key: str) -> Stored:
        target = self.path(key)
        temporary = _beside(target)
        for left in reversed(range(_TRIES)):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                content.seek(0)
                stored = _copy(content, temporary, key)
                temporary.replace(target)
                sync(target.parent)
            except OSError as err:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                # Whoever deletes the folder meanwhile was there before us: it is made again.
                if not (isinstance(err, FileNotFoundError) and left):
                    raise _refusal(err) from err
            else:
                return stored
        raise AssertionError

    def path(self, key: str) -> Path:
        """Say where a key's file is."""
        return self._root / checked(key)

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def names(self, prefix: str) -> list[str]:
        folder = self.path(prefix)
        entries = folder.iterdir() if folder.is_dir() else ()
        return sorted(entry.name for entry in entries if not entry.name.endswith(_PART))

    def read(self, key: str) -> bytes | None:
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            return None

    def sha256(self, key: str) -> str | None:
        try:
            with self.path(key).open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def age_s(self, key: str) -> float | None:
        try:
            return time.time() - self.path(key).stat().st_mtime
        except FileNotFoundError:
            return None

    def at_hand(self, key: str, folder: Path) -> Path | None:
        path = self.path(key)
        return path if path.is_file() else None

    def locate(self, key: str, served: Served) -> Path | str:
        return self.path(key).absolute()

    def drop_unfinished(self, older_than_s: float) -> int:
        before = time.time() - older_than_s
        parts = self._root.rglob(f".*{_PART}") if self._root.is_dir() else ()
        left = [path for path in parts if _written(path) < before]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def free_bytes(self) -> int:
        if time.monotonic() > self._free_until:
            root = self._root.absolute()
            there = next(folder for folder in (root, *root.parents) if folder.is_dir())
            try:
                self._free = shutil.disk_usage(there).free
            except OSError as err:
                raise _refusal(err) from err
            self._free_until = time.monotonic() + 1
        return self._free

    def delete_tree(self, prefix: str) -> None:
        shutil.rmtree(self.path(prefix), ignore_errors=True)

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """Name a temporary file that no other writer of the same key uses."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_PART}")


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its writer has just finished
        return math.inf


def _copy(content: BinaryIO, target: Path, key: str) -> Stored:
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as write:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            size += write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    return Stored(key, size, digest.hexdigest())


def _refusal(err: OSError) -> WanfarmError:
    if err.errno in _FULL:
        message = "The result store is full. Free space on it, then retry."
        return WanfarmError("storage_full", message, retry_after_s=60)
    remedy = _REMEDIES.get(err.errno or 0, "Look at its disk and at the system's log")
    message = f"The result store refused a write ({err.strerror}). {remedy}, then retry."
    return WanfarmError("not_ready", message, retry_after_s=60)
