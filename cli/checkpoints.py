"""Looks for checkpoints on this machine, and checks what is there; reads no more than it must.

What a file should be is told by the checkpoint itself: `model_index.json` names the parts, an
index names the files of a part, and a safetensors header says how long its file is. Hashes are
told by whoever downloaded it: the Hugging Face client keeps each file's beside a folder of its own
(`.cache/huggingface`), and as the name of the file that its cache links to.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from shared.vocabulary.catalog import Model

_INDEX: Final = "model_index.json"
_SUFFIX: Final = ".safetensors"
_METADATA: Final = Path(".cache") / "huggingface" / "download"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_GIT: Final = re.compile(r"[0-9a-f]{40}")
_WITH_WEIGHTS: Final = ("transformer", "transformer_2", "vae", "text_encoder")
_VOCABULARIES: Final = ("tokenizer.json", "spiece.model")
_CHUNK: Final = 2**24
_LONGEST_HEADER: Final = 10**8  # as the format has it

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Checked:
    """What is in a checkpoint's folder, and what is wrong with it."""

    files: int
    bytes: int
    hashed: int  # files compared with the hash of what was published
    faults: tuple[str, ...]


def find(models_dir: Path, model: Model) -> Path | None:
    """Look where workers look: in the models directory, then in this user's Hugging Face cache."""
    folder = models_dir / model.directory
    return folder if (folder / _INDEX).is_file() else _cached(model.repo)


def found_or_begun(models_dir: Path, model: Model) -> Path | None:
    """The same, or a folder that no worker would take: a download that has not come far."""
    folder = models_dir / model.directory
    return find(models_dir, model) or (folder if folder.is_dir() else None)


def check(directory: Path, *, hashes: bool, tell: Told = lambda _: None) -> Checked:
    """Check that a checkpoint is whole.

    Args:
        directory: the checkpoint's folder.
        hashes: read every file whose hash is known, and compare; takes as long as the disk does.
        tell: is told each file before it is read through.
    """
    published = _published(directory)
    faults = list(dict.fromkeys([*_shape_faults(directory), *_lacking(directory, published)]))
    files = [path for path in _files(directory) if path.is_file()]
    hashed = 0
    for path in files if hashes else ():
        name = path.relative_to(directory).as_posix()
        digest = published.get(name)
        if digest is not None and not _named_in(faults, name):
            tell(name)
            hashed += 1
            if _digest(path, digest) != digest:
                faults.append(f"{name} is not the file that was published: its hash differs.")
    return Checked(len(files), sum(path.stat().st_size for path in files), hashed, tuple(faults))


def _cached(repo: str) -> Path | None:
    """Ask the client of Hugging Face where its cache has a repository; asks no network."""
    try:
        from huggingface_hub import (
            snapshot_download,  # pyright: ignore[reportUnknownVariableType]
        )
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError:
        return None
    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _files(directory: Path) -> list[Path]:
    """Every file of a checkpoint by name; parts may be links to another one's."""
    folders = [directory, *(path for path in sorted(directory.iterdir()) if path.is_dir())]
    visible = (folder for folder in folders if not folder.name.startswith("."))
    return sorted(path for folder in visible for path in folder.iterdir() if not path.is_dir())


def _published(directory: Path) -> dict[str, str]:
    """The hash of each file, by name, as far as it is known."""
    known: dict[str, str] = {}
    for path in _files(directory):
        if path.is_symlink():  # into the client's cache, where a file's name is its hash
            known[path.relative_to(directory).as_posix()] = path.readlink().name
    folder = directory / _METADATA
    for path in sorted(folder.rglob("*.metadata")):
        lines = path.read_text().splitlines()
        if len(lines) > 1:
            known[path.relative_to(folder).as_posix().removesuffix(".metadata")] = lines[1].strip()
    is_hash = (_SHA256.fullmatch, _GIT.fullmatch)
    return {name: text for name, text in known.items() if any(one(text) for one in is_hash)}


def _lacking(directory: Path, published: Iterable[str]) -> Iterator[str]:
    for name in sorted(published):
        if not (directory / name).exists():
            yield f"{name} is missing."


def _shape_faults(directory: Path) -> Iterator[str]:
    """Compare the checkpoint with what its own index and headers say."""
    index = _json(directory / _INDEX)
    if index is None:
        yield f"{_INDEX} is missing or cannot be read."
        return
    for part, kind in index.items():
        if not isinstance(kind, list) or not kind[0]:
            continue
        if part in _WITH_WEIGHTS:
            yield from _part_faults(directory, part)
        elif part == "tokenizer" and not any(
            (directory / part / v).exists() for v in _VOCABULARIES
        ):
            yield f"{part} has neither {' nor '.join(_VOCABULARIES)}."


def _part_faults(directory: Path, part: str) -> Iterator[str]:
    """What is wrong with one part: its configuration, its index, its weights."""
    folder = directory / part
    if _json(folder / "config.json") is None:
        yield f"{part}/config.json is missing or cannot be read."
    indices = sorted(folder.glob(f"*{_SUFFIX}.index.json"))
    for index in indices:
        yield from _index_faults(index, part)
    alone = [] if indices else sorted(folder.glob(f"*{_SUFFIX}"))
    for path in alone:
        yield from _file_faults(path, f"{part}/{path.name}", set())
    if not indices and not alone:
        yield f"{part} has no {_SUFFIX} file."


def _index_faults(index: Path, part: str) -> Iterator[str]:
    """What is wrong with the files that an index names."""
    told = _json(index)
    if told is None or "weight_map" not in told:
        yield f"{part}/{index.name} cannot be read."
        return
    shards: dict[str, set[str]] = {}
    for tensor, file in told["weight_map"].items():
        shards.setdefault(file, set()).add(tensor)
    for file, tensors in sorted(shards.items()):
        yield from _file_faults(index.parent / file, f"{part}/{file}", tensors)


def _file_faults(path: Path, name: str, tensors: set[str]) -> Iterator[str]:
    """Compare a file's length with its header, and its header with the index."""
    if not path.is_file():
        yield f"{name} is missing."
        return
    size = path.stat().st_size
    header, begins = _header(path)
    if header is None:
        yield f"{name} has no readable header; it is {size} bytes long."
        return
    spans = {key: told["data_offsets"] for key, told in header.items() if key != "__metadata__"}
    whole = begins + max((end for _, end in spans.values()), default=0)
    if size != whole:
        yield f"{name} is {size} bytes long. Its header says {whole}."
    if lacking := tensors - spans.keys():
        yield f"{name} lacks {len(lacking)} tensors that its index promises, as {min(lacking)}."


def _header(path: Path) -> tuple[dict[str, Any] | None, int]:
    """Read the header of a safetensors file, and where its data begins."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, _LONGEST_HEADER)))
        except ValueError:
            header = None
    return _object(header), 8 + length


def _digest(path: Path, like: str) -> str:
    """Hash a file as it was published: large ones by sha256, small ones as git does."""
    if _SHA256.fullmatch(like):
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(usedforsecurity=False)
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return _object(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


def _object(told: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", told) if isinstance(told, dict) else None


def _named_in(faults: Iterable[str], name: str) -> bool:
    return any(fault.startswith(f"{name} ") for fault in faults)
