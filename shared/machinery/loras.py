"""The adapters of this host: one directory each, read anew at every look."""

import contextlib
import errno
import hashlib
import math
import re
import secrets
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.machinery.disk import sync
from shared.machinery.headers import header_of
from shared.machinery.logs import logger
from shared.vocabulary.adapters import Adapter
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.spec import LoraRef

_DOWN: Final = re.compile(r"\.lora(_A|[_.]down)(\.\w+)?\.weight$")
Part = Literal["high", "low", "single"]
_FILES: Final[dict[Part, str]] = {"high": "high.safetensors", "low": "low.safetensors"}
_SINGLE: Final = "both.safetensors"  # what an uploaded file for every expert is called
_PART: Final = ".part"
_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Card(BaseModel):
    """What `lora.json` may say; all of it is optional, and other keys are the owner's own."""

    model_config = ConfigDict(frozen=True)

    family: str | None = Field(default=None, description="The models that it fits.")
    title: str | None = Field(default=None, description="A name for people.")
    trigger: str | None = Field(default=None, description="Words that a prompt needs.")
    source: str | None = Field(default=None, description="Where it came from.")
    distilled: bool = Field(default=False, description="Made for few steps without guidance.")


@dataclass(frozen=True, slots=True)
class Lora:
    """One adapter on this host."""

    facts: Adapter
    card: Card
    files: dict[Part, Path]  # `high` and/or `low`, or `single`, which serves every expert

    def file(self, expert: Literal["high", "low"]) -> Path | None:
        """Give the file for an expert; one-expert models take `high`."""
        return self.files.get(expert) or self.files.get("single")


class Loras(Mapping[str, Adapter]):
    """The adapters below one directory; another file in it counts from the next look on."""

    def __init__(self, root: Path) -> None:
        """Take the directory; it need not be there."""
        self._root = root
        self._hashes: dict[tuple[Path, int, int], str] = {}

    def __getitem__(self, name: str) -> Adapter:
        return self.find(name).facts

    def __iter__(self) -> Iterator[str]:
        with contextlib.suppress(OSError):
            yield from sorted(p.name for p in self._root.iterdir() if p.name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find(self, name: str) -> Lora:
        """Read one adapter.

        Raises:
            KeyError: when there is none of this name.
        """
        folder = self._root / name
        files = _files(folder) if _is_name(name) else {}
        card = _card(folder) if files else None
        if card is None:
            raise KeyError(name)
        experts = frozenset({"high", "low"} if "single" in files else files)
        return Lora(Adapter(name, card.family, experts, card.distilled), card, files)

    def sha256(self, path: Path, *, known_only: bool = False) -> str | None:
        """Hash a file; a second time only when its size or time has changed.

        Args:
            path: the file.
            known_only: None for a file that was not hashed yet: it may be a gigabyte.
        """
        facts = path.stat()
        key = (path, facts.st_size, facts.st_mtime_ns)
        if key not in self._hashes and not known_only:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes.get(key)

    @contextlib.contextmanager
    def staged(self) -> Generator[Path]:
        """Give an empty folder beside the adapters; what is not installed goes at the end.

        Raises:
            WanfarmError: `storage_full` or `not_ready`, when it cannot be written there.
        """
        folder = self._aside()
        try:
            folder.mkdir(parents=True)
            yield folder
        except OSError as err:
            raise _refusal(err) from err
        finally:
            _discard(folder)

    def install(self, name: str, folder: Path, files: Mapping[Part, Path], card: Card) -> None:
        """Make an adapter of a staged folder and its files, whole or not at all.

        Raises:
            WanfarmError: `lora_exists`.
        """
        for part, path in files.items():
            path.rename(folder / _FILES.get(part, _SINGLE))
        (folder / "lora.json").write_bytes(card.model_dump_json(exclude_none=True).encode())
        for path in (*folder.iterdir(), folder):
            sync(path)
        try:
            folder.rename(self._root / name)
        except OSError as err:
            if err.errno in _TAKEN:
                raise _exists(name) from err
            raise
        sync(self._root)

    def remove(self, name: str) -> None:
        """Take an adapter away, at once and as a whole.

        Raises:
            WanfarmError: `not_ready`, when it cannot be written there.
        """
        gone = self._aside()
        try:
            (self._root / name).rename(gone)
            sync(self._root)
        except OSError as err:
            raise _refusal(err) from err
        _discard(gone)

    def drop_unfinished(self, older_than_s: float) -> int:
        """Remove what uploads and removals that were killed have left; returns how many."""
        before = time.time() - older_than_s
        parts = self._root.glob(f".*{_PART}") if self._root.is_dir() else ()
        left = [path for path in parts if _touched(path) < before]
        for path in left:
            _discard(path)
        return len(left)

    def _aside(self) -> Path:
        """Name a folder that is no adapter's: a name begins with no dot."""
        return self._root / f".{secrets.token_hex(8)}{_PART}"


def rank_of(path: Path) -> int | None:
    """Read an adapter's rank off the file's header; None when it has no low-rank pair."""
    try:
        header = header_of(path)
        return next((one["shape"][0] for key, one in header.items() if _DOWN.search(key)), None)
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None


def _files(folder: Path) -> dict[Part, Path]:
    """Find the weights: a file per expert, or else the only file there is."""
    pair: dict[Part, Path] = {
        part: folder / name for part, name in _FILES.items() if (folder / name).is_file()
    }
    if pair:
        return pair
    found = sorted(folder.glob("*.safetensors"))
    return {"single": found[0]} if len(found) == 1 else {}


def _card(folder: Path) -> Card | None:
    """Read `lora.json`; None when it is there and says nothing that can be read."""
    try:
        return Card.model_validate_json((folder / "lora.json").read_bytes())
    except FileNotFoundError:
        return Card()
    except (OSError, ValueError) as err:
        logger().warning("lora.bad_card", name=folder.name, error=type(err).__name__)
        return None


def _touched(folder: Path) -> float:
    """Tell when something in a folder was last written."""
    with contextlib.suppress(OSError):
        inside = () if folder.is_symlink() else folder.iterdir()
        return max(path.lstat().st_mtime for path in (folder, *inside))
    return math.inf  # somebody is at work on it


def _discard(folder: Path) -> None:
    with contextlib.suppress(OSError):  # what cannot be removed is upkeep's, at every round
        if folder.is_symlink():  # of somebody who keeps adapters elsewhere
            folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _exists(name: str) -> WanfarmError:
    return WanfarmError(
        "lora_exists",
        f"There is a LoRA '{name}' already. A name stays what it was, so that old recipes keep "
        "their meaning. Take another name.",
        param="name",
    )


def _refusal(err: OSError) -> WanfarmError:
    if err.errno in _FULL:
        message = "The LoRA directory is full. Free space on its disk, then retry."
        return WanfarmError("storage_full", message, retry_after_s=60)
    message = (
        f"The LoRA directory refused a write ({err.strerror}). "
        "Let the farm's user write to WANFARM_LORA_DIR, then retry."
    )
    return WanfarmError("not_ready", message, retry_after_s=60)


def _is_name(name: str) -> bool:
    try:
        LoraRef(name=name)
    except ValidationError:
        return False
    return True
