"""The verb that measures how two finished videos differ, and tells what was asked otherwise."""

import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import click

from cli import following, render
from cli.client import Exit, FarmError, Json
from cli.session import Session, farm_verb

_FFMPEG_S: Final = 600
_PEAK: Final = 255.0
_NAMES: Final = ("a.mp4", "b.mp4")
# Frames pair up by their moment; what one video has beyond the other's end is left out.
_GRAPH: Final = (
    "[0:v]split[a][b];[1:v]split[c][d];"
    "[a][c]psnr=stats_file=psnr.log:shortest=1[p];[b][d]ssim=stats_file=ssim.log:shortest=1[s]"
)
_SAME: Final = "the same pixels"


@dataclass(frozen=True, slots=True)
class Frame:
    """How far apart the two pictures of one moment are; frames count from 1."""

    number: int
    psnr_db: float  # infinite for equal pictures
    ssim: float


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@farm_verb
def compare(session: Session, first: str, second: str) -> int:
    """Measure how far video B is from video A, and list the settings that differ.

    PSNR and SSIM are those of ffmpeg, over luma and chroma. Frames are paired by their time. With
    --quiet, the PSNR alone.
    """
    a, b = (_finished(session, video_id) for video_id in (first, second))
    _refuse_sizes(a, b)
    _note_times(session, a, b)
    with tempfile.TemporaryDirectory(prefix="wanfarm-compare-") as folder:
        for video, name in zip((a, b), _NAMES, strict=True):
            following.download(session, video["id"], Path(folder) / name)
        frames = measure(Path(folder))
    found = _found(a, b, frames)
    number = "inf" if found["identical"] else str(found["psnr_db"])
    session.screen.object(found, _lines(found), short=number)
    return Exit.OK


def measure(folder: Path) -> list[Frame]:
    """Compare `a.mp4` and `b.mp4` of a folder, which ffmpeg's records go to as well.

    Raises:
        FarmError: when there is no ffmpeg, or it cannot read them.
    """
    inputs = [word for name in _NAMES for word in ("-i", name)]
    outputs = ["-map", "[p]", "-map", "[s]", "-f", "null", "-"]
    command = [_ffmpeg(), "-v", "error", *inputs, "-filter_complex", _GRAPH, *outputs]
    try:
        ran = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_FFMPEG_S
        )
    except subprocess.TimeoutExpired as err:
        raise FarmError(Exit.ERROR, f"ffmpeg took more than {_FFMPEG_S} s. Try again.") from err
    if ran.returncode:
        words = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1][:160]
        raise FarmError(Exit.ERROR, f"The videos cannot be compared. ffmpeg ended: {words}.")
    return [
        Frame(number, float(psnr), float(ssim))
        for number, (psnr, ssim) in enumerate(
            zip(
                _column(folder / "psnr.log", "psnr_avg"),
                _column(folder / "ssim.log", "All"),
                strict=True,
            ),
            start=1,
        )
    ]


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as err:
        raise FarmError(
            Exit.ERROR,
            "imageio-ffmpeg is not installed. It brings the ffmpeg that measures. "
            "Install it: `pip install imageio-ffmpeg`.",
        ) from err
    return imageio_ffmpeg.get_ffmpeg_exe()


def _column(log: Path, name: str) -> list[str]:
    """Read one value per frame; a line is `n:1 name:value name:value`."""
    return re.findall(rf"\b{name}:(\S+)", log.read_text())


def _finished(session: Session, video_id: str) -> Json:
    """Read a video that has a file.

    Raises:
        FarmError: when it has none; the farm's own refusal does not say whose.
    """
    video = session.api.get(f"/v1/videos/{video_id}")
    if video["urls"]["content"] is not None:
        return video
    if video["completed_at"] is None:
        state = video["status"].replace("_", " ")
        does = f"It is {state}. See it to its end: wanfarm watch {video_id}"
    else:
        does = f"It is {video['status']}, or expired. Make it again: wanfarm remix {video_id}"
    raise FarmError(Exit.ERROR, f"{video_id} has no file. {does}")


