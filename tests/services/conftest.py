"""What tests of a parent with real ranks and fake engines stand on."""

from pathlib import Path

import pytest


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory that fake engines take for weights, and that lets them load."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "go").touch()
    return folder
