"""What can go wrong with a farm, each as a thing to do and what ends it a while later."""

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from tests.chaos.town import GROUPS, Town

Later = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault that has begun: what undoes it, and when."""

    undo: Later | None = None
    after_s: float = 0.0


def kill_parent(town: Town, draw: random.Random) -> Trouble:
    """A worker dies and comes back, soon or late."""
    return _back(town, draw.choice(GROUPS), draw, longest=8)


def kill_parent_with_a_wrong_clock(town: Town, draw: random.Random) -> Trouble:
    """A worker dies and comes back with a clock that is hours off."""
    name, clock = draw.choice(GROUPS), draw.choice(("+2h", "-2h"))
    town.kill(name)
    return Trouble(lambda: town.start(name, clock), draw.uniform(0, 2))


def kill_rank(town: Town, draw: random.Random) -> Trouble:
    """A rank dies."""
    return _signal_rank(town, draw, signal.SIGKILL)


def stop_rank(town: Town, draw: random.Random) -> Trouble:
    """A rank stands still, for less or for more than it may."""
    return _signal_rank(town, draw, signal.SIGSTOP)


def _signal_rank(town: Town, draw: random.Random, what: signal.Signals) -> Trouble:
    pids = [pid for group in GROUPS for pid in town.ranks(group)]
    if not pids:
        return Trouble()
    pid = draw.choice(pids)
    _send(pid, what)
    return Trouble(lambda: _send(pid, signal.SIGCONT), draw.uniform(0.5, 8))


def _send(pid: int, what: signal.Signals) -> None:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return


def stop_parent(town: Town, draw: random.Random) -> Trouble:
    """A worker stands still, for less or for more than its lease."""
    name = draw.choice(GROUPS)
    town.send(name, signal.SIGSTOP)
    return Trouble(lambda: town.send(name, signal.SIGCONT), draw.uniform(0.5, 12))


def drain_parent(town: Town, draw: random.Random) -> Trouble:
    """A worker is asked to leave, and another starts in its place."""
    name = draw.choice(GROUPS)
    town.send(name, signal.SIGTERM)

    def again() -> None:
        town.kill(name)
        town.start(name)

    return Trouble(again, draw.uniform(2, 6))


def kill_api(town: Town, draw: random.Random) -> Trouble:
    """The API dies, between whatever it was doing."""
    return _back(town, "api", draw, longest=2)


def kill_upkeep(town: Town, draw: random.Random) -> Trouble:
    """The slow duties are cut short."""
    return _back(town, "upkeep", draw, longest=2)


def kill_postgres(town: Town, draw: random.Random) -> Trouble:
    """The database dies, with whatever was being committed."""
    town.send("postgres", signal.SIGQUIT)  # at once, its sessions too; the next start recovers
    town.running["postgres"].wait(20)
    return Trouble(lambda: town.start("postgres"), draw.uniform(0, 3))


def end_sessions(town: Town, _draw: random.Random) -> Trouble:
    """Every session of the database is ended."""
    url = town.servers["postgres"].url
    with psycopg.connect(url, autocommit=True, connect_timeout=2) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'wanfarm' AND pid <> pg_backend_pid()"
        )
    return Trouble()


def cut_sockets(town: Town, _draw: random.Random) -> Trouble:
    """Connections to the database are reset: the answer to a commit may be lost."""
    town.relay("cut")
    return Trouble()


def swallow_bytes(town: Town, draw: random.Random) -> Trouble:
    """The network to the database takes everything and delivers nothing."""
    town.relay(f"swallow {draw.uniform(0.5, 10):.1f}")
    return Trouble()


def kill_redis(town: Town, draw: random.Random) -> Trouble:
    """The broker dies, and everything it held."""
    return _back(town, "redis", draw, longest=5)


def stop_redis(town: Town, draw: random.Random) -> Trouble:
    """The broker stands still."""
    town.send("redis", signal.SIGSTOP)
    return Trouble(lambda: town.send("redis", signal.SIGCONT), draw.uniform(0.5, 6))


def empty_redis(town: Town, _draw: random.Random) -> Trouble:
    """Everything the broker held is gone."""
    with redis.Redis.from_url(town.servers["redis"].url, socket_timeout=2) as broker:
        broker.flushall()
    return Trouble()


def fill_disk(town: Town, draw: random.Random) -> Trouble:
    """The disk of the results is full."""
    filler = town.settings.data_dir / "filler"
    if not town.small_disk:
        return Trouble()
    _fill(filler)
    return Trouble(lambda: filler.unlink(missing_ok=True), draw.uniform(0.5, 5))


def _fill(path: Path) -> None:
    try:
        with path.open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 20))
    except OSError:
        return


def _back(town: Town, name: str, draw: random.Random, longest: float) -> Trouble:
    town.kill(name)
    return Trouble(lambda: town.start(name), draw.uniform(0, longest))


FAULTS: dict[Callable[[Town, random.Random], Trouble], int] = {  # with how often each comes
    kill_parent: 4,
    kill_parent_with_a_wrong_clock: 1,
    kill_rank: 4,
    stop_rank: 2,
    stop_parent: 3,
    drain_parent: 2,
    kill_api: 2,
    kill_upkeep: 1,
    kill_postgres: 1,
    end_sessions: 2,
    cut_sockets: 3,
    swallow_bytes: 2,
    kill_redis: 1,
    stop_redis: 1,
    empty_redis: 2,
    fill_disk: 2,
}
