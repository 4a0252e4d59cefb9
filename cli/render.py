"""How verbs speak: data on stdout, progress on stderr, plain text where nobody looks on."""

import datetime
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

from shared.vocabulary.states import GroupState, VideoState

Json = dict[str, Any]
UNKNOWN: Final = "–"  # noqa: RUF001 - a dash: never 0 for what is not known
_LEAST_LAST: Final = 16  # characters that the last column of a table keeps
_SIZES: Final = frozenset({"width", "height", "frames", "steps"})  # told in a line of their own
_CLEAR: Final = "\r\x1b[K"
_COLOURS: Final = {
    "queued": "blue",
    "in_progress": "green",
    "completed": "cyan",
    "failed": "red",
    "cancelled": "magenta",
}


class Screen:
    """Where one verb's words go.

    Args:
        as_json: data is one JSON object per line.
        quiet: data is ids only, and nothing goes to stderr.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        """Look once whether somebody looks on."""
        self.as_json = as_json
        self.quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._colour = False if _no_colour() else None  # None: click asks the terminal
        self._shown = ""

    def line(self, value: Json) -> None:
        """Print one line of JSON."""
        self._echo(to_json(value))

    def object(self, value: Json, lines: Iterable[str], *, short: str) -> None:
        """Print one object: as JSON, as its id, or as lines."""
        if self.as_json:
            self.line(value)
        elif self.quiet:
            self._echo(short)
        else:
            for line in lines:
                self._echo(line)

    def rows(self, values: Sequence[Json], head: Sequence[str], cells: Any) -> None:  # noqa: ANN401
        """Print many objects: a JSON line each, an id each, or a table.

        Args:
            values: the objects.
            head: names of the columns, or none below an earlier table; the first column is what
                `--quiet` prints.
            cells: gives an object's cells.
        """
        if self.as_json:
            for value in values:
                self.line(value)
            return
        table: list[Sequence[str]] = [[_flat(cell) for cell in cells(value)] for value in values]
        if self.quiet:
            for row in table:
                self._echo(row[0])
            return
        lines = [head, *table] if head else table
        tabbed = ("\t".join(row) for row in lines)
        for line in _fitted(lines, _width()) if sys.stdout.isatty() else tabbed:
            self._echo(line)

    def note(self, text: str) -> None:
        """Say something beside the data."""
        if not self.quiet:
            self._clear()
            click.echo(text, err=True, color=self._colour)

    def progress(self, text: str, *, kind: str) -> None:
        """Show how far something is.

        Args:
            text: one line; redrawn in a terminal.
            kind: without a terminal a line is printed only when this changes.
        """
        if self._live:
            width = _width()
            click.echo(_CLEAR + text[: width - 1], nl=False, err=True, color=True)
            self._shown = text
        elif not self.quiet and kind != self._shown:
            click.echo(text, err=True)
            self._shown = kind

    def end_progress(self) -> None:
        """Take the redrawn line away."""
        self._clear()

    def _clear(self) -> None:
        if self._live and self._shown:
            click.echo(_CLEAR, nl=False, err=True, color=True)
            self._shown = ""

    def _echo(self, line: str) -> None:
        click.echo(line, color=self._colour)


def to_json(value: Json) -> str:
    """Write one line of JSON, readable to people who do not write English."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def state_text(status: str) -> str:
    """Show a state with its glyph, so that colour never stands alone."""
    state = VideoState(status)
    return click.style(f"{state.glyph} {state.word}", fg=_COLOURS[status])


def progress_text(video: Json) -> str:
    """Show in one line where a video is."""
    state = VideoState(video["status"])
    if state is VideoState.QUEUED:
        queue: Json | None = video.get("queue")
        return f"{state.glyph} queued" + (f", place {queue['position']}" if queue else "")
    detail: Json = video.get("progress_detail") or {}
    words = [state.glyph, detail.get("phase") or state.word]
    if detail.get("phase") == "denoise" and detail.get("steps"):
        step, steps = detail.get("step") or 0, detail["steps"]
        words += [f"{step}/{steps}", _bar(step / steps), _expert(detail.get("expert"))]
        if detail.get("step_s"):
            words.append(f"~{seconds_text((steps - step) * detail['step_s'])} left")
    if video.get("cancel_requested_at"):
        words.append("cancelling")
    return " ".join(word for word in words if word)


