"""Records to the tables in the docs: `python -m bench.report`."""

import json
import re
import statistics
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[1]
_MEASURED: Final = _ROOT / "bench" / "measured"
_BETWEEN: Final = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- /measured -->)", re.DOTALL)
_COMPARED: Final = ("engine", "cached", "decode", "pair", "jobs-*")  # in this order
_ALONE: Final = ("job", "service-*")
_REFERENCES: Final = ("diffusers", "cache-dit", "1 rank")


def main() -> None:
    """Write the tables of what is recorded into their pages."""
    for page, made in pages().items():
        page.write_text(_BETWEEN.sub(lambda _, made=made: made, page.read_text()))


def pages() -> dict[Path, str]:
    """The pages that show records, and what stands there."""
    return {
        _ROOT / "README.md": tables(_MEASURED),
        _ROOT / "docs" / "explanation" / "speed.md": tables(_MEASURED / "h200"),
        _ROOT / "docs" / "explanation" / "load.md": load(),
        _ROOT / "docs" / "how-to" / "cache-steps.md": policies(),
        _ROOT / "docs" / "status.md": weights(),
    }


def tables(folder: Path) -> str:
    """Make the Markdown tables; each ratio is to the reference of its own row, in the same run."""
    lines = ["| what | ours | time | the reference | ratio | on |", "|---|---|---|---|---|---|"]
    lines += [
        f"{line} {_machine(told, one)} |"
        for _, told in _told(folder, _COMPARED)
        for one in told["rows"]
        for line in _compared(one)
    ]
    alone = [
        f"| {one['row']}{whose} | {_time(one['seconds'] * 1000)} | {_machine(told, one)} |"
        for whose, told in _told(folder, _ALONE)
        for one in told["rows"]
    ]
    if alone:
        lines += ["", "| what | time | on |", "|---|---|---|", *alone]
    versions = sorted({_versions(told) for _, told in _told(folder, _COMPARED)})
    taken = f"Medians, random weights of real size; {'; '.join(versions)}."
    return "\n".join([*lines, "", taken, ""])


def policies() -> str:
    """Make the table of cache policies; PSNR and SSIM are medians over its videos."""
    ((_, told),) = _told(_MEASURED, ("cache",))
    lines = [
        "| policy | steps cached | gain | PSNR | SSIM | shown rightly | change, 95% |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in told["rows"]:
        psnr, ssim = (statistics.median(one[name]) for name in ("psnr_db", "ssim"))
        least, most = one["change_95"]
        lines.append(
            f"| {one['row']} | {one['cached_ratio']:.0%} | {one['gain']:.2f} | {psnr:.1f} dB "
            f"| {ssim:.3f} | {one['right']:.1%} | {least:+.1%} to {most:+.1%} |"
        )
    first = told["rows"][0]
    count, right = len(first["psnr_db"]), first["right_uncached"]
    return "\n".join([*lines, "", f"{count} scenes; uncached, {right:.1%} are shown rightly.", ""])


def load() -> str:
    """Make the table of what a farm takes; `was` is the median without history, in the same run."""
    ((_, told),) = _told(_MEASURED, ("farm",))
    lines = ["| what | median | p95 | p99 | a second | was |", "|---|---|---|---|---|---|"]
    for one in told["rows"]:
        times = " | ".join(_time(one[name] * 1000) for name in ("seconds", "p95_s", "p99_s"))
        rate = f"{one['rate_hz']:.1f}" if "rate_hz" in one else ""
        was = _time(one["young_s"] * 1000) if "young_s" in one else ""
        lines.append(f"| {one['row']} | {times} | {rate} | {was} |")
    return "\n".join([*lines, ""])


def weights() -> str:
    """Make the table of what pages weigh, and how soon they can be used."""
    ((_, told),) = _told(_MEASURED, ("pages",))
    lines = ["| page | weighs | can be used after | at most |", "|---|---|---|---|"]
    lines += [
        f"| {one['row']} | {one['bytes'] / 1000:.0f} kB | {_time(one['seconds'] * 1000)} "
        f"| {_time(one['max_s'] * 1000)} |"
        for one in told["rows"]
    ]
    return "\n".join([*lines, ""])


def _told(folder: Path, names: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """The records that are in a folder, and the model when their name alone tells it."""
    paths = (path for name in names for path in sorted(folder.glob(f"{name}.json")))
    return [(_whose(path.stem), json.loads(path.read_text())) for path in paths]


def _whose(record: str) -> str:
    kind, _, model = record.partition("-")
    return f", {model}" if kind == "service" else ""


def _compared(one: dict[str, Any]) -> list[str]:
    """All but the last cell of a row's lines."""
    return [
        f"| {one['row']} | {way} | {_time(statistics.median(samples))} | {_beside(one, way)} |"
        for way, samples in one["samples_ms"].items()
        if not way.startswith(_REFERENCES)
    ]


def _beside(one: dict[str, Any], way: str) -> str:
    """The reference and the ratio to it, if this is not itself what others are beside."""
    base = one["base"]
    if way == base:
        return "- | -"
    reference = _time(statistics.median(one["samples_ms"][base]))
    return f"{base} {reference} | {one['ratio'][way]:.2f}"


def _time(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms"


def _machine(told: dict[str, Any], one: dict[str, Any]) -> str:
    """The GPUs, as people call them; a row may have had fewer than there were."""
    names = [card.partition(",")[0].removeprefix("NVIDIA ") for card in told["environment"]["gpus"]]
    used = one.get("ranks", len(names))
    return names[0] if used == 1 else f"{used} x {names[0]}"


def _versions(told: dict[str, Any]) -> str:
    versions: dict[str, str] = told["environment"]["versions"]
    return ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "cache-dit"))


if __name__ == "__main__":
    main()
