"""Embedded Postgres and Redis: they start, forgive a kill, keep their data and leave nothing."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest
import redis

from cli import embedded
from cli.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
STOP_ORDER = ("redis", "postgres")


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    yield path
    embedded.discard(path)


@pytest.fixture
def home(state):
    return embedded.open_home(state, "nobody")


@pytest.fixture
def supervisor():
    boss = Supervisor(lambda _name, _line: None)
    yield boss
    boss.stop(STOP_ORDER)
    boss.close()


def run_postgres(supervisor, service):
    child = supervisor.start(service.program)
    supervisor.wait_ready(child, lambda: embedded.postgres_ready(service, child.pid), within=30)
    return child


def run_valkey(supervisor, service):
    child = supervisor.start(service.program)
    supervisor.wait_ready(child, lambda: embedded.valkey_ready(service), within=30)
    return child


def one(service, query):
    with psycopg.connect(service.url, autocommit=True) as db:
        return db.execute(query).fetchone()[0]


def test_postgres_checks_its_pages_and_asks_for_a_password(home, supervisor):
    service = embedded.prepare_postgres(home)
    run_postgres(supervisor, service)

    assert one(service, "SELECT current_setting('data_checksums')") == "on"
    assert one(service, "SELECT datcollate || pg_encoding_to_char(encoding) FROM pg_database") in {
        "CUTF8",  # with the builtin provider
        "C.UTF-8UTF8",  # before version 17
    }
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(service.url.replace(service.url.split(":")[2].split("@")[0], "guess"))


def test_postgres_listens_on_loopback_only(home, supervisor):
    service = embedded.prepare_postgres(home)
    run_postgres(supervisor, service)

    assert one(service, "SELECT current_setting('listen_addresses')") == "127.0.0.1"
    assert one(service, "SELECT current_setting('unix_socket_directories')") == ""


def test_rows_survive_a_killed_postgres(home, supervisor):
    service = embedded.prepare_postgres(home)
    child = run_postgres(supervisor, service)
    with psycopg.connect(service.url, autocommit=True) as db:
        db.execute("CREATE TABLE kept AS SELECT 22 AS n")

    os.kill(child.pid, signal.SIGKILL)
    supervisor.wait_until(
        lambda: child.restarted == 1 and embedded.postgres_ready(service, child.pid), within=30
    )

    assert one(service, "SELECT n FROM kept") == 22


def test_data_port_and_password_are_the_same_after_a_restart(state, home, supervisor):
    first = embedded.prepare_postgres(home)
    child = run_postgres(supervisor, first)
    with psycopg.connect(first.url, autocommit=True) as db:
        db.execute("CREATE TABLE kept AS SELECT 22 AS n")
    os.kill(child.pid, signal.SIGKILL)  # the pid file stays behind
    child.restarts = False
    supervisor.wait_until(lambda: child.process is None, within=10)

    second = embedded.prepare_postgres(embedded.open_home(state, "nobody"))
    run_postgres(supervisor, second)

    assert second.url == first.url
    assert one(second, "SELECT n FROM kept") == 22


def test_a_taken_port_is_replaced(home):
    first = embedded.prepare_valkey(home)

    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", first.port))
        squatter.listen()
        second = embedded.prepare_valkey(home)

    assert second.port != first.port


def test_an_initdb_that_was_cut_short_starts_over(home, supervisor):
    service = embedded.prepare_postgres(home)
    data = Path(service.program.argv[2])
    (data / "PG_VERSION").unlink()
    data.with_name(f"{data.name}.made").unlink()

    service = embedded.prepare_postgres(home)
    run_postgres(supervisor, service)

    assert one(service, "SELECT 1") == 1


def test_valkey_wants_its_password_and_never_evicts(home, supervisor):
    service = embedded.prepare_valkey(home)
    run_valkey(supervisor, service)

    with redis.Redis.from_url(service.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}
    with (
        redis.Redis(port=service.port) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_secrets_are_readable_by_their_owner_only(home):
    embedded.prepare_postgres(home)
    embedded.prepare_valkey(home)

    for name in ("postgres.password", "valkey.password", "valkey.conf"):
        assert stat.S_IMODE((home.path / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_the_servers_never_run_as_root(home, supervisor):
    child = run_postgres(supervisor, embedded.prepare_postgres(home))

    expected = home.account.uid if os.geteuid() == 0 else os.getuid()
    assert Path(f"/proc/{child.pid}").stat().st_uid == expected != 0


def test_root_itself_is_no_account_for_postgres(state):
    if os.geteuid() != 0:
        assert embedded.open_home(state, "root").account is None
        return
    with pytest.raises(embedded.EmbeddedUnavailable, match="unprivileged"):
        embedded.open_home(state, "root")


def test_nothing_is_left_when_the_supervisor_is_killed(state, eventually):
    script = """
        import json, os, sys
        from pathlib import Path
        from cli import embedded
        from cli.supervisor import Supervisor
        home = embedded.open_home(Path(sys.argv[1]), "nobody")
        supervisor = Supervisor(lambda _name, _line: None)
        postgres, valkey = embedded.prepare_postgres(home), embedded.prepare_valkey(home)
        a, b = supervisor.start(postgres.program), supervisor.start(valkey.program)
        supervisor.wait_ready(a, lambda: embedded.postgres_ready(postgres, a.pid), within=30)
        print(json.dumps([a.pid, b.pid]), flush=True)
        supervisor.wait_until(lambda: False, within=60)
    """
    boss = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(state)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with boss:
        pids = json.loads(boss.stdout.readline())
        boss.kill()

    eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), within=10)
