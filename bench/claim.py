"""The cost of a claim when the queue is long and the history longer: `python -m bench.claim`."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy import create_engine, text

from cli import embedded
from cli.supervisor import spawn
from shared.jobs import lifecycle
from shared.jobs.scheduling import Offer, best
from shared.machinery.database import upgrade
from shared.machinery.farm import Farm, open_farm
from shared.machinery.settings import load_settings
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.ids import ALPHABET
from shared.vocabulary.spec import GenerationSpec

OFFER = Offer("g0", "bench", 1, tuple(MODELS), "wan2.2-t2v-a14b")

_FILL = """
INSERT INTO videos (id, tenant, key_id, key_name, state, attempt, seq, attempts_left, model, spec,
  asked, tokens, priority, metadata, warnings, created_at, run_after, started_at, completed_at,
  expires_in_s, progress, result)
SELECT 'video_' || moment || to_char(n, 'FM0000000000000000'),
  'tenant-' || n % :tenants, 'benchkey', 'bench', :state, 0, 1, 3,
  (ARRAY['wan2.2-t2v-a14b', 'wan2.2-i2v-a14b', 'wan2.2-ti2v-5b'])[1 + n % 3], CAST(:spec AS jsonb),
  '{prompt}', 75600, n % 3 - 1, '{}', '[]', at, at, NULL, CASE WHEN :final THEN at END,
  604800, 0, CASE WHEN :final THEN CAST(:result AS jsonb) END
FROM generate_series(1, :rows) AS n,
  -- the queue came in the last hours, on top of the finished: a million of those in a month
  LATERAL (SELECT now() - make_interval(
    secs => CASE WHEN :final THEN 36000 + 2.6 * (:rows - n) ELSE 0.7 * (:rows - n) END)) AS age(at),
  LATERAL (SELECT string_agg(substr(:letters, 1 + (ms >> 5 * i & 31)::int, 1), '' ORDER BY i DESC)
    FROM (SELECT (extract(epoch FROM at) * 1000)::bigint) AS whole(ms), generate_series(0, 9) AS i
  ) AS spelled(moment)  -- as ids begin, see shared.vocabulary.ids
"""

_FILE = {"key": f"videos/{'v' * 32}/1/video.mp4", "bytes": 2_000_000, "sha256": "0" * 64}
RESULT = {name: _FILE[name] for name in ("bytes", "sha256")} | {
    "attempt": 1,
    "width": 1280,
    "height": 720,
    "frames": 81,
    "fps": 16,
    "codec": "h264",
    "files": {"video": _FILE, "thumbnail": _FILE, "spritesheet": _FILE},
}


@click.command()
@click.option("--finished", default=1_000_000, show_default=True, help="Rows of history.")
@click.option("--waiting", default=50_000, show_default=True, help="Rows in the queue.")
@click.option("--tenants", default=20, show_default=True, help="Parties that share the farm.")
@click.option("--claims", default=300, show_default=True, help="Claims to time.")
def main(finished: int, waiting: int, tenants: int, claims: int) -> None:
    """Fill a database of its own, show the plan of the claim, and time claims."""
    with services() as (url, redis_url):
        upgrade(url)
        farm = open_farm(load_settings(DATABASE_URL=url, REDIS_URL=redis_url))
        fill(url, finished, waiting, tenants)
        _show_plan(farm)
        _time(farm, claims)
        farm.close()


@contextmanager
def services() -> Generator[tuple[str, str]]:
    """Run a Postgres and a Redis of our own, so that nothing else is measured or touched."""
    with tempfile.TemporaryDirectory(prefix="wanfarm-bench-") as folder, ExitStack() as running:
        state = Path(folder)
        running.callback(embedded.discard, state)
        home = embedded.open_home(state, load_settings().embedded_user)
        postgres = embedded.prepare_postgres(home, durable=True)
        valkey = embedded.prepare_valkey(home)
        running.enter_context(_run(postgres, embedded.postgres_ready, state))
        running.enter_context(_run(valkey, embedded.valkey_ready, state))
        yield postgres.url.replace("postgresql://", "postgresql+psycopg://", 1), valkey.url


@contextmanager
def _run(
    service: embedded.Service, ready: Callable[[embedded.Service, int], bool], state: Path
) -> Generator[None]:
    with (state / f"{service.program.name}.log").open("wb") as log:
        process = spawn(service.program, log)
    try:
        deadline = time.monotonic() + 30
        while not ready(service, process.pid):
            assert time.monotonic() < deadline, f"{service.program.name} did not start"
        yield
    finally:
        process.terminate()
        process.wait(30)


def fill(url: str, finished: int, waiting: int, tenants: int) -> None:
    """Fill an empty database with videos of several models and tenants, and settle it."""
    spec = GenerationSpec(model="wan2.2-t2v-a14b", prompt="x", width=1280, height=720, seed=1)
    engine = create_engine(url)
    with engine.begin() as db:
        names = "INSERT INTO tenants (name) SELECT 'tenant-' || n FROM generate_series(0, :n) AS n"
        db.execute(text(names), {"n": tenants - 1})
        for rows, state in ((finished, "completed"), (waiting, "queued")):
            values: dict[str, Any] = {"rows": rows, "state": state, "letters": ALPHABET}
            values |= {"tenants": tenants, "spec": spec.model_dump_json()}
            values |= {"result": json.dumps(RESULT)}
            db.execute(text(_FILL), values | {"final": state == "completed"})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text("VACUUM ANALYZE"))
    engine.dispose()
    print(f"{finished} finished and {waiting} waiting rows of {tenants} tenants")


def _show_plan(farm: Farm) -> None:
    with farm.db.connect() as db:
        offer = best(OFFER)
        explain = text(f"EXPLAIN (COSTS OFF) {offer.text}")
        plan = [row[0] for row in db.execute(explain, offer.compile().params)]
    print("\n".join(plan))
    print(f"uses the claim index: {any('videos_claim' in line for line in plan)}")


def _time(farm: Farm, claims: int) -> None:
    took_ms: list[float] = []
    for _ in range(claims):
        began = time.perf_counter()
        claimed = lifecycle.claim(farm, OFFER)
        took_ms.append((time.perf_counter() - began) * 1000)
        assert claimed is not None
    quantiles = statistics.quantiles(took_ms, n=100)
    print(
        f"{claims} claims: p50 {quantiles[49]:.2f} ms, p95 {quantiles[94]:.2f} ms, "
        f"max {max(took_ms):.2f} ms"
    )


if __name__ == "__main__":
    main()
