"""The verbs about models: what a farm offers, and what this machine has of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cli.client import Exit, FarmError, Json
from cli.render import Screen
from cli.session import Reach, farm_options

if TYPE_CHECKING:  # a fifth of a second, which `--help` need not spend
    from cli.checkpoints import Checked

_COLUMNS: Final = ("id", "task", "size", "frames", "fps", "steps", "groups", "notes")
_HERE_COLUMNS: Final = ("id", "state", "GB", "files", "checkpoint")
_GB: Final = 1e9


@click.group()
def models() -> None:
    """Look at the models, and check the checkpoints of this machine."""


@models.command("ls")
@click.option("--here", is_flag=True, help="What WANFARM_MODELS_DIR has of them; asks no farm.")
@farm_options
def models_ls(reach: Reach, *, here: bool) -> int:
    """List the models with their defaults and the groups that take them."""
    if here:
        return _list_here(reach.screen)
    with reach.session() as session:
        session.screen.rows(session.api.get("/v1/models")["data"], _COLUMNS, _cells)
    return Exit.OK


@models.command("fetch")
@click.argument("name", metavar="MODEL")
@click.option("--to", type=click.Path(path_type=Path), help="Default: WANFARM_MODELS_DIR.")
@click.option("--revision", help="A branch, a tag or a commit; default: the newest.")
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="The folder only, and no progress.")
def models_fetch(
    name: str,
    *,
    to: Path | None,
    revision: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Fetch a published checkpoint from Hugging Face, and check what arrived.

    It goes into a folder of its own below WANFARM_MODELS_DIR, where workers look. A fetch that
    broke off goes on where it was; what is there already is not fetched again.
    """
    from cli import fetching

    screen = Screen(as_json=as_json, quiet=quiet)
    (model,) = _asked((name,)).values()
    directory = (to or _models_dir()) / model.directory
    order = fetching.Order(model, directory, revision)
    amount = fetching.look(order)
    screen.note(
        f"{model.repo} at {amount.revision[:12]}: {amount.missing} of {amount.files} files are to "
        f"come, {amount.bytes / _GB:.1f} GB, into {directory}"
    )
    if dry_run:
        told = {"model": model.id, "directory": str(directory), "revision": amount.revision}
        told |= {"files": amount.files, "missing": amount.missing, "bytes": amount.bytes}
        screen.object(told, [], short=str(directory))
        return Exit.OK
    fetching.fetch(order, shows_progress=not (quiet or as_json))
    return Exit.ERROR if _verify(model.id, directory, screen, hashes=True).faults else Exit.OK


@models.command("verify")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Names and sizes only; reads no weights.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only, and no notes.")
def models_verify(names: tuple[str, ...], *, quick: bool, as_json: bool, quiet: bool) -> int:
    """Check that checkpoints here are whole: those named, else all that there are.

    Sizes are compared with the checkpoint's own index and headers, hashes with those that the
    Hugging Face client keeps of what it downloaded. Exits with 1 when a file is missing, too short,
    too long, or not what was published.
    """
    from cli.checkpoints import found_or_begun

    screen, folder = Screen(as_json=as_json, quiet=quiet), _models_dir()
    faulty = False
    found = {name: found_or_begun(folder, model) for name, model in _asked(names).items()}
    for name, directory in found.items():
        if directory is None:
            faulty |= bool(names)
            if names:
                _tell_absent(name, folder, screen)
            continue
        faulty |= bool(_verify(name, directory, screen, hashes=not quick).faults)
    if not any(found.values()) and not names:
        raise FarmError(Exit.ERROR, f"There is no checkpoint in {folder}. See WANFARM_MODELS_DIR.")
    return Exit.ERROR if faulty else Exit.OK


def _verify(name: str, directory: Path, screen: Screen, *, hashes: bool) -> "Checked":
    from cli.checkpoints import check

    checked = check(
        directory, hashes=hashes, tell=lambda file: screen.progress(f"{name}/{file}", kind=name)
    )
    screen.end_progress()
    how = f"{checked.hashed} of {checked.files} files by hash" if hashes else "names and sizes"
    state = f"{len(checked.faults)} faults" if checked.faults else "whole"
    lines = [f"{name}  {state}, {checked.bytes / _GB:.1f} GB, {how}", *checked.faults]
    screen.object(_object(name, directory, checked), lines, short=name)
    return checked


def _tell_absent(name: str, folder: Path, screen: Screen) -> None:
    from shared.vocabulary.catalog import MODELS

    sentence = f"There is no {folder / MODELS[name].directory}, and none in the cache."
    screen.object(_object(name, None, None), [f"{name}  missing", sentence], short=name)


def _list_here(screen: Screen) -> int:
    from cli.checkpoints import check, found_or_begun
    from shared.vocabulary.catalog import MODELS

    folder = _models_dir()
    rows: list[Json] = []
    for name, model in MODELS.items():
        directory = found_or_begun(folder, model)
        checked = check(directory, hashes=False) if directory else None
        rows.append(_object(name, directory, checked))
    screen.rows(rows, _HERE_COLUMNS, _here_cells)
    return Exit.OK


def _models_dir() -> Path:
    from shared.machinery.settings import load_settings

    return load_settings().models_dir


def _asked(names: tuple[str, ...]) -> Json:
    """The models that were named, or all, by id.

    Raises:
        FarmError: when there is no such model.
    """
    from shared.vocabulary.catalog import MODELS, find_model

    asked: Json = {}
    for name in names or MODELS:
        model = find_model(name)
        if model is None:
            known = ", ".join(MODELS)
            raise FarmError(Exit.USAGE, f"There is no model '{name}'. Known are {known}.")
        asked[model.id] = model
    return asked


def _object(name: str, directory: Path | None, checked: "Checked | None") -> Json:
    return {
        "object": "checkpoint",
        "model": name,
        "state": "missing" if checked is None else "faulty" if checked.faults else "whole",
        "directory": str(directory) if directory else None,
        "files": checked.files if checked else 0,
        "bytes": checked.bytes if checked else 0,
        "hashed": checked.hashed if checked else 0,
        "faults": list(checked.faults) if checked else [],
    }


def _cells(model: Json) -> tuple[object, ...]:
    defaults: Json = model["defaults"]
    notes = [word for word in ("default", "warm") if model[word]]
    return (
        model["id"],
        model["task_type"],
        defaults["size"],
        defaults["frames"],
        defaults["fps"],
        defaults["steps"],
        ",".join(model["groups"]),
        ",".join(notes),
    )


def _here_cells(one: Json) -> tuple[object, ...]:
    is_here = one["directory"] is not None
    return (
        one["model"],
        one["state"],
        f"{one['bytes'] / _GB:.1f}" if is_here else "",
        one["files"] if is_here else "",
        one["directory"] or "",
    )
