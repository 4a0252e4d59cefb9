"""`wanfarm bench`: what a farm takes under a load of real videos, and what its parts do."""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final, TextIO

import click

from cli import following
from cli.client import Ask, Exit, FarmError, Json
from cli.render import seconds_text
from cli.request import body_of, read_prompt, spec_options
from cli.session import Session, farm_verb
from shared.vocabulary.ids import new_id

_PROMPT: Final = "a red ball passes behind a blue square"
_TIMES: Final = ("wait_s", "run_s", "end_to_end_s")
_KIND: Final = "bench.serve"
_NOISE: Final = 0.05  # of a median, at least
_PARTS: Final = {  # verb -> (module, help)
    "engine": ("engine", "One forward beside plain diffusers: seconds and peak memory."),
    "cache": ("cache", "Cache policies: speed against likeness to the uncached video."),
    "overhead": ("service", "What a farm adds to a render: submit to start, end to file."),
}


@click.group()
def bench() -> None:
    """Measure a farm under load, or one of its parts."""


@bench.command("serve")
@click.argument("word", metavar="[PROMPT]", default=_PROMPT)
@click.option("-n", "--videos", type=click.IntRange(1), default=10, show_default=True, help="All.")
@click.option(
    "-c", "--concurrency", type=click.IntRange(1), default=1, show_default=True, help="At a time."
)
@click.option("--against", type=click.File(), help="An earlier record: exit 1 when slower.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the record goes.")
@farm_verb
@spec_options
def serve(
    session: Session,
    word: str,
    *,
    videos: int,
    concurrency: int,
    against: TextIO | None,
    output: Path | None,
    **options: Any,  # noqa: ANN401 - click's
) -> int:
    """Render videos through a farm, so many at a time, and tell how long each part takes."""
    body = body_of(options) | {"prompt": read_prompt(word)}
    before = _read(against) if against else None
    began = time.monotonic()
    runs = list(_run(session, body, videos, concurrency))
    record = _record(session, body, runs, time.monotonic() - began, concurrency)
    if output:
        _write(output, record)
    slower = list(slower_than(before, record)) if before else []
    lines = [*_table(record), *(f"slower: {one}" for one in slower)]
    session.screen.object(record, lines, short=f"{record['videos_per_hour']:.1f}")
    if record["completed"] < videos:
        return Exit.JOB_FAILED
    return Exit.ERROR if slower else Exit.OK


def _read(file: TextIO) -> Json:
    """Read an earlier record.

    Raises:
        UsageError: when it is none.
    """
    try:
        record: Json = json.load(file)
        if record["object"] == _KIND and record["times"]:
            return record
    except (ValueError, KeyError, TypeError):
        pass
    raise click.UsageError(
        f"--against {file.name} holds no finished run. Give a file that -o has written."
    )


def _write(path: Path, record: Json) -> None:
    try:
        path.write_text(json.dumps(record, indent=1) + "\n")
    except OSError as err:
        raise FarmError(Exit.ERROR, f"{path} cannot be written: {err.strerror}.") from err


def _run(session: Session, body: Json, videos: int, concurrency: int) -> Iterator[Json]:
    """Keep so many videos going; each has a seed of its own."""
    first: object = body.get("seed", 1)
    if not isinstance(first, int):
        raise click.UsageError(f"seed is {first!r}. Seeds count up from it. Give a whole number.")
    with ThreadPoolExecutor(concurrency) as pool:
        going = [pool.submit(_one, session, body | {"seed": first + n}) for n in range(videos)]
        for done, one in enumerate(as_completed(going), 1):
            yield one.result()
            session.screen.progress(f"{done} of {videos} videos", kind=str(done))
    session.screen.end_progress()


def _one(session: Session, body: Json) -> Json:
    began = time.monotonic()
    key = {"Idempotency-Key": new_id("form")}
    made = session.api.ask(Ask("POST", "/v1/videos", body, headers=key))
    video = following.wait_for_end(session, made["id"], within_s=None)
    timings: Json = video["timings"] or {"queued": 0.0, "total": 0.0}
    return {
        "id": video["id"],
        "status": video["status"],
        "wait_s": timings["queued"],
        "run_s": timings["total"] - timings["queued"],
        "end_to_end_s": time.monotonic() - began,
    }


def _record(
    session: Session, body: Json, runs: list[Json], took_s: float, concurrency: int
) -> Json:
    """Sum up, with all that the figures depend on."""
    done = [run for run in runs if run["status"] == "completed"]
    groups: list[Json] = session.api.get("/v1/groups")["data"]
    named = ("name", "device", "ranks", "parallel", "software")
    return {
        "object": _KIND,
        "request": body,
        "concurrency": concurrency,
        "videos": len(runs),
        "completed": len(done),
        "took_s": took_s,
        "videos_per_hour": 3600 * len(done) / took_s,
        "times": {name: _spread([run[name] for run in done]) for name in _TIMES if done},
        "groups": [{name: one[name] for name in named} for one in groups],
        "runs": runs,
    }


def _spread(values: list[float]) -> Json:
    if len(values) == 1:
        return dict.fromkeys(("p25", "p50", "p75", "p95", "p99"), values[0])
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"p{at}": cuts[at - 1] for at in (25, 50, 75, 95, 99)}


def _table(record: Json) -> Iterator[str]:
    yield f"{'':<14}{'p50':>9}{'p95':>9}{'p99':>9}"
    for name, spread in record["times"].items():
        cells = "".join(f"{seconds_text(spread[at]):>9}" for at in ("p50", "p95", "p99"))
        yield f"{name.removesuffix('_s').replace('_', ' '):<14}{cells}"
    many = f"{record['completed']} of {record['videos']} videos, {record['concurrency']} at a time"
    yield f"{many}: {record['videos_per_hour']:.1f} an hour"


def slower_than(before: Json, now: Json) -> Iterator[str]:
    """Name each time whose median grew by more than the earlier runs differed among themselves."""
    for name, was in before["times"].items():
        noise = max(_NOISE, (was["p75"] - was["p25"]) / was["p50"]) if was["p50"] else 1.0
        new = now["times"][name]["p50"] if now["times"] else float("inf")
        if new > was["p50"] * (1 + noise):
            grown = new / was["p50"] if was["p50"] else float("inf")
            yield f"{name} is {grown:.2f} times what it was; {noise:.0%} would be noise"


def _part(name: str, module: str, text: str) -> click.Command:
    """Hand the rest of a command line to a bench that is a program of its own."""

    @click.command(name, help=text, add_help_option=False)
    @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
    def run(rest: tuple[str, ...]) -> None:
        os.execv(sys.executable, [sys.executable, "-m", f"bench.{module}", *rest])  # noqa: S606

    run.context_settings = {"ignore_unknown_options": True}
    return run


for _name, (_module, _text) in _PARTS.items():
    bench.add_command(_part(_name, _module, _text))
