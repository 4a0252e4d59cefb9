"""A real browser in front of a real server: every page must be silent, local and narrow enough."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from flask import Flask
from pydantic import SecretStr
from werkzeug.serving import make_server

from api.app import close, create_app
from api.plumbing.runtime import EXTENSION
from shared.jobs import groups, keys
from shared.machinery.farm import Farm
from shared.machinery.settings import Settings, child_environment, variable_of
from tests.browser.staging import Stage
from tests.browser.visitor import Visitor

ROOT = Path(__file__).parents[2]
# Debian's, in a package of its own without windows: a third quicker than all of chromium.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    # a name that is not loopback, so that pages are no secure context there
    "--host-resolver-rules=MAP gpu-box 127.0.0.1",
)  # fmt: skip
Visit = Callable[..., Visitor]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for the whole run."""
    if CHROMIUM is None:
        pytest.skip("no chromium-headless-shell or chromium on PATH")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


def _reading_files(app: Flask) -> Callable[..., Any]:
    """Have files read at once: this server leaves them open when a browser hangs up."""

    def read(file: IO[bytes], _size: int = 0) -> list[bytes]:
        with file:
            return [file.read()]

    return lambda environ, start: app(environ | {"wsgi.file_wrapper": read}, start)


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[str]:
    """A live server for an app with these settings; gives its address."""
    app = create_app(settings)
    server = make_server("127.0.0.1", port, _reading_files(app), threaded=True)
    server.daemon_threads = False  # so that closing it waits for the answers under way
    thread = threading.Thread(target=server.serve_forever, name="server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        app.extensions[EXTENSION].hub.stop()  # lets the event streams go
        server.shutdown()
        thread.join(10)
        server.server_close()
        close(app)


@pytest.fixture
def page_settings(settings: Settings) -> Settings:
    """The farm's settings as the pages' server has them."""
    return settings.model_copy(update={"allowed_hosts": ("127.0.0.1", "gpu-box")})


@pytest.fixture
def address(page_settings: Settings) -> Iterator[str]:
    """Where the dashboard is."""
    with serving(page_settings) as url:
        yield url


@pytest.fixture
def key(farm: Farm) -> str:
    """An admin's key."""
    return keys.create(farm, "ops-laptop", "admin")[1]


@pytest.fixture
def stage(farm: Farm, key: str) -> Stage:
    """Whoever plays the worker."""
    return Stage(farm, key.split("_")[1])


@pytest.fixture
def visit(chromium: Any, address: str, key: str) -> Iterator[Visit]:
    """`visit(path, …)`: a page of a logged-in visitor, judged at the end of the test."""
    visitors: list[Visitor] = []

    def arrive(path: str = "/", *, log_in: bool = True, **options: object) -> Visitor:
        visitor = Visitor(chromium, address, **options)
        visitors.append(visitor)
        if log_in:
            visitor.come_back(key)
        visitor.go(path)
        return visitor

    yield arrive
    complaints = [text for one in visitors for text in one.leave()]
    assert complaints == []


@pytest.fixture
def served(checkpoints: Path) -> tuple[str, ...]:
    """The models of the worker."""
    return ("wan-tiny-t2v",)


@pytest.fixture
def worker(
    settings: Settings, farm: Farm, served: tuple[str, ...], eventually: Callable[..., object]
) -> Iterator[None]:
    """One parent with one rank on the CPU, ready to take jobs."""
    wanted = settings.model_dump() | {"models": served, "group": "g0"}
    texts = {variable_of(name): _text(value) for name, value in wanted.items() if value is not None}
    log = settings.data_dir.with_name("worker.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.app"],
            env=child_environment(**texts, PYTHONPATH=str(ROOT)),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(lambda: [g for g in groups.all_groups(farm) if g["state"] == "idle"], within=60)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)
