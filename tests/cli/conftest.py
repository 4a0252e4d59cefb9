"""A farm behind a real HTTP server, and verbs run as a person would run them."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from werkzeug.serving import make_server

from api.app import close, create_app
from cli import main
from shared.jobs import keys, lifecycle, queries, running
from shared.jobs.scheduling import Offer
from shared.machinery import logs
from shared.machinery.farm import Farm
from shared.machinery.settings import Settings, child_environment

ROOT = Path(__file__).parents[2]
CONTENT = b"not much of a film, but of the right length" * 1000


@dataclass
class Said:
    """What a verb left behind."""

    code: int
    out: str
    err: str


@dataclass
class Server:
    """The API on a port that stays the same when it is started again."""

    settings: Settings
    port: int = 0
    _running: list = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        app = create_app(self.settings)
        server = make_server("127.0.0.1", self.port, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.port = server.server_port
        self._running = [app, server, thread]

    def stop(self) -> None:
        if self._running:
            app, server, thread = self._running
            close(app)
            server.shutdown()
            thread.join(10)
            server.server_close()
            self._running = []


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    logs.configure("ERROR", service="api")  # the server shares stdout with the verbs
    built = Server(settings)
    built.start()
    yield built
    built.stop()
    structlog.reset_defaults()


@pytest.fixture
def admin_key(farm: Farm) -> str:
    return keys.create(farm, "test", "admin")[1]


@pytest.fixture
def wanfarm(server: Server, admin_key: str, capfd) -> Callable[..., Said]:
    """Run a verb in this process, against the server, with an admin key."""

    def run(*words: object, key: str = admin_key) -> Said:
        code = main.run([*map(str, words), "--url", server.url, "--key", key])
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture
def environment(server: Server, admin_key: str) -> dict[str, str]:
    return child_environment(WANFARM_URL=server.url, WANFARM_API_KEY=admin_key)


@pytest.fixture
def started(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Start a verb as a process of its own; ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(*words: object, **options: object) -> subprocess.Popen:
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *map(str, words)],
                env=environment | {"PYTHONPATH": str(ROOT)},
                cwd=tmp_path,
                **(streams | options),
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@dataclass
class Worker:
    """Moves rows as a worker parent does, and renders nothing."""

    farm: Farm

    def claim(self) -> lifecycle.Claim | None:
        return lifecycle.claim(self.farm, Offer("g0", "life", 1, ("wan-tiny-t2v",), None))

    def step(self, claimed: lifecycle.Claim, step: int, steps: int = 20) -> bool:
        told = {"step": step, "steps": steps, "expert": "high", "step_s": 0.5, "progress": step}
        detail = told | {"phase": "denoise", "updated_at": 1.0}
        progress = {"progress": step, "detail": detail}
        return running.report(self.farm, claimed.fence, "step", told, progress)

    def complete(self, claimed: lifecycle.Claim, content: bytes = CONTENT) -> None:
        folder = f"videos/{claimed.fence.video_id}/{claimed.fence.attempt}"
        video = self.farm.storage.put_bytes(content, f"{folder}/video.mp4")
        poster = self.farm.storage.put_bytes(b"a poster", f"{folder}/thumbnail.webp")
        spec = claimed.spec
        shape = {"width": spec.width, "height": spec.height, "frames": spec.frames}
        files = {
            name: {"key": one.key, "bytes": one.bytes, "sha256": one.sha256}
            for name, one in (("video", video), ("thumbnail", poster))
        }
        result = shape | {"fps": spec.fps, "codec": "h264", "attempt": 1, "files": files}
        result |= {"bytes": video.bytes, "sha256": video.sha256}
        report = {"phase_seconds": {"denoise": 1.5}, "peak_memory_bytes": 1 << 20}
        lifecycle.complete(self.farm, claimed.fence, result, report)

    def state(self, video_id: str) -> str:
        row = queries.one(self.farm, video_id, None)
        assert row is not None
        return row["state"]


@pytest.fixture
def worker(farm: Farm) -> Worker:
    return Worker(farm)


@pytest.fixture
def claimed(worker: Worker, wanfarm: Callable[..., Said]) -> lifecycle.Claim:
    """A video that was submitted and is being rendered."""
    assert wanfarm("submit", "a ball").code == 0
    claim = worker.claim()
    assert claim is not None
    return claim
