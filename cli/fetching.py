"""Brings a published checkpoint onto this machine, by the client of Hugging Face."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.client import Exit, FarmError
from shared.vocabulary.catalog import BUNDLED, Model

_UNUSED: Final = ("*.md", "*.mp4", "*.gif", "*.png", "*.jpg", "assets/*", "examples/*")
_GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class Order:
    """A checkpoint to fetch, and where it goes."""

    model: Model
    folder: Path  # the checkpoint's own
    revision: str | None  # a branch, a tag or a commit; None: the repository's newest


@dataclass(frozen=True, slots=True)
class Amount:
    """What a fetch takes."""

    revision: str  # the commit
    files: int  # in all
    missing: int  # of them are still to come
    bytes: int  # of those


def look(order: Order) -> Amount:
    """Ask what there is to fetch, and see that there is room for it.

    Raises:
        FarmError: when it comes with wanfarm, cannot be asked for, or does not fit on the disk.
    """
    if order.model.id in BUNDLED:
        raise FarmError(
            Exit.USAGE,
            f"{order.model.id} is not published. It comes with wanfarm, or is built by "
            "`wanfarm-mini`. There is nothing to fetch.",
        )
    files: list[Any] = _ask(order, dry_run=True)  # what the client calls DryRunFileInfo
    coming: list[int] = [one.file_size or 0 for one in files if one.will_download]
    commit: str = files[0].commit_hash if files else ""
    found = Amount(commit, len(files), len(coming), sum(coming))
    refuse_without_room(order, found)
    return found


def fetch(order: Order, *, shows_progress: bool) -> None:
    """Fetch what is missing; a fetch that broke off goes on where it was.

    Raises:
        FarmError: when it cannot be fetched.
    """
    from huggingface_hub.utils import disable_progress_bars

    if not shows_progress:
        disable_progress_bars()
    _ask(order, dry_run=False)


def _ask(order: Order, *, dry_run: bool) -> Any:  # noqa: ANN401 - a list of the client's when dry
    from httpx import HTTPError
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo = order.model.repo
    try:
        return snapshot_download(
            repo,
            revision=order.revision,
            local_dir=order.folder,
            ignore_patterns=list(_UNUSED),
            dry_run=dry_run,
        )
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OSError) as err:
        why = " ".join(str(err).split())[:200].rstrip(".")
        raise FarmError(
            Exit.ERROR,
            f"{repo} cannot be fetched: {why}. What has arrived is kept: the same command goes on "
            "from there.",
        ) from err


def refuse_without_room(order: Order, amount: Amount) -> None:
    """See that what is missing fits on the disk.

    Raises:
        FarmError: when it does not.
    """
    there = next(path for path in (order.folder, *order.folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if amount.bytes > free:
        raise FarmError(
            Exit.ERROR,
            f"{order.model.id} takes {amount.bytes / _GB:.1f} GB more, and {there} has "
            f"{free / _GB:.1f} GB free. Make room, or name another folder by --to.",
        )
