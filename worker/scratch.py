"""A temporary folder for one life of a parent; the next life removes what a killed one left."""

import hashlib
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from shared.machinery.settings import Settings


@contextmanager
def scratch(settings: Settings) -> Generator[Path]:
    """Have all temporary files of this process in a folder of its own until the block ends.

    Only for whoever holds the group's lock: nobody else may then have files of this group. The
    name holds the farm's data directory, as two farms of a host may each have a `g0`.
    """
    farm = hashlib.sha256(str(settings.data_dir.resolve()).encode()).hexdigest()[:8]
    prefix = f"wanfarm-{farm}-{settings.group}."
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = None
