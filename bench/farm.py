"""What a farm withstands on this machine, and how long it lets one wait: `python -m bench.farm`.

A farm of its own is started for each goal: Postgres, Redis, API, upkeep, a worker where one is
needed. The load comes from the same machine, and so takes its part of the cores.
"""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from bench.farm_load import load, submits, summed
from bench.farm_parents import parents
from bench.farm_queue import UNBOUNDED, history
from bench.farm_streams import streams
from bench.service import Api, checkpoints, phase, running, warm_farm
from bench.timing import record
from cli.local import pause
from shared.vocabulary.catalog import BUNDLED

_GOALS: Final = ("submits", "waits", "history", "streams", "parents")
_LINES: Final = 32  # connections that submit
_WARM_S: Final = 3.0  # of submits before the clock runs
_REST_S: Final = 1.0  # between two videos, so that each finds an idle farm
_PARENTS_S: Final = 10.0
_MEASURED: Final = Path("bench/measured/farm.json")

Rows = list[dict[str, Any]]


@click.command()
@click.option("--only", type=click.Choice(_GOALS), multiple=True, help="Else all.")
@click.option("--rate", default=200.0, show_default=True, help="Submits a second.")
@click.option("--seconds", default=60.0, show_default=True, help="Of submits, and of listening.")
@click.option("--processes", default=2, show_default=True, help="Of the API.")
@click.option("--model", type=click.Choice(BUNDLED), default="wan-mini-t2v", show_default=True)
@click.option("--videos", default=40, show_default=True, help="To wait for, one after another.")
@click.option("--finished", default=1_000_000, show_default=True, help="Rows of history.")
@click.option("--waiting", default=50_000, show_default=True, help="Rows in the queue.")
@click.option("--listeners", default=1_000, show_default=True)
@click.option("--parents", "counts", default=(1, 4, 16), show_default=True, multiple=True)
@click.option(
    "--to", type=click.Path(path_type=Path), help=f"Else {_MEASURED}, if all is measured."
)
def main(  # noqa: PLR0913 - click's
    only: tuple[str, ...],
    rate: float,
    seconds: float,
    processes: int,
    model: str,
    videos: int,
    finished: int,
    waiting: int,
    listeners: int,
    counts: tuple[int, ...],
    to: Path | None,
) -> None:
    """Load farms and report; each goal with one of its own."""
    goals: dict[str, Callable[[Path], Rows]] = {
        "submits": partial(_submits, processes=processes, model=model, rate=rate, seconds=seconds),
        "waits": partial(_waits, model=model, videos=videos),
        "history": partial(history, model=model, finished=finished, waiting=waiting),
        "streams": partial(
            _streams, processes=processes, model=model, listeners=listeners, seconds=seconds
        ),
        "parents": lambda _: parents(counts, waiting, min(seconds, _PARENTS_S)),
    }
    rows: Rows = []
    for name in only or _GOALS:
        print(f"{name} ...", flush=True)
        with tempfile.TemporaryDirectory(prefix="wanfarm-bench-") as folder:
            told = [one | {"cores": os.cpu_count()} for one in goals[name](Path(folder))]
        _show(told)
        rows += told
    if path := to or (None if only else _MEASURED):
        record(path, rows)


def _submits(state: Path, *, processes: int, model: str, rate: float, seconds: float) -> Rows:
    """Submit at a steady rate, and then as fast as the farm answers."""
    with running(state / "farm", "--no-worker", **_api(processes)) as client:
        submit = partial(load, client, lines=_LINES)
        submit(submits(client, model), seconds=min(seconds, _WARM_S), rate_hz=None)
        steady = submit(submits(client, model), seconds=seconds, rate_hz=rate)
        fast = submit(submits(client, model), seconds=seconds / 4, rate_hz=None)
    facts = {"api_processes": processes, "connections": _LINES}
    return [
        steady.row(f"submit, {rate:g} a second", **facts),
        fast.row(f"submit, {_LINES} at a time", **facts),
    ]


def _streams(state: Path, *, processes: int, model: str, listeners: int, seconds: float) -> Rows:
    with running(state / "farm", "--no-worker", **_api(processes)) as client:
        return streams(client, model, listeners=listeners, seconds=seconds)


def _api(processes: int) -> dict[str, str]:
    return UNBOUNDED | {"WANFARM_API_PROCESSES": str(processes)}


def _waits(state: Path, *, model: str, videos: int) -> Rows:
    """Ask an idle farm for one video after another."""
    kept = checkpoints(model, state / "models")
    with warm_farm(state / "farm", kept, model, "cpu") as api:
        _waited(api, model)  # the first of its shape prepares what later ones find
        waits = [_waited(api, model) for _ in range(videos)]
    return [
        summed(name, samples) | {"samples_s": samples}
        for name in waits[0]
        for samples in [[one[name] for one in waits]]
    ]


def _waited(api: Api, model: str) -> dict[str, float]:
    """Make a video; gives how long its sender waits, by its own clock and the events' moments."""
    pause(_REST_S)
    asked = {"model": model, "prompt": "a red ball moves left", "steps": 4, "seed": 1}
    sent = time.time()
    made = api.client.post("/v1/videos", json=asked).raise_for_status().json()
    heard = [(time.time(), event) for event in api.events(made["id"])]
    ended, last = heard[-1]
    assert last["to"] == "completed", last
    api.client.get(f"/v1/videos/{made['id']}/content").raise_for_status()
    got = time.time()
    began, start = next(one for one in heard if one[1].get("to") == "in_progress")
    return {
        "submit to start": start["at"] - sent,
        "submit to start, heard": began - sent,
        "last picture to downloaded": got - phase([event for _, event in heard], "encode"),
        "end heard to downloaded": got - ended,
    }


def _show(rows: Rows) -> None:
    """Print a table; `was` is the median of a farm without history."""
    print(
        f"{'':50} {'count':>6} {'p50 ms':>9} {'p95':>9} {'p99':>9} {'max':>9} {'a second':>9} was"
    )
    for one in rows:
        name, *times = (one[key] for key in ("row", "seconds", "p95_s", "p99_s", "max_s"))
        shown = " ".join(f"{seconds * 1000:9.1f}" for seconds in times)
        rate = f"{one['rate_hz']:9.1f}" if "rate_hz" in one else f"{'':9}"
        was = f" {one['young_s'] * 1000:.1f}, {one['ratio']:.2f}x" if "ratio" in one else ""
        bad = {key: n for key, n in one.get("statuses", {}).items() if key != "200"}
        late = f" unsent {one['unsent']}" if one.get("unsent") else ""
        late += f" stolen {one['stolen_ratio']:.0%} of a core" if "stolen_ratio" in one else ""
        print(f"{name:50} {one['count']:6} {shown} {rate}{was}{f' {bad}' if bad else ''}{late}")


if __name__ == "__main__":
    main()