def _refuse_sizes(a: Json, b: Json) -> None:
    sizes = [f"{one['result']['width']}x{one['result']['height']}" for one in (a, b)]
    if sizes[0] != sizes[1]:
        raise FarmError(
            Exit.ERROR,
            f"A is {sizes[0]}, B is {sizes[1]}. Only pixels of one size can be compared. "
            f"Make B in A's size: wanfarm remix {b['id']} --size {sizes[0]}",
        )


def _note_times(session: Session, a: Json, b: Json) -> None:
    shapes = [(one["result"]["frames"], one["result"]["fps"]) for one in (a, b)]
    if shapes[0] != shapes[1]:
        words = [f"{frames} frames at {fps} fps" for frames, fps in shapes]
        session.screen.note(
            f"A has {words[0]}, B {words[1]}: each frame of A is compared with what B shows then."
        )


def _found(a: Json, b: Json, frames: list[Frame]) -> Json:
    """Sum up; null stands for the infinite PSNR of equal pictures, which JSON cannot write."""
    worst = min(frames, key=lambda frame: (frame.psnr_db, frame.ssim))
    error = sum(_PEAK**2 / 10 ** (frame.psnr_db / 10) for frame in frames) / len(frames)
    return {
        "object": "comparison",
        "a": a["id"],
        "b": b["id"],
        "frames": len(frames),
        "identical": error == 0,
        "psnr_db": round(10 * math.log10(_PEAK**2 / error), 2) if error else None,
        "ssim": round(sum(frame.ssim for frame in frames) / len(frames), 6),
        "worst_frame": {
            "frame": worst.number,
            "psnr_db": worst.psnr_db if math.isfinite(worst.psnr_db) else None,
            "ssim": worst.ssim,
        },
        "settings": dict(_differing(_settings(a), _settings(b))),
        "run_s": [_run_s(a), _run_s(b)],
        "gpu_seconds": [a["gpu_seconds"], b["gpu_seconds"]],
    }


def _settings(video: Json) -> dict[str, object]:
    """Everything that decided the pixels, flat; the cache as it was used, not as wished for."""
    settings: Json = {"prompt": video["prompt"]} | video["spec"]
    recorded: Json | None = video["provenance"]
    if recorded is not None:
        cache: Json = recorded["cache"] or {"policy": "off"}
        settings |= recorded["parallel"] | {"cache": cache["policy"]}
    return dict(_flat(settings))


def _flat(values: Json, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(cast("Json", value), f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _differing(
    a: dict[str, object], b: dict[str, object]
) -> Iterator[tuple[str, list[object | None]]]:
    for name in dict.fromkeys((*a, *b)):
        pair = [a.get(name), b.get(name)]
        if pair[0] != pair[1]:
            yield name, pair


def _run_s(video: Json) -> float | None:
    timings: Json | None = video["timings"]
    return round(timings["total"] - timings["queued"], 3) if timings else None


def _lines(found: Json) -> list[str]:
    """Show what was found as `name  A | B` lines."""
    worst: Json = found["worst_frame"]
    facts = {
        "psnr": f"{_decibels(found['psnr_db'])} over {found['frames']} frames",
        "ssim": f"{found['ssim']:.4f}",
    }
    if not found["identical"]:
        told = f"{_decibels(worst['psnr_db'])}, ssim {worst['ssim']:.4f}"
        facts["worst frame"] = f"{worst['frame']}: {told}"
    settings: dict[str, list[object]] = found["settings"]
    facts |= {name: " | ".join(map(_word, pair)) for name, pair in settings.items()}
    facts["run"] = " | ".join(map(render.seconds_text, found["run_s"]))
    facts["gpu-seconds"] = " | ".join(map(_word, found["gpu_seconds"]))
    wide = max(map(len, facts))
    return [f"{name:<{wide}}  {text}" for name, text in facts.items()]


def _decibels(value: float | None) -> str:
    return _SAME if value is None else f"{value:.2f} dB"


def _word(value: object) -> str:
    """Show a value on one line, however long a prompt is."""
    return render.UNKNOWN if value is None else " ".join(str(value).split())
