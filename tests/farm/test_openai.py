"""The real openai client, old and new, against a whole farm."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from shared.jobs import keys
from shared.machinery.settings import child_environment
from tests.farm.conftest import CAMERA, ROOT

REFEREES = ROOT / "tests" / "referees"
INSTALLED = Path(sys.prefix) / "referees"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


CLIENTS = ("openai-2", "openai-3")


def test_openai_clients_are_at_home(house, eventually):
    missing = [client for client in CLIENTS if not (INSTALLED / client).is_dir()]
    if missing:
        pytest.skip(f"{missing} are not installed: `make test` puts them beside the environment")
    _, key = keys.create(house.farm, "openai", "admin")
    url = house.serve()
    house.start(engine=CAMERA)
    eventually(lambda: answers(url), within=30)

    for client in CLIENTS:
        ran = subprocess.run(
            [sys.executable, REFEREES / "openai_client.py", url, key],
            env=child_environment(PYTHONPATH=str(INSTALLED / client)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert ran.returncode == 0, ran.stderr
        wanted = (REFEREES / f"{client}.txt").read_text().strip().partition("==")[2]
        assert json.loads(ran.stdout)["openai"] == wanted
