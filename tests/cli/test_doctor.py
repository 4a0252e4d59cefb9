"""The doctor names what is missing, and says how to mend it."""

import json
import subprocess
import sys

import pytest

from cli import main
from shared.machinery.settings import Settings, child_environment, variable_of
from tests.cli.conftest import ROOT


@pytest.fixture
def look(settings: Settings, capfd):
    """Run the doctor on the test's own services, with changes; gives exit code and checks."""

    def run(monkeypatch, **changes):
        values = {name: getattr(settings, name) for name in ("database_url", "redis_url")}
        values |= {"data_dir": settings.data_dir, "models": "wan-tiny-t2v"} | changes
        for name, value in values.items():
            monkeypatch.setenv(variable_of(name), str(value).replace("+psycopg", ""))
        code = main.run(["doctor", "--json"])
        checks = json.loads(capfd.readouterr().out)["checks"]
        return code, {check["name"]: check for check in checks}

    return run


def test_a_sound_machine_has_no_fail(look, monkeypatch, checkpoints):
    code, checks = look(monkeypatch, models_dir=checkpoints)

    assert [check for check in checks.values() if check["level"] == "FAIL"] == []
    assert code == 0
    levels = {name: checks[name]["level"] for name in ("ffmpeg", "schema", "redis", "store")}
    assert set(levels.values()) == {"ok"}
    assert checks["wan-tiny-t2v"]["level"] == "ok"


def test_a_database_that_is_away_is_a_blocker_with_a_fix_and_no_password(look, monkeypatch):
    url = "postgresql://wanfarm:hush@127.0.0.1:1/farm"

    code, checks = look(monkeypatch, database_url=url)

    assert (code, checks["postgres"]["level"]) == (9, "FAIL")
    assert "DATABASE_URL" in checks["postgres"]["fix"]
    assert "hush" not in json.dumps(checks)


def test_an_empty_database_lacks_its_schema(look, monkeypatch, services):
    code, checks = look(monkeypatch, database_url=services.url_of("postgres"))

    assert (code, checks["schema"]["level"]) == (9, "FAIL")
    assert "wanfarm db upgrade" in checks["schema"]["fix"]


def test_redis_that_is_away_is_a_blocker(look, monkeypatch):
    code, checks = look(monkeypatch, redis_url="redis://127.0.0.1:1/0")

    assert (code, checks["redis"]["level"]) == (9, "FAIL")


def test_weights_that_were_asked_for_and_are_not_there_are_a_blocker(look, monkeypatch, tmp_path):
    code, checks = look(monkeypatch, models="wan2.2-t2v-a14b", models_dir=tmp_path)

    assert (code, checks["wan2.2-t2v-a14b"]["level"]) == (9, "FAIL")
    assert "Wan-AI/Wan2.2-T2V-A14B-Diffusers" in checks["wan2.2-t2v-a14b"]["fix"]


def test_a_store_that_takes_no_files_is_a_blocker(look, monkeypatch):
    code, checks = look(monkeypatch, data_dir="/proc/farm")

    assert (code, checks["store"]["level"]) == (9, "FAIL")


def test_the_api_is_asked_whether_it_is_ready(look, monkeypatch, server):
    _, checks = look(monkeypatch, url=server.url)

    assert (checks["api"]["level"], "schema ok" in checks["api"]["text"]) == ("ok", True)


def test_an_api_that_is_away_is_a_blocker(look, monkeypatch):
    code, checks = look(monkeypatch, url="http://127.0.0.1:1")

    assert (code, checks["api"]["level"]) == (9, "FAIL")


def test_people_read_one_line_a_check_with_its_fix_below(tmp_path):
    environment = child_environment(WANFARM_DATA_DIR=str(tmp_path), REDIS_URL="redis://127.0.0.1:1")

    said = subprocess.run(
        [sys.executable, "-m", "cli.main", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )

    assert said.returncode == 9, said.stderr
    assert "  FAIL  redis        does not answer\n" in said.stdout
    assert "-> Start it, or correct REDIS_URL." in said.stdout
    assert "\x1b" not in said.stdout
