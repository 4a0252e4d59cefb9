"""What it takes for a file to outlive a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have the disk itself hold a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
