"""How claims of many parents on one database get along; as a program, one such parent."""

import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, Final

from bench.claim import OFFER, RESULT, fill, services
from bench.farm_load import summed
from cli.processes import program
from shared.jobs import lifecycle
from shared.machinery.database import upgrade
from shared.machinery.farm import open_farm
from shared.machinery.settings import child_environment, load_settings

_TENANTS: Final = 20
_PATIENCE_S: Final = 60.0

Times = list[tuple[float, float]]  # of a claim and of its completion


def parents(counts: tuple[int, ...], waiting: int, seconds: float) -> list[dict[str, Any]]:
    """Let so many parents claim and complete what waits, with no render between."""
    with services() as (url, redis_url):
        upgrade(url)
        fill(url, 0, waiting, _TENANTS)
        known = child_environment(DATABASE_URL=url, REDIS_URL=redis_url)
        return [_race(count, known, seconds) for count in counts]


def _race(count: int, known: dict[str, str], seconds: float) -> dict[str, Any]:
    times = [one for told in _run(count, known, seconds) for one in told]
    row = summed(f"claim, {count} parents at once", [claim for claim, _ in times])
    complete_s = statistics.median(complete for _, complete in times)
    return row | {"rate_hz": len(times) / seconds, "complete_s": complete_s, "parents": count}


def _run(count: int, known: dict[str, str], seconds: float) -> list[Times]:
    with ExitStack() as running:
        racers = [running.enter_context(_started(f"g{n}", known, seconds)) for n in range(count)]
        for racer in racers:
            assert racer.stdout
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        told = [racer.communicate(timeout=seconds + _PATIENCE_S)[0] for racer in racers]
    return [json.loads(one) for one in told]


def _started(group: str, known: dict[str, str], seconds: float) -> subprocess.Popen[str]:
    argv = program("bench.farm_parents", group, str(seconds))
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=known, stdin=pipe, stdout=pipe, text=True)


def main() -> None:
    """Claim and complete as one parent, from when a line comes until the time is over."""
    group, seconds = sys.argv[1], float(sys.argv[2])
    offer = replace(OFFER, group=group)
    times: Times = []
    with closing(open_farm(load_settings())) as farm:
        lifecycle.take_over(farm, group)  # connects
        print("ready", flush=True)
        sys.stdin.readline()
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            claimed = lifecycle.claim(farm, offer)
            assert claimed is not None, "nothing waits any more"
            between = time.perf_counter()
            lifecycle.complete(farm, claimed.fence, RESULT, {})
            times.append((between - began, time.perf_counter() - between))
    print(json.dumps(times))


if __name__ == "__main__":
    main()
