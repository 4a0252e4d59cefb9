"""Who some weights are: a hash that is cheap to take and changes with them."""

import hashlib
from pathlib import Path
from typing import Final

_END: Final = 64 * 2**10  # bytes of each file's end: a fine-tune has its parent's header


def identity(*folders: Path) -> str:
    """Hash the name, size, header and end of every safetensors file below some folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.safetensors")):
            size = file.stat().st_size
            digest.update(f"{file.relative_to(folder)} {size}\n".encode())
            with file.open("rb") as shard:
                digest.update(shard.read(int.from_bytes(shard.read(8), "little")))
                shard.seek(max(0, size - _END))
                digest.update(shard.read())
    return digest.hexdigest()
