"""The farm's processes: one verb each, the same in a container and under `wanfarm up`."""

import http.client
import importlib.metadata
import os
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

import click

_GUNICORN_CONF: Final = Path(__file__).parent.parent / "deploy" / "gunicorn.conf.py"


def verb(*words: str) -> tuple[str, ...]:
    """Build the argv of a `wanfarm` verb for this very installation."""
    return program("cli.main", *words)


def program(module: str, *words: str) -> tuple[str, ...]:
    """Build the argv of a program of this very installation."""
    return (sys.executable, "-m", module, *words)


@click.command()
def api() -> None:
    """Run the API and dashboard on WANFARM_HOST:WANFARM_PORT."""
    _refuse_bad_settings()
    _become("-m", "gunicorn", "--config", str(_GUNICORN_CONF), "api.app:create_app()")


@click.group()
def worker() -> None:
    """Run one GPU group."""


@worker.command("run")
def worker_run() -> None:
    """Run the parent of the group WANFARM_GROUP and its ranks."""
    _refuse_bad_settings()
    _become("-c", "from worker.app import main; main()")


@click.group()
def upkeep() -> None:
    """Run the slow duties."""


@upkeep.command("run")
def upkeep_run() -> None:
    """Expire old files and rows; several may run."""
    _refuse_bad_settings()
    _become("-c", "from worker.upkeep import main; main()")


@click.group()
def db() -> None:
    """Look after the schema."""


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the schema to this version; nothing to do is fine."""
    from shared.machinery.database import upgrade
    from shared.machinery.settings import load_settings

    upgrade(load_settings().database_url)
    click.echo("The schema is up to date.", err=True)


@db.command("check")
def db_check() -> None:
    """Exit 1 if the schema is not the one of this version."""
    from shared.machinery.database import connect, is_current
    from shared.machinery.settings import load_settings

    if not is_current(connect(load_settings())):
        raise click.ClickException("The schema is of another version. Run `wanfarm db upgrade`.")
    click.echo("The schema is up to date.", err=True)


@db.command("verify")
def db_verify() -> None:
    """Check every video's history and files against the rules; changes nothing.

    Exits with 1 when a rule does not hold, and names it and the videos that break it.
    """
    from shared.jobs import invariants
    from shared.machinery.farm import open_farm
    from shared.machinery.settings import load_settings

    found = list(invariants.broken(open_farm(load_settings())))
    for one in found:
        click.echo(f"{one.of}: {one.what}. Rule: {one.rule}.")
    if found:
        raise click.ClickException(f"{len(found)} times a rule does not hold.")
    click.echo(f"All {len(invariants.RULES) + 2} rules hold.", err=True)


@db.command("admin-key")
def db_admin_key() -> None:
    """Make the first admin key if there is none, and print the name of its file."""
    from shared.jobs.keys import ensure_admin_key
    from shared.machinery.farm import open_farm
    from shared.machinery.settings import load_settings

    settings = load_settings()
    path = settings.data_dir / "admin-key"
    ensure_admin_key(open_farm(settings), path)
    click.echo(path)


@click.group()
def config() -> None:
    """Look at the settings that hold here."""


@config.command("show")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
def config_show(*, as_json: bool, changed: bool) -> None:
    """Print each setting with its value and where that comes from; secrets stay hidden."""
    from dataclasses import asdict
    from operator import itemgetter

    from cli.render import Screen
    from shared.machinery.effective import effective
    from shared.machinery.settings import load_settings

    found = [asdict(one) for one in effective(load_settings())]
    shown = [one for one in found if not (changed and one["source"] == "default")]
    columns = ("variable", "value", "source")
    Screen(as_json=as_json).rows(shown, columns, itemgetter(*columns))


@click.group()
def ping() -> None:
    """Tell by the exit code whether a process of the farm is well."""


@ping.command("worker")
@click.option("--group", envvar="WANFARM_GROUP", default="g0", show_default=True)
@click.option("--data-dir", envvar="WANFARM_DATA_DIR", default=".wanfarm", show_default=True)
@click.option("--max-age", default=30.0, show_default=True, help="Seconds since the last beat.")
def ping_worker(group: str, data_dir: str, max_age: float) -> None:
    """Look at the group's heartbeat file; asks neither Postgres nor Redis."""
    path = Path(data_dir) / "groups" / f"{group}.heartbeat"
    try:
        age = time.time() - path.stat().st_mtime
    except OSError as err:
        raise click.ClickException(f"Group {group} has no heartbeat yet.") from err
    if age > max_age:
        raise click.ClickException(f"The last heartbeat of group {group} is {age:.0f} s old.")
    click.echo(f"Group {group} is well.")


@ping.command("api")
@click.option("--port", envvar="WANFARM_PORT", default=8080, show_default=True)
def ping_api(port: int) -> None:
    """Ask the API on this host whether it is ready."""
    status = http_status("127.0.0.1", port, "/readyz")
    if status != http.HTTPStatus.OK:
        raise click.ClickException(f"The API is not ready (HTTP {status or '-, no answer'}).")
    click.echo("The API is ready.")


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(importlib.metadata.version("wanfarm"))


def http_status(host: str, port: int, path: str) -> int | None:
    """Ask one path with a short patience; None when nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _refuse_bad_settings() -> None:
    """Fail with the variable's name before a program starts that would fail with a traceback."""
    from shared.machinery.settings import load_settings

    load_settings()


def _become(*arguments: str) -> NoReturn:
    """Replace this process, so that signals reach the program itself."""
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is meant
