"""The commands and environments of docker-compose.yml make a farm, without containers."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from cli.supervisor import Program, spawn
from mini import judge, world
from mini.build import TRAINED
from mini.judge import Verdict
from shared.machinery.settings import child_environment
from tests.engine.rendering import decoded

ROOT = Path(__file__).parents[2]
SCENE = world.scene(20_000_001)  # nobody was taught it
LONG_RUNNING = ("api", "upkeep", "worker-mini")


class Containers:
    """Runs services of the compose file as plain processes, with their paths put elsewhere."""

    def __init__(self, folder, places):
        self._services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        self._folder = folder
        self._places = places
        self._running = {}

    def environment(self, name):
        given = self._services[name]["environment"]
        return child_environment() | {
            variable: self._places.get(variable, str(value)) for variable, value in given.items()
        }

    def run(self, name, argv=None):
        """Run a service's command, or another one in its place, to its end."""
        return subprocess.run(
            self._program(name, argv or self._services[name]["command"]).argv,
            env=self.environment(name),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, name):
        log = (self._folder / f"{name}.log").open("wb")
        with log:
            program = self._program(name, self._services[name]["command"])
            self._running[name] = spawn(program, log)

    def is_healthy(self, name):
        return self.run(name, self._services[name]["healthcheck"]["test"][1:]).returncode == 0

    def stop(self, name, within):
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(within)
        finally:
            process.kill()

    def stop_all(self):
        for name in list(self._running):
            self.stop(name, within=60)

    def _program(self, name, argv):
        assert argv[0] == "wanfarm"
        command = (sys.executable, "-m", "cli.main", *argv[1:])
        return Program(name=name, argv=command, environment=self.environment(name))


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def containers(tmp_path, database_url, redis_url, port):
    secrets = {"DATABASE_URL_FILE": database_url, "WANFARM_SECRET_KEY_FILE": "for tests only"}
    for name, text in secrets.items():
        (tmp_path / name).write_text(text)
    box = Containers(
        tmp_path,
        {name: str(tmp_path / name) for name in secrets}
        | {
            "HOME": str(tmp_path),
            "REDIS_URL": redis_url,
            "WANFARM_ALLOWED_HOSTS": "127.0.0.1",
            "WANFARM_DATA_DIR": str(tmp_path / "data"),
            "WANFARM_DEFAULT_IMAGE_MODEL": "wan-mini-ti2v",
            "WANFARM_DEFAULT_TEXT_MODEL": "wan-mini-t2v",
            "WANFARM_METRICS_PORT": "0",  # here all services are on one host
            "WANFARM_MODELS_DIR": str(TRAINED),
            "WANFARM_PORT": str(port),
            "WANFARM_PUBLIC_URL": "",
        },
    )
    yield box
    box.stop_all()


def test_a_job_goes_through_the_services_of_the_compose_file(
    containers, port, eventually, tmp_path
):
    assert containers.run("migrate").returncode == 0
    assert containers.run("migrate").returncode == 0, "a second start has nothing to do"
    key_file = containers.run("api", ["wanfarm", "db", "admin-key"]).stdout.strip()
    key = Path(key_file).read_text().strip()

    for name in LONG_RUNNING:
        containers.start(name)
    for name in LONG_RUNNING:
        eventually(lambda name=name: containers.is_healthy(name), within=60)

    url = f"http://127.0.0.1:{port}/v1/videos"
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        asked = {"prompt": world.caption(SCENE, 1, whole=True), "seed": 1}
        video = client.post(url, json=asked).raise_for_status().json()
        eventually(lambda: client.get(f"{url}/{video['id']}").json()["progress"] == 100, within=90)
        content = client.get(f"{url}/{video['id']}/content")

    file = tmp_path / "video.mp4"
    file.write_bytes(content.content)
    shown = judge.verdict(SCENE, decoded(file, world.SIDE, world.SIDE))
    assert shown == Verdict(True, True, True, True)
    assert [containers.stop(name, within=60) for name in reversed(LONG_RUNNING)] == [0, 0, 0]