def move_line(move: Json) -> str:
    """Show a video's move of the farm's feed."""
    at = datetime.datetime.fromtimestamp(move["at"], datetime.UTC).astimezone()
    words = [f"{at:%H:%M:%S}", move["video_id"], state_text(move["to"])]
    if move["attempt"]:
        words.append(f"attempt {move['attempt']}")
    if move.get("error"):
        words.append(move["error"]["message"])
    return "  ".join(words)


def phase_of(video: Json) -> str:
    """Name what a video is busy with, coarsely: what a log wants a line for."""
    detail: Json = video.get("progress_detail") or {}
    return f"{video['status']} {detail.get('phase') or ''}"


def ended_text(video: Json) -> str:
    """Say in one line how a video ended."""
    words = [video["id"], state_text(video["status"])]
    error: Json | None = video.get("error")
    result: Json | None = video.get("result")
    timings: Json = video.get("timings") or {}
    if error:
        words.append(f"{error['code']}: {error['message']}")
    if result:
        words.append(
            f"{result['width']}x{result['height']}, {result['frames']} frames, {result['codec']}"
        )
    if "total" in timings:
        words.append(f"{timings['total']:.1f}s")
    return "  ".join(words)


def video_lines(video: Json) -> list[str]:
    """Show a video as `name  value` lines."""
    spec: Json = video["spec"]
    guidance = [spec[n] for n in ("guidance_high", "guidance_low") if spec.get(n) is not None]
    facts: dict[str, str | None] = {
        "id": video["id"],
        "state": state_text(video["status"]),
        "progress": f"{video['progress']}%",
        "prompt": _flat(video["prompt"]),
        "model": video["model"],
        "size": f"{video['size']}, {video['num_frames']} frames at {video['fps']} fps",
        "steps": str(spec["steps"]),
        "guidance": " / ".join(f"{value:g}" for value in guidance),
        "shift": f"{spec['shift']:g}",
        "seed": str(spec["seed"]),
        "priority": str(video["priority"]),
        "created": moment_text(video["created_at"]),
        "started": moment_text(video["started_at"]),
        "ended": moment_text(video["completed_at"]),
        "remix of": video["remixed_from_video_id"],
        "promoted of": video["promoted_from_video_id"],
        "file": _file_text(video.get("result")),
        "kept until": moment_text(video["expires_at"]),
        "error": _error_text(video.get("error")),
    }
    if not VideoState(video["status"]).is_final:
        facts["now"] = progress_text(video)
    attempts: list[Json] = video.get("attempts") or []
    for attempt in attempts:
        facts[f"attempt {attempt['n']}"] = _attempt_text(attempt)
    for warning in video["warnings"]:
        facts[f"warning {warning['param'] or ''}".strip()] = warning["message"]
    shown = {name: text for name, text in facts.items() if text}
    return [f"{name:<12} {text}" for name, text in shown.items()]


def estimate_lines(told: Json) -> list[str]:
    """Show what a request would come to as `name  value` lines."""
    spec, run = told["spec"], told["run_s"]
    times = [seconds_text(run[name]) for name in ("p50", "p10", "p90")] if run else []
    memory, gain = told["peak_memory_mb"], told["cache_gain"]
    facts = {
        "model": told["model"],
        "size": f"{spec['width']}x{spec['height']}, {spec['frames']} frames, {spec['steps']} steps",
        "fits on": ", ".join(told["fits"]) or "no group that runs now",
        "place": str(told["queue_position"]),
        "starts": moment_text(told["starts_at"]) or UNKNOWN,
        "ends": moment_text(told["completes_at"]) or UNKNOWN,
        "takes": "~{} ({} to {}), {}".format(*times, told["basis"]) if run else UNKNOWN,
        "GPU-seconds": UNKNOWN if told["gpu_seconds"] is None else f"{told['gpu_seconds']:.0f}",
        "memory": f"{memory / 1024:.1f} GiB of each GPU" if memory else UNKNOWN,
        "cache": f"{gain:.2f}x faster" if gain else UNKNOWN,
    }
    lines = [f"{name:<12} {text}" for name, text in facts.items()]
    return [*lines, f"{'settings':<12} {_settings_text(spec)}"]


def _settings_text(spec: Json) -> str:
    """Write what else a video is made of as `name=value`."""
    told = {name: value for name, value in spec.items() if name not in _SIZES and value is not None}
    words = [
        f"{name}={value if type(value) is str else to_json(value)}" for name, value in told.items()
    ]
    return " ".join(words)


