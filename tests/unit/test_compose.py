"""docker-compose.yml and the Dockerfiles hold the rules of a deployment, without an engine."""

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.compose_rules import COMPOSE, RULES, Services, load

ROOT = COMPOSE.parent
DOCKERFILES = sorted((ROOT / "deploy").glob("Dockerfile.*"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_compose_file_holds(rule):
    rule(load()["services"])


def change(path: str, value: object) -> Callable[[Services], None]:
    def apply(services: Services) -> None:
        *way, last = path.split("/")
        place: Any = services
        for name in way:
            place = place[int(name)] if isinstance(place, list) else place[name]
        place[int(last) if isinstance(place, list) else last] = value

    return apply


DEVICES = "worker-g1/deploy/resources/reservations/devices/0"
FAULTS: tuple[tuple[Callable[[Services], None], Callable[[Services], None]], ...] = (
    (RULES[0], change(f"{DEVICES}/device_ids", ["3", "4", "5", "6"])),
    (RULES[0], change(f"{DEVICES}/device_ids", ["4", "5"])),
    (RULES[0], change(f"{DEVICES}/device_ids", [4, 5, 6, 7])),
    (RULES[0], change(f"{DEVICES}/count", 4)),
    (RULES[0], change(f"{DEVICES}/capabilities", ["compute"])),
    (RULES[1], change("worker-g1/environment/WANFARM_GROUP", "g0")),
    (RULES[2], change("migrate/restart", False)),
    (RULES[3], change("api/healthcheck", {"test": ["NONE"]})),
    (RULES[4], change("api/depends_on/migrate", {"condition": "service_started"})),
    (RULES[5], change("api/user", "0:0")),
    (RULES[5], change("redis/read_only", False)),
    (RULES[5], change("worker-g0/cap_drop", [])),
    (RULES[5], change("postgres/security_opt", [])),
    (RULES[6], change("worker-g0/stop_grace_period", "10m")),
    (RULES[7], change("api/environment/WANFARM_PROT", "8080")),
    (RULES[7], change("api/environment/WANFARM_SECRET_KEY", "x")),
    (RULES[8], change("api/secrets", ["database-url"])),
    (RULES[9], change("upkeep/command", ["wanfarm", "upkeep"])),
    (RULES[9], change("api/command", ["wanfarm", "serve"])),
    (RULES[10], change("postgres/image", "postgres:latest")),
    (RULES[10], change("redis/image", "valkey/valkey")),
    (RULES[11], change("postgres/ports", ["5432:5432"])),
    (RULES[11], change("api/ports", ["8080:8080"])),
    (RULES[11], change("grafana/ports", ["3000:3000"])),
    (RULES[12], change("worker-g0/shm_size", "64m")),
    (RULES[12], change("worker-g0/ulimits/memlock", 65536)),
    (RULES[13], change("worker-g0/volumes/2", "./weights:/weights")),
    (RULES[14], change("worker-g0/environment/TRITON_CACHE_DIR", "/root/.triton")),
    (RULES[15], change("api/logging", {"driver": "json-file", "options": {}})),
)


@pytest.mark.parametrize(("rule", "fault"), FAULTS)
def test_a_broken_compose_file_is_refused(rule, fault):
    services = copy.deepcopy(load()["services"])
    fault(services)

    with pytest.raises((AssertionError, KeyError)):
        rule(services)


def test_each_rule_has_been_seen_to_fail():
    assert {rule for rule, _ in FAULTS} == set(RULES)


def test_the_compose_file_follows_the_specification():
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_passes_hadolint(dockerfile):
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    checked = subprocess.run(
        [program, str(dockerfile)], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_copies_what_exists_and_is_in_the_context(dockerfile):
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }

    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source.partition("/")[0] in allowed, source


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_ends_as_an_unprivileged_user_on_an_exact_base(dockerfile):
    text = dockerfile.read_text()

    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "10001:10001"
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"python:3.12.12-slim-bookworm"}


def test_every_secret_of_the_compose_file_is_made_by_make_secrets(tmp_path):
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("vendor"))
    command = [sys.executable, str(tmp_path / "deploy" / "bootstrap.py"), "secrets"]

    subprocess.run(command, check=True)

    made = {path.name: path for path in (tmp_path / "secrets").iterdir()}
    assert {f"./secrets/{name}" for name in made} == {s["file"] for s in load()["secrets"].values()}
    assert {path.stat().st_mode & 0o777 for path in made.values()} == {0o444}
    assert made["postgres-password"].read_text() in made["database-url"].read_text()
