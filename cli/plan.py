"""The verb that chooses groups and layouts for a machine, and writes their compose file."""

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cli.client import Exit, Json
from cli.render import Screen

if TYPE_CHECKING:  # a fifth of a second, which `--help` need not spend
    from cli.planning.planner import Plan

_COLUMNS: Final = (
    "#", "groups", "layout", "GB/GPU", "s/video", "at most", "videos/h", "basis", "best for"
)  # fmt: skip
_WHOLE_S: Final = 10  # from here on tenths say nothing


@click.command()
@click.option("--gpus", metavar="8xH100-80G", help="The machine's GPUs; else read from its driver.")
@click.option("--model", default="wan2.2-t2v-a14b", show_default=True, help="The videos' model.")
@click.option("--size", help="Their size, WxH in pixels; else the model's own.")
@click.option("--frames", type=int, help="Their frames, 4k+1; else the model's own.")
@click.option("--steps", type=int, help="Their steps; else those of the quality.")
@click.option(
    "--objective",
    type=click.Choice(["latency", "throughput", "balanced"]),
    default="balanced",
    show_default=True,
    help="The soonest video, most an hour, or the soonest that costs a tenth of these at most.",
)
@click.option(
    "--quality",
    type=click.Choice(["draft", "standard", "high"]),
    default="standard",
    show_default=True,
    help="What requests will ask for; draft halves the steps and caches some.",
)
@click.option(
    "--precision",
    type=click.Choice(["reference", "bf16", "fp8", "fp8_attn"]),
    default="bf16",
    show_default=True,
    help="Class of the arithmetic, a setting of the groups.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The compose file to write; without it none is.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def plan(gpus: str | None, *, output: Path | None, as_json: bool, **asked: Any) -> int:  # noqa: ANN401
    """Choose groups and layouts for a machine by what was measured.

    Tries every division of the GPUs into equal groups in every layout, and tells for each what it
    takes or why it cannot work. Exits with 9 when none works.
    """
    from cli.planning.gpus import machine_of
    from cli.planning.nvml import machine_here
    from cli.planning.planner import Wish, make
    from cli.planning.records import load_records

    machine = machine_of(gpus) if gpus else machine_here()
    made = make(Wish(gpus=gpus, **asked), machine, load_records())
    written = output if made.working else None
    if written:
        written.write_text(made.compose(written.name))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.line(made.to_json() | {"compose": str(written) if written else None})
    else:
        _show(made, screen)
    for note in made.notes:
        screen.note(note)
    if written:
        from cli.planning.compose import run_command

        screen.note(f"{written} is written. Start it: {run_command(written.name)}")
    return Exit.OK if made.working else Exit.BLOCKED


def _show(made: "Plan", screen: Screen) -> None:
    spec = made.video.spec
    screen.note(
        f"{made.machine}: {spec.model} at {spec.width}x{spec.height}, {spec.frames} frames, "
        f"{spec.steps} steps, in {made.wish.precision}"
    )
    if made.working:
        rows, sources = _rows(made)
        screen.rows(rows, _COLUMNS, _cells)
        for source, letter in sources.items():
            click.echo(f"{letter}: {source}")
    for one in made.rejected:
        click.echo(f"not {one.way}: {one.reason}")


def _rows(made: "Plan") -> tuple[list[Json], dict[str, str]]:
    """The cells of the table, and a letter for each source that they name."""
    best = {name: made.working.index(one) for name, one in made.best_for.items()}
    sources: dict[str, str] = {}
    rows: list[Json] = []
    for at, one in enumerate(made.working):
        estimate = one.estimate
        letter = sources.setdefault(estimate.source, string.ascii_lowercase[len(sources)])
        cells = (
            at + 1,
            one.way.shape,
            one.way.layout,
            f"{one.peak_bytes / 1e9:.0f}",
            _seconds(estimate.seconds),
            _seconds(estimate.at_worst_s),
            f"{one.videos_per_hour:.1f}",
            f"{estimate.basis} {letter}",
            ", ".join(name for name, place in best.items() if place == at),
        )
        rows.append(dict(zip(_COLUMNS, cells, strict=True)))
    return rows, sources


def _cells(row: Json) -> list[object]:
    return [row[column] for column in _COLUMNS]


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= _WHOLE_S else f"{seconds:.1f}"
