"""The doctor's look at what a farm leans on: Postgres, Redis, the store, its own API."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from cli.client import Client, FarmError, find_target
from cli.findings import Check
from cli.local import Local
from shared.machinery.database import connect, is_current
from shared.machinery.farm import open_storage
from shared.machinery.feed import Feed
from shared.machinery.settings import ConfigurationError, Settings, load_settings
from shared.machinery.storage import LocalStorage, Storage, fault_of

_BROUGHT: Final = "`wanfarm up` brings its own."


def postgres(settings: Settings) -> Iterator[Check]:
    """Connect, and compare the schema with the one of this version."""
    known = _with_services(settings, "database_url")
    if known is None:
        yield Check("services", "postgres", "warn", "DATABASE_URL is not set", _BROUGHT)
        return
    url = make_url(known.database_url)
    where = f"{url.host or 'socket'}:{url.port or 5432}/{url.database}"
    engine = connect(known)
    try:
        with engine.connect() as db:
            version: str = db.execute(text("SHOW server_version")).scalar_one()
        current = is_current(engine)
    except SQLAlchemyError as err:
        fix = "Start it, or correct DATABASE_URL."
        why = str(getattr(err, "orig", None) or err).strip().splitlines()[0]
        yield Check("services", "postgres", "FAIL", f"{where} does not answer: {why[:120]}", fix)
        return
    finally:
        engine.dispose()
    yield Check("services", "postgres", "ok", f"{version} at {where}")
    if current:
        yield Check("services", "schema", "ok", "of this version")
    else:
        fix = "Run `wanfarm db upgrade`."
        yield Check("services", "schema", "FAIL", "of another version, or none", fix)


def redis(settings: Settings) -> Iterator[Check]:
    """Ring once."""
    known = _with_services(settings, "redis_url")
    if known is None:
        yield Check("services", "redis", "warn", "REDIS_URL is not set", _BROUGHT)
        return
    feed = Feed(known)
    try:
        if feed.answers():
            yield Check("services", "redis", "ok", "answers")
        else:
            fix = "Start it, or correct REDIS_URL. Nothing is lost: jobs only start later."
            yield Check("services", "redis", "FAIL", "does not answer", fix)
    finally:
        feed.close()


def store(settings: Settings) -> Iterator[Check]:
    """Write a small file where results go, and where latents are saved if that is elsewhere."""
    local = LocalStorage(settings.data_dir)
    if settings.s3_bucket is None:
        yield _writes("store", str(settings.data_dir), local)
        return
    yield _writes("saved latents", str(settings.data_dir), local)
    try:
        bucket = open_storage(settings)
    except ConfigurationError as err:
        yield Check("services", "store", "FAIL", str(err), "Then run this again.")
        return
    yield _writes("store", f"the bucket {settings.s3_bucket}", bucket)


def _writes(name: str, where: str, storage: Storage) -> Check:
    if (fault := fault_of(storage)) is None:
        return Check("services", name, "ok", f"{where} takes files")
    return Check("services", name, "FAIL", f"{where} refuses files", fault.message)


def api(_settings: Settings) -> Iterator[Check]:
    """Ask the farm that the command line would talk to."""
    try:
        target = find_target(None, None)
    except FarmError:
        fix = "Start one with `wanfarm up`, or set WANFARM_URL."
        yield Check("services", "api", "warn", "no farm is known here", fix)
        return
    try:
        with Client(target, _silent, patience_s=0) as client:
            ready = client.get("/readyz")
    except FarmError as err:
        fix = "Look at its log, and at the lines above."
        yield Check("services", "api", "FAIL", err.message[:200], fix)
        return
    shown = ", ".join(f"{name} {said}" for name, said in ready["checks"].items())
    level = "ok" if ready["status"] == "ok" else "warn"
    yield Check("services", "api", level, f"{target.url}: {shown}")


def _silent(_text: str) -> None:
    """A check tells its result, not its tries."""


def _with_services(settings: Settings, field: str) -> Settings | None:
    """Add the URLs of a farm's embedded services; None when nobody names the service."""
    if field in settings.model_fields_set:
        return settings
    local = Local(settings.data_dir.absolute())
    urls = local.service_urls() if local.is_running() else {}
    return load_settings(**urls) if field.upper() in urls else None
