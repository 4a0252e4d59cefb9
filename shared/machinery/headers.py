"""What a safetensors file says of itself, read without its tensors."""

import json
from pathlib import Path
from typing import Any, Final

_LIMIT: Final = 100 * 2**20  # as safetensors itself has it


def header_of(path: Path) -> dict[str, Any]:
    """Read a file's header: its tensors by name, and its own words under `__metadata__`.

    Raises:
        OSError: when the file cannot be read.
        TypeError: when it does not begin with a header.
        ValueError: likewise.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return dict(json.loads(file.read(min(size, _LIMIT))))
