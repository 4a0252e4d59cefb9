"""A whole farm as processes of its own: servers, relay, API, upkeep, four groups."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import libfaketime
from sqlalchemy.engine import make_url

from cli import embedded
from cli.supervisor import Program, spawn
from mini.build import build
from shared.jobs import keys
from shared.machinery.database import upgrade
from shared.machinery.farm import Farm, open_farm
from shared.machinery.settings import Settings, load_settings
from shared.vocabulary.catalog import MODELS
from tests.conftest import wait_for
from tests.farm.conftest import ROOT, WITNESS, environment, free_port

MODEL = "wan-tiny-t2v"
GROUPS = ("g0", "g1", "g2", "g3")
_CLOCK = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
_DISK_MB = 96


@dataclass
class Town:
    """Processes by name; whoever is killed can be started again."""

    state: Path
    settings: Settings
    servers: dict[str, embedded.Service]
    key: str
    farm: Farm  # of the judge: straight to the database, past the relay
    url: str
    port: int
    small_disk: bool
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _relayed: Settings | None = None

    def start(self, name: str, clock: str | None = None) -> None:
        """Start a process that is not running.

        Args:
            name: postgres, redis, relay, api, upkeep or a group.
            clock: how far its clock is off, as libfaketime writes it (`+2h`).
        """
        with (self.state / f"{name}.log").open("ab") as log:
            self.running[name] = self._spawned(name, clock, log)

    def _spawned(self, name: str, clock: str | None, log: IO[bytes]) -> subprocess.Popen[bytes]:
        if name in self.servers:
            return spawn(self.servers[name].program, log)
        if name == "relay":
            target = str(self.servers["postgres"].port)
            argv = [sys.executable, "-m", "tests.chaos.relay", str(self.port), target]
            return subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log)
        words = {"api": ("api",), "upkeep": ("upkeep", "run")}.get(name, ("worker", "run"))
        argv = (sys.executable, "-m", "cli.main", *words)
        assert self._relayed is not None
        known = environment(self._relayed, group=name, engine=WITNESS, api_processes=1)
        if clock:
            known |= {
                "LD_PRELOAD": str(_CLOCK),
                "FAKETIME": clock,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        return spawn(Program(name=name, argv=argv, environment=known), log)

    def send(self, name: str, what: signal.Signals) -> None:
        """Send a signal to a process, if it is there."""
        process = self.running[name]
        if process.poll() is None:
            process.send_signal(what)

    def kill(self, name: str) -> None:
        """Kill a process at once, and see it gone."""
        self.send(name, signal.SIGKILL)
        self.running[name].wait(20)

    def relay(self, word: str) -> None:
        """Tell the relay before Postgres what to do."""
        pipe = self.running["relay"].stdin
        assert pipe is not None
        assert self.running["relay"].poll() is None, "The relay itself has died."
        pipe.write(f"{word}\n".encode())
        pipe.flush()

    def ranks(self, group: str) -> list[int]:
        """The pids of a group's ranks."""
        tasks = Path(f"/proc/{self.running[group].pid}/task")
        try:
            return [int(pid) for one in tasks.glob("*/children") for pid in one.read_text().split()]
        except OSError:
            return []


def raise_town(state: Path, stack: ExitStack) -> Town:
    """Build a farm below a folder and start all of it; the stack takes it down."""
    home = embedded.open_home(state, load_settings().embedded_user)
    stack.callback(embedded.discard, state)
    servers = {
        "postgres": embedded.prepare_postgres(home, durable=False),
        "redis": embedded.prepare_valkey(home),
    }
    models, data = state / "models", state / "data"
    build(MODELS[MODEL], models)
    data.mkdir()
    small_disk = _small_disk(data, stack)
    straight = servers["postgres"].url.replace("postgresql://", "postgresql+psycopg://", 1)
    port = free_port()
    settings = load_settings(
        DATABASE_URL=straight,
        REDIS_URL=servers["redis"].url,
        data_dir=data,
        min_free_mb=16,
        models_dir=models,
        models=(MODEL,),
        default_text_model=MODEL,
        lease_s=6,
        heartbeat_s=1,
        tick_s=1,
        idle_look_s=2,
        drain_s=1,
        checkpoint_seconds=1,
        secret_key="for tests only",
        device="cpu",
        port=free_port(),
        max_queued=5000,
        max_queued_per_key=5000,
        submit_per_min=0,
        requests_per_s=0,
    )
    farm = open_farm(settings)
    stack.callback(farm.close)
    url = f"http://127.0.0.1:{settings.port}"
    town = Town(state, settings, servers, "", farm, url, port, small_disk)
    relayed = make_url(straight).set(port=port).render_as_string(hide_password=False)
    town._relayed = settings.model_copy(update={"database_url": relayed})
    stack.callback(_raze, town)
    for name, ready in (("postgres", embedded.postgres_ready), ("redis", embedded.valkey_ready)):
        town.start(name)
        _await(lambda name=name, ready=ready: ready(servers[name], town.running[name].pid))
    upgrade(straight)
    _, town.key = keys.create(farm, "chaos", "admin")
    for name in ("relay", "api", "upkeep", *GROUPS):
        town.start(name)
    return town


def _await(check: Callable[[], object]) -> None:
    wait_for(check, within=30)


def _small_disk(folder: Path, stack: ExitStack) -> bool:
    """Put the results on a disk that can be filled, where we may mount one."""
    argv = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "none", str(folder)]
    if os.geteuid() or subprocess.run(argv, capture_output=True, check=False).returncode:
        return False
    stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)
    return True


def _raze(town: Town) -> None:
    ranks = [pid for group in GROUPS if group in town.running for pid in town.ranks(group)]
    for name in reversed(town.running):
        town.send(name, signal.SIGCONT)
        town.kill(name)
    threading.Event().wait(0.2)
    for pid in ranks:
        _end(pid)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
