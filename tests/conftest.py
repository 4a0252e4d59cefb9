"""The world of the tests: real Postgres and Redis, started once, fresh databases and prefixes."""

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
import redis as redis_client
from psycopg import sql
from sqlalchemy import Engine

from cli import embedded
from cli.supervisor import spawn
from shared.machinery.database import connect, upgrade
from shared.machinery.farm import Farm, open_farm
from shared.machinery.settings import Settings, child_environment, load_settings
from shared.machinery.tables import Base
from shared.vocabulary.catalog import BUNDLED, MODELS

IN_CI = child_environment().get("CI", "") not in {"", "false", "0"}
TINY = tuple(name for name in BUNDLED if name.startswith("wan-tiny-"))
TEMPLATE = f"wanfarm_template_{os.getpid()}"
S3_PAGE = 20  # files that the tests' S3 server lists at once
_skipped: list[str] = []

# A shell that starts the tests in the background leaves these ignored, for our children too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@dataclass(frozen=True)
class Services:
    """Where the tests' servers listen."""

    postgres_url: str  # of a database on the server, for making and dropping others
    redis_url: str

    def admin(self) -> "psycopg.Connection":
        return psycopg.connect(self.postgres_url, autocommit=True)

    def url_of(self, database: str) -> str:
        return f"{self.postgres_url.rpartition('/')[0]}/{database}"


def wait_for(check: Callable[[], object], within: float = 30) -> object:
    """Poll until a check gives something true; its last value is in the failure."""
    deadline, pause = time.monotonic() + within, 0.01
    while not (value := check()):
        if time.monotonic() > deadline:
            pytest.fail(f"still {value!r} after {within} s")
        threading.Event().wait(pause)
        pause = min(pause * 1.2, 0.06)  # who waits long takes no core from what it waits for
    return value


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """`eventually(check, within=30)`: wait for a condition, with a deadline."""
    return wait_for


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Postgres and Redis of the whole run: those of the environment, else embedded ones."""
    given = load_settings()
    state = tmp_path_factory.mktemp("state")
    running: list[tuple[embedded.Service, subprocess.Popen[bytes]]] = []

    def run(service: embedded.Service, ready: Callable[..., bool]) -> str:
        with (state / f"{service.program.name}.log").open("wb") as log:
            process = spawn(service.program, log)
        running.append((service, process))
        wait_for(lambda: ready(service, process.pid), within=30)
        return service.url

    try:
        home = embedded.open_home(state, given.embedded_user)
        yield Services(
            given.database_url.replace("+psycopg", "")
            if "database_url" in given.model_fields_set
            else run(embedded.prepare_postgres(home, durable=False), embedded.postgres_ready),
            given.redis_url
            if "redis_url" in given.model_fields_set
            else run(embedded.prepare_valkey(home), embedded.valkey_ready),
        )
    finally:
        for _, process in running:
            process.send_signal(signal.SIGQUIT)
        for _, process in running:
            process.wait(20)
        embedded.discard(state)


@pytest.fixture(scope="session")
def template(services: Services) -> Iterator[str]:
    """A database with the newest schema, to copy."""
    with services.admin() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    upgrade(services.url_of(TEMPLATE).replace("postgresql://", "postgresql+psycopg://", 1))
    yield TEMPLATE
    for _, cleaner in _empty:
        cleaner.close()
    with services.admin() as admin:
        admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(TEMPLATE)))


_numbers = itertools.count()
# Databases as good as new, each with the connection that empties it: a tenth of what a copy costs.
_empty: list[tuple[str, "psycopg.Connection"]] = []


@pytest.fixture
def database_url(services: Services, template: str) -> Iterator[str]:
    """A migrated database without a row."""
    if not _empty:
        name = f"wanfarm_test_{os.getpid()}_{next(_numbers)}"
        with services.admin() as admin:
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
            admin.execute(statement.format(*map(sql.Identifier, (name, template))))
        _empty.append((name, psycopg.connect(services.url_of(name), autocommit=True)))
    name, cleaner = _empty.pop()
    yield services.url_of(name)
    if _emptied(cleaner):
        _empty.append((name, cleaner))
        return
    cleaner.close()
    with services.admin() as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _emptied(cleaner: "psycopg.Connection") -> bool:
    """End a test's connections and take out its rows; False when it has changed the schema."""
    try:
        cleaner.execute(_END_OTHERS)
    except psycopg.OperationalError:  # the test has broken all connections, or its Postgres
        return False
    found = {row[0] for row in cleaner.execute(_CONSTRAINTS)}
    tables = Base.metadata.tables.values()
    known = {check.name for table in tables for check in table.constraints if check.name}
    if not known <= found:
        return False
    names = [sql.Identifier(table.name) for table in tables]
    if cleaner.execute("SELECT pg_total_relation_size('videos') < 4000000").fetchone() == (True,):
        cleaner.execute("SET session_replication_role = replica")  # no trigger, no foreign key
        deletes = [sql.SQL("DELETE FROM {}").format(table) for table in names]
        cleaner.execute(sql.SQL(";").join(deletes))  # of few rows: a fifth of what TRUNCATE takes
    else:
        cleaner.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names)))
    return True


