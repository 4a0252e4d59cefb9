"""Writes the reference pages that are read off the code; its own are settings, verbs, metrics.

`python -m cli.reference` brings docs/reference up to date; a test holds the files to it.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click

from cli.client import Exit
from cli.main import VERBS, wanfarm
from cli.reference_api import api_page
from cli.reference_farm import compose_page, states_page
from cli.schema_words import rule_of
from cli.tables import table
from shared.machinery.cache_settings import CacheSettings, alias_of
from shared.machinery.effective import text_of
from shared.machinery.settings import Settings, variable_of
from shared.vocabulary.metrics import METRICS

FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"
_GENERATED: Final = "<!-- Written by `python -m cli.reference`. Edit the code, not this file. -->"
_EXITS: Final = MappingProxyType(
    {
        Exit.OK: "All went well.",
        Exit.ERROR: "Something went wrong; stderr says what.",
        Exit.USAGE: "The command or a setting is wrong.",
        Exit.JOB_FAILED: "The video failed.",
        Exit.JOB_CANCELLED: "The video was cancelled.",
        Exit.TIMED_OUT: "`--timeout` is over; the video goes on.",
        Exit.UNREACHABLE: "No farm answers.",
        Exit.NOT_ALLOWED: "The key is missing, unknown, or may not do this.",
        Exit.REJECTED: "The farm refused the request: a fault in it, or a full queue.",
        Exit.BLOCKED: "The doctor found something that must be mended, or a plan no way.",
        Exit.INTERRUPTED: "Ctrl-C; a video goes on.",
    }
)


def settings_page() -> str:
    """Write the page of all settings."""
    cache = [name for name in Settings.model_fields if name in CacheSettings.model_fields]
    own = [
        (f"`{variable_of(name)}`", _default(field.get_default()), rule_of(_schema(name)),
         field.description or "")
        for name, field in Settings.model_fields.items()
        if name not in cache
    ]  # fmt: skip
    knobs = [
        (f"`{variable_of(name)}`", f"`{alias}`" if (alias := alias_of(name)) else "",
         rule_of(_schema(name)), Settings.model_fields[name].description or "")
        for name in cache
    ]  # fmt: skip
    lines = [
        "# Settings",
        "",
        "Every process of a farm reads these variables once, at its start, and refuses to start "
        "over a value that breaks its rule or a `WANFARM_` name that it does not know.",
        "Each may come from a file instead: `<VARIABLE>_FILE` names it, and its text is the value. "
        "Use that for secrets.",
        *table("variable, default, rule, meaning", own),
        "",
        "## The block cache",
        "",
        "What a group does where a request leaves it open: see "
        "[Skip work between steps](../how-to/cache-steps.md). None is set by default. The names "
        "that SGLang uses do as well; both at once must agree. A switch is `true`, `1`, `false` "
        "or `0`.",
        *table("variable, also taken, rule, meaning", knobs),
    ]
    return "\n".join(lines)


@functools.cache
def _schemas() -> dict[str, dict[str, Any]]:
    return Settings.model_json_schema()["properties"]


def _schema(name: str) -> dict[str, Any]:
    return _schemas().get(name) or _schemas()[variable_of(name)]


def cli_page() -> str:
    """Write the page of all verbs."""
    lines = [
        "# Command line",
        "",
        "Data goes to stdout, notes and progress to stderr. Without a terminal the output is plain "
        "text: lists are tab-separated, progress is one line per change.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {code.value} | {_EXITS[code]} |" for code in Exit),
        "",
        "With several ids the highest code counts.",
        "",
        "A shell completes verbs and options after",
        '`eval "$(_WANFARM_COMPLETE=bash_source wanfarm)"`; `zsh_source` and `fish_source` are',
        "for the other two.",
    ]
    for verb in VERBS:
        command = wanfarm.get_command(click.Context(wanfarm), verb)
        assert command is not None
        for words, leaf in _leaves(command, f"wanfarm {verb}"):
            lines += ["", *_verb(words, leaf)]
    return "\n".join(lines)


def metrics_page() -> str:
    """Write the page of all metrics."""
    lines = [
        "# Metrics",
        "",
        "What a farm tells Prometheus: the API at `/metrics` of its own port, a worker and upkeep "
        "at that of `WANFARM_METRICS_PORT`. Counters count what a process did since it started, "
        "the API's processes together: sum them over all that are scraped. Gauges of videos and "
        "groups are read from Postgres and the same from every API. "
        "[Watch a farm](../how-to/monitor.md) says how to collect them.",
        "",
        "| metric | type | labels | told by | meaning |",
        "|---|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(f"`{name}`" for name in metric.label_names)
        by = ", ".join(metric.by)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {by} | {metric.about} |")
    lines += [
        "",
        "## Labels",
        "",
        "No label holds what a request brings: no ids, prompts, paths or names of keys. What is "
        "in no closed set is told as `other`.",
        "",
        "| label | of | values |",
        "|---|---|---|",
    ]
    for label in dict.fromkeys(label for metric in METRICS for label in metric.labels):
        shorts = (f"`{one.short}`" for one in METRICS if label in one.labels)
        values = ", ".join(f"`{value}`" for value in sorted(label.values or ()))
        told = ": ".join(part for part in (label.about, values) if part)
        lines.append(f"| `{label.name}` | {', '.join(shorts)} | {told} |")
    return "\n".join(lines)


_PAGES: Final[MappingProxyType[str, Callable[[], str]]] = MappingProxyType(
    {
        "api.md": api_page,
        "cli.md": cli_page,
        "compose.md": compose_page,
        "metrics.md": metrics_page,
        "settings.md": settings_page,
        "states.md": states_page,
    }
)
NAMES: Final = tuple(_PAGES)


def page(name: str) -> str:
    """Write one page, as its file has it."""
    return f"{_GENERATED}\n{_PAGES[name]()}\n"


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (FOLDER / name).write_text(page(name))
        click.echo(f"docs/reference/{name}")


def _default(value: object) -> str:
    if value is None:
        return "–"  # noqa: RUF001 - a dash
    text = text_of(value)
    return f"`{text}`" if text else "empty"


def _leaves(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, f"{words} {name}")


def _verb(words: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=words)
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    yield f"## {words}"
    yield ""
    yield f"`{usage}`"
    yield ""
    yield " ".join((command.help or "").split())
    options = [param for param in command.params if isinstance(param, click.Option)]
    yield from table("option, meaning", [(_names(one, context), _help(one)) for one in options])


def _names(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    return names + value


def _help(option: click.Option) -> str:
    words = option.help or ""
    shown = option.show_default and option.default is not None
    return f"{words} Default: `{option.default}`.".strip() if shown else words


if __name__ == "__main__":
    main()
