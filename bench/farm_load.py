"""A load generator that is cheap, and honest about the answers it had to wait for.

Requests are due at a given rate whether or not earlier ones are answered, and a latency counts
from the moment that its request was due. A farm that stalls is so seen by every request that the
stall delays, and not only by those on their way (the "coordinated omission" of closed loops).
"""

import http.client
import itertools
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import httpx

from cli.local import pause

_PATIENCE_S: Final = 30.0
_NO_ANSWER: Final = 0
_START_S: Final = 0.2  # until the first request is due: every thread is there by then


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; no part of it is worked out while the clock runs."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None = None


Draw = Callable[[int], Request]


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a load; a request without an answer has the status 0."""

    seconds: list[float]  # from the moment that each was due to the last byte of its answer
    statuses: Counter[int]
    took_s: float  # from the first request's moment to the last answer
    load_cpu_s: float  # of this process meanwhile, which shares the farm's cores
    unsent: int  # were due, and found every connection waiting for an answer until the end

    def row(self, name: str, **facts: object) -> dict[str, Any]:
        """Sum it up for the record."""
        told: dict[str, object] = {
            "unsent": self.unsent,
            "rate_hz": len(self.seconds) / self.took_s,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "load_cpu_ratio": self.load_cpu_s / self.took_s,
        }
        return summed(name, self.seconds) | told | facts


class Line:
    """One connection to the farm, kept open from one request to the next."""

    def __init__(self, client: httpx.Client) -> None:
        """Take address and key of a client; connects at the first request."""
        self._connection = http.client.HTTPConnection(
            client.base_url.host, client.base_url.port, timeout=_PATIENCE_S
        )

    def ask(self, request: Request) -> int:
        """Send a request and read the answer to its end; gives the status, 0 for none."""
        line = self._connection
        try:
            line.request(request.method, request.path, request.body, request.headers)
            answer = line.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            line.close()
            return _NO_ANSWER
        return answer.status

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


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
    began, cpu_s = time.monotonic() + _START_S, time.process_time()

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
        unsent=max(0, int(rate_hz * seconds) - len(taken)) if rate_hz else 0,
    )


def submits(client: httpx.Client, model: str) -> Draw:
    """Draw requests for new videos, each with an Idempotency-Key of its own."""
    sent = json.dumps({"model": model, "prompt": "a red ball moves left", "seed": 1}).encode()
    known = headers_of(client) | {"Content-Type": "application/json"}
    batch = time.time_ns()
    return lambda number: Request(
        "POST", "/v1/videos", known | {"Idempotency-Key": f"{batch}-{number}"}, sent
    )


def reads(client: httpx.Client, *paths: str) -> Draw:
    """Draw requests for these paths, one after another."""
    known = headers_of(client)
    return lambda number: Request("GET", paths[number % len(paths)], known)


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