_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_CONSTRAINTS = "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"


@pytest.fixture
def key_prefix() -> str:
    """The test's own corner of Redis."""
    return f"test-{uuid.uuid4().hex[:12]}:"


@pytest.fixture
def redis_url(services: Services, key_prefix: str) -> Iterator[str]:
    """Redis, with the test's keys removed afterwards."""
    yield services.redis_url
    with redis_client.Redis.from_url(services.redis_url) as client:
        for key in client.scan_iter(f"{key_prefix}*"):
            client.delete(key)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `checkpoints` puts the miniatures; empty without it."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def checkpoints(models_dir: Path) -> Path:
    """The miniature models with random weights, built once per run."""
    from mini.build import build

    for name in TINY:
        build(MODELS[name], models_dir)
    return models_dir


@pytest.fixture(scope="session")
def small_farm(services: Services, models_dir: Path) -> Settings:
    """Settings of a farm in small: short leases, miniature models."""
    return load_settings(
        DATABASE_URL=services.postgres_url,
        REDIS_URL=services.redis_url,
        models_dir=models_dir,
        lease_s=6,
        heartbeat_s=1,
        tick_s=1,
        idle_look_s=2,
        secret_key="for tests only",
        device="cpu",
        models=TINY,
        default_text_model="wan-tiny-t2v",
        default_image_model="wan-tiny-i2v",
    )


@pytest.fixture
def settings(
    small_farm: Settings, database_url: str, redis_url: str, key_prefix: str, tmp_path: Path
) -> Settings:
    """The same with the test's own database, keys and files."""
    url = database_url.replace("postgresql:", "postgresql+psycopg:", 1)
    places: dict[str, object] = {"database_url": url, "redis_url": redis_url}
    places |= {"key_prefix": key_prefix}
    places |= {"data_dir": tmp_path / "data", "lora_dir": tmp_path / "loras"}
    return small_farm.model_copy(update=places)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Have all engines know what the first has compiled: half of what a test's statements take."""
    known: list[Engine] = []

    def connected(settings: Settings) -> Engine:
        engine = connect(settings)
        if not known:
            known.append(engine)
        engine.dialect, engine._compiled_cache = known[0].dialect, known[0]._compiled_cache
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.machinery.farm.connect", connected)
        yield


@pytest.fixture
def farm(settings: Settings) -> Iterator[Farm]:
    """The handles of one process on an empty farm."""
    handles = open_farm(settings)
    yield handles
    handles.close()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server of the whole run."""
    said = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with said.open("wb") as log:
        environment = child_environment(MOTO_S3_DEFAULT_MAX_KEYS=str(S3_PAGE))
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        listens = re.compile(r"Running on (http://127\.0\.0\.1:[0-9]+)")
        yield wait_for(lambda: listens.search(said.read_text()), within=60)[1]
    finally:
        process.kill()
        process.wait(20)


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings of a result store in an empty bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    name = f"farm-{uuid.uuid4().hex[:12]}"
    httpx.put(f"{s3_server}/{name}").raise_for_status()
    return {"s3_bucket": name, "s3_endpoint": s3_server}


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of four MiB; few containers may mount one, so its lack fails no CI."""
    request.node.add_marker("mount")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    disk = tmp_path / "small-disk"
    disk.mkdir()
    options = f"size=4m,uid={os.geteuid()},mode=0700"
    mount = [*root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing may be mounted here")
    yield disk
    subprocess.run([*root, "umount", "--lazy", disk], check=True)


def pytest_configure(config: pytest.Config) -> None:
    """List third-party warnings that are not ours to mend, each with its reason."""
    for line in ():
        config.addinivalue_line("filterwarnings", line)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember skips that CI does not accept."""
    expected = {"gpu", "gpu2", "mount"} & set(report.keywords)
    if report.skipped and not hasattr(report, "wasxfail") and not expected:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a CI run in which something that should run was skipped."""
    if IN_CI and _skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why such a run failed."""
    if IN_CI and _skipped:
        terminalreporter.section("skipped in CI, which counts as a failure")
        for nodeid in _skipped:
            terminalreporter.line(nodeid)
