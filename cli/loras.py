"""The verbs of LoRA adapters: what the farm has, one more, one less."""

import contextlib
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from cli import render
from cli.client import Ask, Exit, FarmError, Json
from cli.session import Session, farm_verb, for_each

_COLUMNS: Final = ("name", "family", "experts", "rank", "size", "added", "title")
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def loras() -> None:
    """Look at the LoRA adapters, add and remove them."""


@loras.command("ls")
@farm_verb
def loras_ls(session: Session) -> int:
    """List the adapters that a request may name."""
    session.screen.rows(session.api.get("/v1/loras")["data"], _COLUMNS, _cells)
    return Exit.OK


@loras.command("add")
@click.argument("name")
@click.argument("file", type=_FILE, required=False)
@click.option("--high", type=_FILE, help="Instead of FILE: for the high-noise expert.")
@click.option("--low", type=_FILE, help="Instead of FILE: for the low-noise expert.")
@click.option("--family", help="The models that it fits; else read off its shapes.")
@click.option("--title", help="A name for people.")
@click.option("--trigger", help="Words that a prompt needs.")
@click.option("--source", help="Where it came from.")
@click.option("--distilled", is_flag=True, help="Made for few steps without guidance.")
@farm_verb
def loras_add(
    session: Session,
    name: str,
    file: Path | None,
    *,
    high: Path | None,
    low: Path | None,
    distilled: bool,
    **words: str | None,
) -> int:
    """Upload an adapter: one safetensors file, or one for each of two experts."""
    paths = {"file": file, "file_high": high, "file_low": low}
    found = {field: path for field, path in paths.items() if path is not None}
    if not found:
        raise click.UsageError("Name a FILE, or --high and --low.")
    form = {"name": name} | {field: text for field, text in words.items() if text is not None}
    form |= {"distilled": "true"} if distilled else {}
    if name in {one["name"] for one in session.api.get("/v1/loras")["data"]}:
        raise FarmError(  # before gigabytes are sent for the same answer
            Exit.ERROR, f"lora_exists: There is a LoRA '{name}' already. Take another name."
        )
    made = _send(session, form, found)
    line = f"{made['name']}  {made['family'] or 'of any family'}, {_experts(made)}"
    session.screen.object(made, [line], short=made["name"])
    return Exit.OK


@loras.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@farm_verb
def loras_rm(session: Session, names: tuple[str, ...]) -> int:
    """Remove adapters that no waiting or running video names."""

    def remove(name: str) -> int:
        gone = session.api.ask(Ask("DELETE", f"/v1/loras/{name}"))
        session.screen.object(gone, [f"{gone['name']}  removed"], short=gone["name"])
        return Exit.OK

    return for_each(names, remove)


def _send(session: Session, form: dict[str, str], paths: dict[str, Path]) -> Json:
    """Send files while they are read, and show how much of them has left."""
    sent, total = dict.fromkeys(paths, 0), sum(path.stat().st_size for path in paths.values())
    shown = -1

    def tell(field: str, position: int) -> None:
        nonlocal shown
        sent[field] = position
        percent = 100 * sum(sent.values()) // max(1, total)
        if percent != shown:
            shown = percent
            words = f"sending {form['name']}: {percent}% of {render.size_text(total)}"
            session.screen.progress(words, kind="sending")

    with contextlib.ExitStack() as opened:
        opened.callback(session.screen.end_progress)
        files = {
            field: opened.enter_context(_Sent(path, functools.partial(tell, field)))
            for field, path in paths.items()
        }
        ask = Ask("POST", "/v1/loras", form=form, files=files, repeatable=False)
        return session.api.ask(ask)


class _Sent(io.FileIO):
    """A file that tells how far it was read."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(path)
        self._tell = tell

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to so many bytes."""
        chunk = super().read(-1 if size is None else size) or b""
        self._tell(self.tell())
        return chunk


def _cells(lora: Json) -> tuple[object, ...]:
    ranks = sorted({one["rank"] for one in lora["experts"].values() if one["rank"]})
    return (
        lora["name"],
        lora["family"] or "",
        _experts(lora),
        ",".join(map(str, ranks)),
        render.size_text(lora["bytes"]),
        render.moment_text(lora["created_at"]),
        lora["title"] or "",
    )


def _experts(lora: Json) -> str:
    return "every expert" if "single" in lora["experts"] else " and ".join(sorted(lora["experts"]))
