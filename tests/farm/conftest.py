"""A farm of processes: worker parents with their ranks, started and killed like any program."""

import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.engine import URL, make_url

from shared.jobs import intake, keys, orders, queries
from shared.jobs.tick import Ticker
from shared.machinery.farm import Farm
from shared.machinery.settings import Settings, child_environment, variable_of
from shared.vocabulary.spec import Delivery, GenerationSpec

ROOT = Path(__file__).parents[2]
CAMERA = "tests.engine.filming:Camera"  # an engine without torch, for what ranks do not decide
WITNESS = "tests.engine.filming:Witness"  # a camera that writes down when it is at work
SMALL = {"model": "wan-tiny-t2v", "prompt": "a ball", "width": 64, "height": 64, "frames": 5}


def environment(settings: Settings, **changes: object) -> dict[str, str]:
    """The settings as a child process reads them."""
    values = settings.model_dump() | changes
    texts = {variable_of(name): _text(value) for name, value in values.items() if value is not None}
    return child_environment(**texts, PYTHONPATH=str(ROOT))


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def overlaps(models_dir: Path) -> list[tuple[int, float, float]]:
    """Two runs of one video at once, as witnesses saw it: the seed, an end, a beginning before."""
    found: dict[int, dict[str, list[float]]] = {}
    for line in (models_dir / "runs.log").read_text().splitlines():
        seed, run, moment = line.split()
        found.setdefault(int(seed), {}).setdefault(run, []).append(float(moment))
    spans = {seed: sorted((min(one), max(one)) for one in found[seed].values()) for seed in found}
    return [
        (seed, earlier[1], later[0])
        for seed in spans
        for earlier, later in itertools.pairwise(spans[seed])
        if later[0] < earlier[1]
    ]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Worker:
    """One started parent."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def leave(self, within: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def ranks(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").parent.parent
        pids = [p.read_text() for p in children.glob("*/children")]
        return [int(pid) for text in pids for pid in text.split()]


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@dataclass
class House:
    """What a farm test does to its farm."""

    farm: Farm
    key_id: str
    tmp_path: Path
    workers: list[Worker] = field(default_factory=list)

    def start(
        self, program: str = "worker.app", *, without: str | None = None, **changes: object
    ) -> Worker:
        """Start a worker with changed settings; tests of tests take a protection from it."""
        words = ["tests.farm.ablated", without] if without else [program]
        log = self.tmp_path / f"worker-{len(self.workers)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                env=environment(self.farm.settings, **changes),
                cwd=ROOT,
                stdout=out,
                stderr=out,
            )
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def serve(self, **changes: object) -> str:
        """Start the API as `wanfarm api` does; gives its URL."""
        port = free_port()
        log = self.tmp_path / "api.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "api"],
                env=environment(self.farm.settings, **{"port": port, "api_processes": 1} | changes),
                cwd=ROOT,
                stdout=out,
                stderr=out,
            )
        self.workers.append(Worker(process, log))
        return f"http://127.0.0.1:{port}"

    def submit(self, delivery: Delivery | None = None, **fields: object) -> str:
        spec = GenerationSpec.model_validate(SMALL | {"seed": 7, "steps": 2} | fields)
        order = orders.Order(
            "default", self.key_id, "test", spec, delivery or Delivery(), tuple(fields)
        )
        return intake.submit(self.farm, order).video_id

    def row(self, video_id: str) -> dict:
        row = queries.one(self.farm, video_id, None)
        assert row is not None
        return row

    def state(self, video_id: str) -> str:
        return self.row(video_id)["state"]

    def step(self, video_id: str) -> int:
        return (self.row(video_id)["detail"] or {}).get("step", 0)

    def history(self, video_id: str) -> list[str]:
        events = queries.events(self.farm, video_id)
        assert [event["id"] for event in events] == list(range(1, len(events) + 1))
        return [event["to"] for event in events if event["type"] == "state"]

    def results(self, video_id: str) -> list[Path]:
        return sorted(self.farm.storage.path(f"videos/{video_id}").rglob("*.mp4"))

    def end(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                ranks = worker.ranks()
                worker.kill()
                for pid in filter(is_alive, ranks):
                    os.kill(pid, signal.SIGKILL)


class Relayed:
    """A way to a server that fails when it is told to: see tests.chaos.relay."""

    def __init__(self, server: URL) -> None:
        port = free_port()
        self.url = server.set(port=port).render_as_string(hide_password=False)
        argv = [sys.executable, "-m", "tests.chaos.relay", str(port), str(server.port)]
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, text=True)

    def tell(self, words: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        with self._process:
            self._process.kill()


@pytest.fixture
def postgres(house: "House") -> Iterator[Relayed]:
    """A way to Postgres."""
    relayed = Relayed(make_url(house.farm.settings.database_url))
    yield relayed
    relayed.end()


@pytest.fixture
def redis_line(house: "House") -> Iterator[Relayed]:
    """A way to Redis."""
    relayed = Relayed(make_url(house.farm.settings.redis_url))
    yield relayed
    relayed.end()


@pytest.fixture
def ticker(farm: Farm) -> Iterator[None]:
    """What every API process does beside its requests."""
    thread = Ticker(farm)
    thread.start()
    yield
    thread.stop()


@pytest.fixture
def house(farm: Farm, checkpoints: Path, tmp_path: Path) -> Iterator[House]:
    key_id, _ = keys.create(farm, "test", "admin")
    built = House(farm, key_id, tmp_path)
    yield built
    built.end()


@pytest.fixture
def completes(house: House, eventually: Callable[..., object]) -> Callable[..., dict]:
    """Wait until a video has completed, and give its row."""

    def wait(video_id: str, within: float = 60) -> dict:
        eventually(lambda: house.row(video_id)["completed_at"], within=within)
        row = house.row(video_id)
        assert row["state"] == "completed", (row["error"], house.workers[-1].log.read_text())
        return row

    return wait
