"""What a long queue and a longer history cost those who claim, list, look and submit."""

import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import text

from bench.claim import OFFER, RESULT, fill
from bench.farm_load import Draw, Line, Request, reads, submits, summed
from bench.service import running
from cli.local import Local
from shared.jobs import lifecycle
from shared.machinery.farm import Farm, open_farm
from shared.machinery.settings import load_settings

_TENANTS: Final = 20
_SMALL: Final = (1_000, 1_000)  # finished and waiting, of a young farm
_WARM: Final = 20  # rounds that prepare what later ones find
_ROUNDS: Final = 200
UNBOUNDED: Final = {  # a farm refuses far earlier
    **dict.fromkeys(("WANFARM_MAX_QUEUED", "WANFARM_MAX_QUEUED_PER_KEY"), str(10**7)),
    **dict.fromkeys(("WANFARM_SUBMIT_PER_MIN", "WANFARM_REQUESTS_PER_S"), "0"),
}

Work = Callable[[], object]


def history(state: Path, model: str, finished: int, waiting: int) -> list[dict[str, Any]]:
    """Time claims and answers of a young farm and of one with this many rows."""
    young = _timed(state / "young", model, *_SMALL)
    old = _timed(state / "old", model, finished, waiting)
    return [
        summed(f"{name}, {finished} finished, {waiting} waiting", old[name])
        | {
            "young_s": statistics.median(young[name]),
            "ratio": statistics.median(old[name]) / statistics.median(young[name]),
            "samples_s": {"young": young[name], "old": old[name]},
        }
        for name in young
    ]


def _timed(state: Path, model: str, finished: int, waiting: int) -> dict[str, list[float]]:
    state.mkdir()
    with running(state / "farm", "--no-worker", **UNBOUNDED) as client:
        farm = open_farm(load_settings(**Local(state / "farm").service_urls()))
        with closing(farm), closing(Line(client)) as line:
            fill(farm.settings.database_url, finished, waiting, _TENANTS)
            draws = _answers(client, farm, model)
            asks = {name: _asking(line, draw) for name, draw in draws.items()}
            return _interleaved(_claims(farm) | asks)


def _claims(farm: Farm) -> dict[str, Work]:
    claims: list[lifecycle.Claim] = []

    def claim() -> None:
        claimed = lifecycle.claim(farm, OFFER)
        assert claimed is not None
        claims.append(claimed)

    return {
        "claim": claim,
        "complete": lambda: lifecycle.complete(farm, claims.pop().fence, RESULT, {}),
    }


def _answers(client: httpx.Client, farm: Farm, model: str) -> dict[str, Draw]:
    with farm.db.connect() as db:
        newest = text("SELECT max(id) FROM videos WHERE state = :state")
        ids = {one: db.scalar(newest, {"state": one}) for one in ("completed", "queued")}
    then = int(time.time()) - 37_000  # within what is finished
    asked = {
        "list": "/v1/videos",
        "list of a tenant": "/v1/videos?tenant=tenant-3",
        "list of the completed": "/v1/videos?status=completed",
        "list of a tenant's completed": "/v1/videos?tenant=tenant-3&status=completed",
        "list of what came before a moment": f"/v1/videos?created_before={then}",
        "list of a key without videos": "/v1/videos?key=nobody",
        "retrieve, completed": f"/v1/videos/{ids['completed']}",
        "retrieve, queued": f"/v1/videos/{ids['queued']}",
        "page: overview": "/",
        "page: jobs": "/jobs",
        "page: jobs of a day": "/jobs?since=24h",
    }
    draws = {name: reads(client, path) for name, path in asked.items()}
    return draws | {"submit": submits(client, model)}


def _asking(line: Line, draw: Draw) -> Work:
    numbers = itertools.count()

    def ask() -> None:
        request: Request = draw(next(numbers))
        status = line.ask(request)
        assert status == 200, f"{request.path} answers {status}"

    return ask


def _interleaved(works: dict[str, Work]) -> dict[str, list[float]]:
    """Time each work once a round, so that whatever slows the machine slows them all alike."""
    samples: dict[str, list[float]] = {name: [] for name in works}
    for number in range(_WARM + _ROUNDS):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if number >= _WARM:
                samples[name].append(time.perf_counter() - began)
    return samples
