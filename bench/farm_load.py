"""A load generator that is cheap, and honest about the answers it had to wait for.

Requests are due at a given rate whether or not earlier ones are answered, and a latency counts
from the moment that its request was due. A farm that stalls is so seen by every request that the
stall delays, and not only by those on their way (the "coordinated omission" of closed loops).
"""

import io
import itertools
import json
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx

from cli.local import pause

_PATIENCE_S: Final = 30.0
_NO_ANSWER: Final = 0
_START_S: Final = 0.2  # until the first request is due: every thread is there by then


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and what it asks for."""

    sent: bytes
    path: str


Draw = Callable[[int], Request]


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a load; a request without an answer has the status 0."""

    seconds: list[float]  # from the moment that each was due to the last byte of its answer
    statuses: Counter[int]
    took_s: float  # from the first request's moment to the last answer
    load_cpu_s: float  # of this process meanwhile, which shares the farm's cores
    stolen_s: float  # of the cores, by other guests of a virtual machine's host
    unsent: int  # were due, and found every connection waiting for an answer until the end

    def row(self, name: str, **facts: object) -> dict[str, Any]:
        """Sum it up for the record."""
        told: dict[str, object] = {
            "unsent": self.unsent,
            "rate_hz": len(self.seconds) / self.took_s,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "load_cpu_ratio": self.load_cpu_s / self.took_s,
            "stolen_ratio": self.stolen_s / self.took_s,
        }
        return summed(name, self.seconds) | told | facts


class Line:
    """One connection to the farm, kept open from one request to the next.

    Of an answer it reads what it must: the status and the length. A whole client of HTTP would
    take a tenth of a core from the farm that it measures.
    """

    def __init__(self, client: httpx.Client) -> None:
        """Take the address of a client; connects at the first request."""
        self._address = (client.base_url.host, client.base_url.port)
        self._socket: socket.socket | None = None
        self._answers: BinaryIO = io.BytesIO()

    def ask(self, request: Request) -> int:
        """Send a request and read the answer to its end; gives the status, 0 for none."""
        try:
            self._connected().sendall(request.sent)
            return self._read()
        except (OSError, ValueError, IndexError):
            self.close()
            return _NO_ANSWER

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._answers.close()
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=_PATIENCE_S)
            self._answers = self._socket.makefile("rb")
        return self._socket

    def _read(self) -> int:
        status = int(self._answers.readline().split()[1])
        length = 0
        while (line := self._answers.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(self._answers.read(length)) < length:
            raise ConnectionError("hung up in the middle of an answer")
        return status


def load(
    client: httpx.Client, draw: Draw, *, seconds: float, lines: int, rate_hz: float | None
) -> Taken:
    """Send requests over several connections.

    Args:
        client: of the farm.
        draw: gives the n-th request.
        seconds: how long; what was due by then and found no free connection is told as unsent.
        lines: connections, each with a thread; one that is late takes its next request late.
        rate_hz: how many are due a second; None for one after another on each connection.
    """
    numbers = itertools.count()
    taken: list[tuple[float, int]] = []
    began, cpu_s, stolen = time.monotonic() + _START_S, time.process_time(), stolen_s()

    def work() -> None:
        with closing(Line(client)) as line:
            while time.monotonic() < began + seconds:
                number = next(numbers)
                due = began + number / rate_hz if rate_hz else max(began, time.monotonic())
                if due >= began + seconds:
                    return
                pause(due - time.monotonic())
                status = line.ask(draw(number))
                taken.append((time.monotonic() - due, status))

    threads = [threading.Thread(target=work) for _ in range(lines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + _PATIENCE_S)
    return Taken(
        seconds=[one for one, _ in taken],
        statuses=Counter(status for _, status in taken),
        took_s=time.monotonic() - began,
        load_cpu_s=time.process_time() - cpu_s,
        stolen_s=stolen_s() - stolen,
        unsent=max(0, int(rate_hz * seconds) - len(taken)) if rate_hz else 0,
    )


def stolen_s() -> float:
    """Seconds that all cores would have run and might not, since the machine started.

    Linux tells it of virtual machines (`man 5 proc_stat`); nothing is known elsewhere.
    """
    try:
        ticks = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return 0.0
    return int(ticks[8]) / os.sysconf("SC_CLK_TCK")


def submits(client: httpx.Client, model: str) -> Draw:
    """Draw requests for new videos, each with an Idempotency-Key of its own."""
    body = json.dumps({"model": model, "prompt": "a red ball moves left", "seed": 1})
    known = headers_of(client) | {"Content-Type": "application/json"}
    batch = time.time_ns()

    def draw(number: int) -> Request:
        headers = known | {"Idempotency-Key": f"{batch}-{number}"}
        return request(client, "POST", "/v1/videos", headers, body)

    return draw


def reads(client: httpx.Client, *paths: str) -> Draw:
    """Draw requests for these paths, one after another."""
    known = headers_of(client)
    return lambda number: request(client, "GET", paths[number % len(paths)], known)


def request(
    client: httpx.Client, method: str, path: str, headers: Mapping[str, str], body: str = ""
) -> Request:
    """Write a request as it goes over the wire."""
    given = {"Host": client.base_url.netloc.decode(), "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return Request(f"{method} {path} HTTP/1.1\r\n{head}\r\n{body}".encode(), path)


def headers_of(client: httpx.Client) -> dict[str, str]:
    """Give what shows who asks."""
    return {"Authorization": client.headers["Authorization"]}


def summed(name: str, seconds: Sequence[float]) -> dict[str, Any]:
    """Make a row: the median, and how bad it gets."""
    ordered = sorted(seconds)

    def at(ratio: float) -> float:
        return ordered[math.ceil(ratio * len(ordered)) - 1]

    kept = {"seconds": at(0.5), "p95_s": at(0.95), "p99_s": at(0.99), "max_s": ordered[-1]}
    return {"row": name, "count": len(ordered)} | kept
