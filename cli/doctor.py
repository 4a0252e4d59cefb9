"""`wanfarm doctor`: what this machine and these settings can and cannot do, with a fix each."""

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cli.client import Exit
from cli.findings import Check
from cli.render import to_json

if TYPE_CHECKING:  # costs a fifth of a second, which `--help` need not spend
    from shared.machinery.settings import Settings

_OLDEST: Final = (3, 11)
_GB: Final = 1e9
_LITTLE_RAM_GB: Final = 4
_LITTLE_DISK_GB: Final = 20
_NO_DISK_GB: Final = 1
_LITTLE_SHM_GB: Final = 1
_SHM: Final = "/dev/shm"  # noqa: S108 - looked at, not written to
_COLOURS: Final = {"ok": "green", "warn": "yellow", "FAIL": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, without secrets.")
def doctor(*, as_json: bool) -> int:
    """Check this machine and the farm's settings; exit 9 when something must be mended."""
    from shared.machinery.settings import load_settings

    settings = load_settings()
    checks: list[Check] = []
    for look in checks_of():
        for check in look(settings):
            checks.append(check)
            if not as_json:
                _print(check, is_first=len(checks) == 1 or checks[-2].group != check.group)
    blocked = any(check.level == "FAIL" for check in checks)
    if as_json:
        shown = [asdict(check) for check in checks]
        click.echo(to_json({"object": "doctor", "ok": not blocked, "checks": shown}))
    return Exit.BLOCKED if blocked else Exit.OK


def checks_of() -> "list[Callable[[Settings], Iterator[Check]]]":
    """List what is looked at, in this order."""
    from cli import doctor_engine, doctor_services

    return [
        host,
        doctor_engine.ffmpeg,
        doctor_engine.torch,
        doctor_engine.weights,
        doctor_services.postgres,
        doctor_services.redis,
        doctor_services.store,
        doctor_services.api,
    ]


def host(settings: "Settings") -> Iterator[Check]:
    """Look at Python, cores, memory and disk."""
    yield _python()
    yield _cores()
    yield _memory()
    yield _disk(settings.data_dir)
    yield _shared_memory(settings)


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info < _OLDEST:
        fix = "Install Python 3.11 or newer, then `make setup`."
        return Check("host", "python", "FAIL", f"{version} is too old", fix)
    return Check("host", "python", "ok", version)


def _cores() -> Check:
    import os

    cores = len(os.sched_getaffinity(0))
    if cores == 1:
        return Check("host", "cores", "warn", "1", "API, worker and Postgres share it; give two.")
    return Check("host", "cores", "ok", str(cores))


def _memory() -> Check:
    import os

    gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GB
    if gb < _LITTLE_RAM_GB:
        fix = "The miniature may not fit beside Postgres. Stop other programs."
        return Check("host", "memory", "warn", f"{gb:.1f} GB", fix)
    return Check("host", "memory", "ok", f"{gb:.1f} GB")


def _disk(folder: Path) -> Check:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    gb = shutil.disk_usage(there).free / _GB
    text = f"{gb:.1f} GB free for {folder}"
    if gb < _NO_DISK_GB:
        return Check("host", "disk", "FAIL", text, "Free space, or move WANFARM_DATA_DIR.")
    if gb < _LITTLE_DISK_GB:
        fix = "Enough for the miniature, not for weights. Keep those on another disk."
        return Check("host", "disk", "warn", text, fix)
    return Check("host", "disk", "ok", text)


def _shared_memory(settings: "Settings") -> Check:
    folder = Path(_SHM)
    if not folder.exists():
        return Check("host", _SHM, "warn", "not there", "NCCL needs it; mount a tmpfs.")
    gb = shutil.disk_usage(folder).total / _GB
    if gb < _LITTLE_SHM_GB and settings.ranks > 1:
        fix = "NCCL may crash with so little. In a container set shm_size to 16gb."
        return Check("host", _SHM, "warn", f"{gb:.2f} GB", fix)
    return Check("host", _SHM, "ok", f"{gb:.2f} GB")


def _print(check: Check, *, is_first: bool) -> None:
    if is_first:
        click.echo(click.style(check.group, bold=True))
    level = click.style(f"{check.level:<4}", fg=_COLOURS[check.level])
    click.echo(f"  {level}  {check.name:<12} {check.text}")
    if check.fix:
        click.echo(f"        {'':<12} -> {check.fix}")
