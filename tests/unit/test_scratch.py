"""What a killed parent leaves in the temporary folder is gone with the next one's start."""

import tempfile
from pathlib import Path

import pytest

from shared.machinery.settings import load_settings
from worker.scratch import scratch


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    def made(group: str, farm: str = "farm"):
        return load_settings(group=group, data_dir=tmp_path / farm)

    return made


def test_temporary_files_are_in_one_folder_that_goes(settings_of):
    with scratch(settings_of("g0")) as folder:
        made = Path(tempfile.mkdtemp())

    assert made.parent == folder
    assert not folder.exists()


def test_what_a_killed_parent_left_goes_and_what_others_have_stays(settings_of):
    lives = [scratch(settings_of(*who)) for who in (("g0",), ("g0-b",), ("g0", "other"))]
    folders = []
    for life in lives:
        tempfile.tempdir = None
        folders.append(life.__enter__())

    tempfile.tempdir = None
    with scratch(settings_of("g0")):
        assert [folder.exists() for folder in folders] == [False, True, True]
    for life in lives:
        life.__exit__(None, None, None)
