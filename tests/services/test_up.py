"""`wanfarm up` as a person meets it: background, a second start, status, down, a killed one."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cli import embedded
from cli.local import Local
from shared.machinery.settings import child_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def wanfarm(tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=child_environment(WANFARM_DATA_DIR=str(tmp_path / "farm")),
        )

    yield run
    run("down")
    embedded.discard(tmp_path / "farm")


@pytest.fixture
def local(tmp_path):
    return Local(tmp_path / "farm")


def pids(local):
    return [process["pid"] for process in local.facts()["processes"].values()]


def alive(pid):
    return Path(f"/proc/{pid}/exe").exists()


def test_a_farm_in_the_background_is_seen_by_status_and_stopped_by_down(wanfarm, local, port):
    started = wanfarm("up", "-d", "--no-worker", "--port", str(port))
    assert started.returncode == 0, started.stderr
    running = pids(local)
    its_first_key_opens_it_and_no_output_shows_it(local, port, started.stdout + started.stderr)
    upkeep = Path(f"/proc/{local.facts()['processes']['upkeep']['pid']}/environ").read_bytes()
    assert b"WANFARM_METRICS_PORT=0\0" in upkeep  # the port is for the worker

    assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).status_code == 200
    assert f"http://127.0.0.1:{port}  ready" in wanfarm("status").stdout
    again = wanfarm("up", "--port", str(port))
    assert (again.returncode, f"http://127.0.0.1:{port}" in again.stdout) == (0, True)

    assert wanfarm("down").returncode == 0
    assert not any(alive(pid) for pid in running)
    assert wanfarm("status").returncode == 1


def its_first_key_opens_it_and_no_output_shows_it(local, port, output):
    key = Path(local.facts()["admin_key_file"]).read_text().strip()

    headers = {"Authorization": f"Bearer {key}"}
    listed = httpx.get(f"http://127.0.0.1:{port}/v1/videos", headers=headers, timeout=60)

    assert listed.status_code == 200, listed.text
    assert local.admin_key.stat().st_mode & 0o777 == 0o600
    assert key not in output + local.log.read_text()
    assert "/login?t=" not in local.log.read_text()


def test_a_killed_process_comes_back_and_a_killed_supervisor_leaves_nothing(
    wanfarm, local, port, eventually
):
    wanfarm("up", "-d", "--no-worker", "--port", str(port))

    os.kill(local.facts()["processes"]["api"]["pid"], signal.SIGKILL)

    eventually(lambda: local.facts()["processes"]["api"]["restarts"] == 1, within=15)
    eventually(lambda: answers(port), within=30)
    running = pids(local)

    os.kill(local.facts()["pid"], signal.SIGKILL)

    eventually(lambda: not any(alive(pid) for pid in running), within=15)
    assert wanfarm("up", "-d", "--no-worker", "--port", str(port)).returncode == 0


def test_a_taken_port_is_refused_by_the_name_of_its_owner(wanfarm, port):
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", port))
        squatter.listen()

        refused = wanfarm("up", "--no-worker", "--port", str(port))

    assert refused.returncode == 1
    assert f"(pid {os.getpid()})" in refused.stderr
    assert f"--port {port + 1}" in refused.stderr


def answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).status_code == 200
    except httpx.TransportError:
        return False
