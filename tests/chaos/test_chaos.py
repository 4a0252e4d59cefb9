"""Two minutes of `make chaos`."""

import subprocess
import sys

import pytest

from tests.farm.conftest import ROOT


@pytest.mark.timeout(400)
def test_random_faults_break_no_promise():
    argv = [sys.executable, "-m", "tests.chaos", "--minutes", "2", "--jobs", "60"]

    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