def batch_estimate_lines(told: Json) -> list[str]:
    """Show what a batch would come to: a line a video, and the sums."""
    lines = [_member_text(number, one) for number, one in enumerate(told["data"], 1)]
    cost, ends = told["gpu_seconds"], moment_text(told["completes_at"])
    sums = f"{UNKNOWN if cost is None else f'{cost:.0f}'} GPU-seconds, ends {ends or UNKNOWN}"
    return [*lines, f"{told['total']} videos: {sums}"]


def _member_text(number: int, one: Json) -> str:
    differs = " ".join(f"{name}={value}" for name, value in one["set"].items())
    took = f"~{seconds_text(one['run_s']['p50'])}" if one["run_s"] else UNKNOWN
    return f"{number:>3}  {took:<8} {differs or one['prompt']}"


def group_lines(group: Json) -> list[str]:
    """Show a group as `name  value` lines."""
    degrees: Json = group["parallel"] or {}
    facts = {
        "state": group_text(group["state"]),
        "problem": group["problem"],
        "drains": group["drain_reason"] or group["drain"],
        "video": group["video_id"],
        "warm with": group["model"],
        "models": ", ".join(group["models"]),
        "ranks": f"{group['ranks']} on {group['device']}",
        "layout": ", ".join(f"{name} {degree}" for name, degree in degrees.items()),
        "last hour": f"{group['jobs_last_hour']} videos",
        "failures": f"{group['failure_streak']} in a row" if group["failure_streak"] else "",
        "up since": moment_text(group["started_at"]),
        "heard": age_text(group["last_heartbeat_at"]),
    }
    facts |= {f"rank {one['rank']}": _reading_text(one) for one in group["gpus"]}
    facts |= {name: str(version) for name, version in group["software"].items()}
    return [f"{name:<12} {text}" for name, text in facts.items() if text]


def _reading_text(reading: Json) -> str:
    told = {name: value for name, value in reading.items() if name != "rank" and value is not None}
    return " ".join(f"{name}={value}" for name, value in told.items())


def group_text(state: str) -> str:
    """Show a group's state with its glyph."""
    return f"{GroupState(state).glyph} {state}"


def moment_text(seconds: int | None) -> str:
    """Show unix seconds as local time with its zone; empty when there is none."""
    if seconds is None:
        return ""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z")


def age_text(seconds: int) -> str:
    """Tell how long ago a moment of unix seconds was."""
    return f"{seconds_text(max(0.0, time.time() - seconds))} ago"


def size_text(size: int) -> str:
    """Show a number of bytes."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def seconds_text(seconds: float | None) -> str:
    """Show a duration in at most two units."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def _file_text(result: Json | None) -> str | None:
    if not result:
        return None
    return f"{result['bytes']} bytes, {result['codec']}, sha256 {result['sha256']}"


def _error_text(error: Json | None) -> str | None:
    return f"{error['code']}: {error['message']}" if error else None


def _attempt_text(attempt: Json) -> str:
    words = [f"group {attempt['group']}", attempt["outcome"] or "running"]
    error = _error_text(attempt.get("error"))
    return ", ".join([*words, error] if error else words)


def _bar(ratio: float, width: int = 12) -> str:
    return f"{'#' * round(width * ratio):<{width}}"


def _expert(name: str | None) -> str:
    return f"{name}-noise" if name in {"high", "low"} else ""


def _flat(cell: object) -> str:
    """Make a cell one line: a tab or a newline would break the table apart."""
    return " ".join(str(cell).split())


def _fitted(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Align cells; only the last column is cut, and never below what still says something."""
    columns = list(zip(*rows, strict=True))[:-1]
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in columns]
    left = max(_LEAST_LAST, width - sum(widths) - 2 * len(widths))
    lines: list[str] = []
    for *cells, last in rows:
        padded = [
            cell + " " * (wide - len(click.unstyle(cell)))
            for cell, wide in zip(cells, widths, strict=True)
        ]
        cut = last if len(last) <= left else last[: left - 1] + "…"
        lines.append("  ".join([*padded, cut]).rstrip())
    return lines


def _width() -> int:
    import shutil

    return max(20, shutil.get_terminal_size().columns)


def _no_colour() -> bool:
    from shared.machinery.settings import child_environment

    return bool(child_environment().get("NO_COLOR"))
