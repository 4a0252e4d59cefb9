"""Random faults against a whole farm, then the ledger check: `make chaos`."""

import contextlib
import heapq
import itertools
import json
import random
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import psycopg
import redis
from sqlalchemy import func, select

from shared.jobs import groups, invariants, removal
from shared.machinery.tables import Attempt, Video
from shared.vocabulary.states import MOVES
from tests.chaos.faults import FAULTS
from tests.chaos.town import GROUPS, MODEL, Town, raise_town
from tests.farm.conftest import overlaps

_FINAL = [state for state in MOVES if state.is_final]
_BETWEEN_S = (0.5, 3.0)  # faults
_CANCELLED = 0.05  # of all videos
_ENOUGH_S = 6 + 30.0  # a lease and half a minute: nothing stands still for longer
_PAUSE = threading.Event()  # never set


class Chaos:
    """One run: what is to come, in its order, and what was promised so far."""

    def __init__(self, town: Town, seed: int) -> None:
        self.town = town
        self.draw = random.Random(seed)
        self.accepted: dict[int, str] = {}
        self.faults: Counter[str] = Counter()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, moment: float, deed: Callable[[], None]) -> None:
        """Plan something."""
        heapq.heappush(self._agenda, (moment, next(self._numbers), deed))

    def run(self, jobs: int, seconds: float) -> None:
        """Send videos and break things until the time is over, then let everything heal."""
        began = time.monotonic()
        for number in range(jobs):
            moment = began + seconds * 0.9 * number / jobs
            self.at(moment, lambda number=number: self._submit(number))
        moment = began + 2
        while moment < began + seconds:
            self.at(moment, self._break_something)
            moment += self.draw.uniform(*_BETWEEN_S)
        while self._agenda:
            moment, _, deed = heapq.heappop(self._agenda)
            _PAUSE.wait(max(0.0, moment - time.monotonic()))
            deed()
        for name, process in [*self.town.running.items()]:
            if process.poll() is not None:
                self.town.start(name)

    def _break_something(self) -> None:
        kinds = [*FAULTS]
        (fault,) = self.draw.choices(kinds, weights=[FAULTS[one] for one in kinds])
        try:
            trouble = fault(self.town, self.draw)
        except (psycopg.Error, redis.RedisError, BrokenPipeError):
            return  # what it would break is broken already
        self.faults[fault.__name__] += 1
        if trouble.undo:
            self.at(time.monotonic() + trouble.after_s, self._undo(trouble.undo))

    def _undo(self, undo: Callable[[], None]) -> Callable[[], None]:
        def deed() -> None:
            with contextlib.suppress(BrokenPipeError):
                undo()

        return deed

    def _submit(self, number: int) -> None:
        """Ask for a video until the API has said yes; the key makes it one video."""
        body = {
            "model": MODEL,
            "prompt": "wait",
            "seed": number,
            "steps": self.draw.choice((2, 10, 30)),
            "size": "64x64",
            "frames": 5,
            "priority": self.draw.choice((0, 0, 1)),
        }
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"chaos-{number}"}
        answer = self._ask("POST", "/v1/videos", body, headers)
        if answer is None:
            self.at(time.monotonic() + 0.5, lambda: self._resend(number, body, headers))
        else:
            self._keep(number, answer["id"])

    def _resend(self, number: int, body: dict, headers: dict[str, str]) -> None:
        answer = self._ask("POST", "/v1/videos", body, headers)
        if answer is None:
            self.at(time.monotonic() + 0.5, lambda: self._resend(number, body, headers))
        else:
            self._keep(number, answer["id"])

    def _keep(self, number: int, video_id: str) -> None:
        self.accepted[number] = video_id
        if self.draw.random() < _CANCELLED:
            moment = time.monotonic() + self.draw.uniform(0, 5)
            path = f"/v1/videos/{video_id}/cancel"
            self.at(moment, lambda: self._ask("POST", path, {}, {}) and None)

    def _ask(self, method: str, path: str, body: dict, headers: dict[str, str]) -> dict | None:
        headers = headers | {
            "Authorization": f"Bearer {self.town.key}",
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(
            self.town.url + path, json.dumps(body).encode(), headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as err:
            if err.code < 500 and err.code not in {409, 429}:
                raise AssertionError(f"{path}: {err.code} {err.read()!r}") from err
            return None
        except (OSError, ValueError):
            return None


def settle(chaos: Chaos) -> float:
    """Wait until every video is over; fails when none of those left moves for too long."""
    began = still_since = time.monotonic()
    before: list[str] = []
    while left := _unfinished(chaos):
        if left != before:
            before, still_since = left, time.monotonic()
        if time.monotonic() - still_since > _ENOUGH_S:
            told = "\n".join([*left, *_groups(chaos)])
            raise SystemExit(f"Nothing has moved for {_ENOUGH_S:.0f} s.\n{told}")
        _PAUSE.wait(0.5)
    return time.monotonic() - began


def _unfinished(chaos: Chaos) -> list[str]:
    """Where each video stands that is not over; another line when anything happens to it."""
    columns = (Video.id, Video.state, Video.attempt, Video.seq, Video.run_after, Video.error)
    left = select(*columns).where(Video.state.not_in(_FINAL)).order_by(Video.id)
    with chaos.town.farm.db.connect() as db:
        return [" ".join(map(str, row)) for row in db.execute(left)]


def _groups(chaos: Chaos) -> list[str]:
    told = ("name", "state", "problem", "drain", "video_id")
    known = groups.all_groups(chaos.town.farm)
    return [" ".join(str(group[name]) for name in told) for group in known]


def judge(chaos: Chaos) -> list[str]:
    """What is wrong, if anything: from the database, the disk and the ranks' own log."""
    farm = chaos.town.farm
    removal.drop_saved(farm)
    removal.drop_strays(farm)
    wrong = [f"{one.of}: {one.what} ({one.rule})" for one in invariants.broken(farm)]
    with farm.db.connect() as db:
        rows = dict(db.execute(select(Video.id, Video.state)).all())
    wrong += [f"{one}: accepted and gone" for one in chaos.accepted.values() if one not in rows]
    extra = len(rows) - len({*chaos.accepted.values()})
    wrong += [f"{extra} videos that nobody was promised"] if extra else []
    wrong += [
        f"seed {seed}: two runs at once, {later:.1f} before {earlier:.1f}"
        for seed, earlier, later in overlaps(chaos.town.settings.models_dir)
    ]
    return wrong


def ledger(chaos: Chaos) -> str:
    """What came of it, to be read by people."""
    with chaos.town.farm.db.connect() as db:
        states = dict(db.execute(select(Video.state, func.count()).group_by(Video.state)).all())
        code = Video.error["code"].as_string().label("code")
        failed = select(code, func.count()).where(Video.state == "failed").group_by("code")
        codes = db.execute(failed).all()
        outcomes = db.execute(
            select(Attempt.outcome, Attempt.kind, func.count()).group_by(
                Attempt.outcome, Attempt.kind
            )
        ).all()
        adopted = db.scalar(
            select(func.count()).where(Video.result["attempt"].as_integer() != Video.attempt)
        )
    lines = [
        f"accepted {len(chaos.accepted)}: {_told(states)}",
        f"attempts: {_told({f'{o} ({k})' if k else o: n for o, k, n in outcomes})}",
        f"failed with: {_told(dict(codes))}",
        f"completed with files of an earlier attempt: {adopted}",
        f"faults {chaos.faults.total()}: {_told(chaos.faults)}",
    ]
    return "\n".join(lines)


def _told(counts: dict) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=str)) or "none"


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="Of faults.")
@click.option("--jobs", default=300, show_default=True, help="Videos that are asked for.")
@click.option("--seed", default=None, type=int, help="Of the faults; drawn if not given.")
def main(minutes: float, jobs: int, seed: int | None) -> None:
    """Break a farm of four groups at random, and check what it promised."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    click.echo(f"seed {seed}, {jobs} videos, {len(GROUPS)} groups, {minutes:g} minutes of faults")
    with (
        tempfile.TemporaryDirectory(prefix="wanfarm-chaos-") as folder,
        contextlib.ExitStack() as stack,
    ):
        Path(folder).chmod(0o755)
        chaos = Chaos(raise_town(Path(folder), stack), seed)
        chaos.run(jobs, minutes * 60)
        healed_s = settle(chaos)
        click.echo(ledger(chaos))
        if not chaos.town.small_disk:
            click.echo("The full disk was left out: it needs root, to mount a small one.")
        click.echo(f"all over {healed_s:.0f} s after the last fault")
        if wrong := judge(chaos):
            click.echo("\n".join(wrong))
            sys.exit(f"{len(wrong)} promises broken, with seed {seed}.")
    click.echo(f"All {len(invariants.RULES) + 2} rules hold; no two runs of one video at once.")


if __name__ == "__main__":
    main()
