"""What was measured: the figures of bench/measured that a plan rests on, each with its file."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cli.client import Exit, FarmError
from cli.planning.gpus import kind_of
from shared.vocabulary.catalog import Model

FOLDER: Final = Path(__file__).parents[2] / "bench" / "measured"
_NAMES: Final = re.compile(r"(engine|pair|decode|jobs-.*|cache)\.json")
_SHAPE: Final = r"(?P<shape>\d+x\d+x\d+)"
_ROWS: Final = {
    "forward": re.compile(rf"forward (?P<model>\w+)-{_SHAPE}"),
    "step": re.compile(rf"(?P<model>\w+)-{_SHAPE} guided step"),
    "decode": re.compile(rf"decode (?P<model>\w+)-{_SHAPE}"),
    "job": re.compile(rf"job (?P<model>\S+) {_SHAPE}, (?P<steps>\d+) steps"),
}

What = Literal["forward", "step", "decode", "job"]


@dataclass(frozen=True, slots=True)
class Measured:
    """How long one thing took, done in one way."""

    file: str  # below bench/measured
    gpu: str  # a kind's name
    what: str
    model: str  # a job's is a model; else the end of several models' names
    width: int
    height: int
    frames: int
    way: str  # a precision class, a layout, or whose code it is
    seconds: float
    steps: int = 0  # of a job
    ranks: int = 1  # of a job


@dataclass(frozen=True, slots=True)
class Records:
    """All figures that there are."""

    figures: tuple[Measured, ...]
    fast_cached_ratio: float  # of the steps, with the cache policy `fast`, on the miniature
    fingerprint: str  # of the files they are from

    def of(self, what: What, gpu: str, way: str) -> list[Measured]:
        """Those of one thing done in one way on one kind of GPU."""
        wanted = (what, gpu, way)
        return [one for one in self.figures if (one.what, one.gpu, one.way) == wanted]


def belongs(one: Measured, model: Model) -> bool:
    """Tell whether a part's figure is one of a model: those of a family compute alike."""
    return model.id.endswith(f"-{one.model}")


def load_records(folder: Path = FOLDER) -> Records:
    """Read the records.

    Raises:
        FarmError: when there are none.
    """
    files = [path for path in sorted(folder.rglob("*.json")) if _NAMES.fullmatch(path.name)]
    if not files:
        raise FarmError(
            Exit.ERROR,
            "There are no records in bench/measured. A plan rests on what was measured. "
            "Run it from a checkout of wanfarm.",
        )
    digest = hashlib.sha256()
    figures: list[Measured] = []
    ratio = 0.0
    for path in files:
        text = path.read_bytes()
        digest.update(text)
        told = json.loads(text)
        if path.name == "cache.json":
            ratio = next(row["cached_ratio"] for row in told["rows"] if row["row"] == "fast")
        elif gpu := kind_of(told["environment"]["gpus"][0].partition(",")[0]):
            name = path.relative_to(folder).as_posix()
            figures += [one for row in told["rows"] for one in _figures(name, gpu.name, row)]
    return Records(tuple(figures), ratio, digest.hexdigest()[:12])


def _figures(file: str, gpu: str, row: dict[str, Any]) -> Iterator[Measured]:
    """The figures of a row; none of one that a plan does not ask for."""
    for what, pattern in _ROWS.items():
        if match := pattern.fullmatch(row["row"]):
            width, height, frames = (int(side) for side in match["shape"].split("x"))
            for way, ms in row["median_ms"].items():
                yield Measured(
                    file=file,
                    gpu=gpu,
                    what=what,
                    model=match["model"],
                    width=width,
                    height=height,
                    frames=frames,
                    way=way,
                    seconds=ms / 1000,
                    steps=int(match.groupdict().get("steps") or 0),
                    ranks=row.get("ranks", 1),
                )
