"""Records to the table in README: `python -m bench.report`."""

import json
import re
import statistics
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[1]
_MEASURED: Final = _ROOT / "bench" / "measured"
_BETWEEN: Final = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- /measured -->)", re.DOTALL)
_ORDER: Final = ("engine", "cached", "decode")


def main() -> None:
    """Write the table of what is recorded into README."""
    readme = _ROOT / "README.md"
    readme.write_text(_BETWEEN.sub(lambda _: table(), readme.read_text()))


def table() -> str:
    """Make the Markdown table; each ratio is to the reference of its own row, in the same run."""
    lines = ["| what | ours | time | the reference | ratio |", "|---|---|---|---|---|"]
    machines: set[str] = set()
    for name in _ORDER:
        record = json.loads((_MEASURED / f"{name}.json").read_text())
        machines.add(_machine(record["environment"]))
        lines += [line for one in record["rows"] for line in _lines(one)]
    taken = f"Taken on: {'; '.join(sorted(machines))}. Random weights of real size, medians."
    return "\n".join([*lines, "", taken, ""])


def _lines(one: dict[str, Any]) -> list[str]:
    base = one["base"]
    beside = f"{base} {_time(one['samples_ms'][base])}"
    return [
        f"| {one['row']} | {way} | {_time(samples)} | {beside} | {one['ratio'][way]:.2f} |"
        for way, samples in one["samples_ms"].items()
        if not way.startswith(("diffusers", "cache-dit"))
    ]


def _time(samples_ms: list[float]) -> str:
    median = statistics.median(samples_ms)
    return f"{median / 1000:.2f} s" if median >= 1000 else f"{median:.0f} ms"


def _machine(environment: dict[str, Any]) -> str:
    versions: dict[str, str] = environment["versions"]
    cards = [card.partition(",")[0] for card in environment["gpus"]]
    return (
        f"{len(cards)} x {cards[0]}, torch {versions['torch']}, diffusers {versions['diffusers']}"
    )


if __name__ == "__main__":
    main()
