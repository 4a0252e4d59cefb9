"""`wanfarm demo`: from nothing to a video that was decoded again, by the way every job takes."""

import itertools
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import httpx

from cli.local import Local, pause
from cli.ports import port_is_free
from cli.processes import verb
from cli.stack import Plan, login_link, plan_of
from cli.supervisor import Program, spawn
from shared.machinery.settings import child_environment

_PROMPT: Final = "a red ball passes behind a blue square"
_SEED: Final = 7
_MODEL: Final = "wan-mini-t2v"
_PORTS: Final = range(8080, 8090)
_START_S: Final = 300.0
_RENDER_S: Final = 300.0
_POLL_S: Final = 0.2
_FINAL: Final = frozenset({"completed", "failed", "cancelled"})


class DemoFailed(click.ClickException):
    """A step did not hold what it should; the text says which and where to look."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What a finished file turned out to be."""

    codec: str
    width: int
    height: int
    frames: int
    streams: bool  # a browser can start before it has the whole file

    def __str__(self) -> str:
        """Tell it as the last step prints it."""
        return f"{self.width}x{self.height}, {self.frames} frames, {self.codec}"


@click.command()
def demo() -> None:
    """Start the farm, render one video with the miniature model, and check the file.

    Stays up until Ctrl-C in a terminal; stops everything after the video when DEMO=exit or when
    nobody looks on.
    """
    plan = plan_of(port=None, model=None, ranks=None)
    stays = sys.stdout.isatty() and child_environment().get("DEMO") != "exit"
    steps = _Steps(4)
    process = None if plan.local.is_running() else _start(plan)
    try:
        facts = _tour(steps, plan.local, process)
        if stays:
            _invite(plan.local, facts, ours=process is not None)
            _await_interrupt(process)
    finally:
        if process:
            _stop(process)


def inspect(path: Path) -> Clip:
    """Decode a file to its end and say what it holds.

    Args:
        path: an MP4 file.

    Raises:
        DemoFailed: when it cannot be decoded.
    """
    import imageio_ffmpeg

    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-hide_banner", "-xerror", "-i", str(path), "-map", "0:v:0"]
    told = subprocess.run([*command, "-f", "null", "-"], capture_output=True, check=False)
    words = told.stderr.decode(errors="replace")
    shape = re.search(r"Video: (\w+).*?, (\d+)x(\d+)", words)
    counted = re.findall(r"frame=\s*(\d+)", words)
    if told.returncode or not shape or not counted:
        raise DemoFailed(f"The video could not be decoded: {words.strip()[-300:]}")
    boxes = _boxes(path)
    return Clip(
        codec=shape[1],
        width=int(shape[2]),
        height=int(shape[3]),
        frames=int(counted[-1]),
        streams="moov" in boxes and boxes.index("moov") < boxes.index("mdat"),
    )


def _tour(
    step: "_Steps", local: Local, process: "subprocess.Popen[bytes] | None"
) -> dict[str, Any]:
    """Go through the steps; each line is printed when what it says has happened."""
    free_gb = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    cores = os.cpu_count()
    step.done("python", f"{platform.python_version()}, {cores} cores, {free_gb:.1f} GB free", "ok")
    facts = _await(local, process, ("farm", "ready"))
    services = ", ".join(facts["services"]) or "those of DATABASE_URL and REDIS_URL"
    step.done("services", f"{services}, data in {_short(local.root)}/")
    facts = _await(local, process, ("ready",))
    key = Path(facts["admin_key_file"]).read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=facts["url"], headers=headers, timeout=10) as api:
        # asked for at once: the row waits until the worker's ranks are up
        video = _answer(
            api.post("/v1/videos", json={"model": _MODEL, "prompt": _PROMPT, "seed": _SEED})
        )
        video = _follow(api, video, until=_FINAL | {"in_progress"})
        where = facts["url"].removeprefix("http://")
        step.done("farm", f"api + dashboard on {where}, worker {facts['group']}, {_MODEL}")
        step.note("render", f'"{_PROMPT}", seed {_SEED}')
        video = _follow(api, video, until=_FINAL)
        if video["status"] != "completed":
            error: dict[str, Any] = video.get("error") or {}
            raise DemoFailed(f"The video {video['status']}: {error.get('message', 'no reason')}")
        step.done("render", _phases(video))
        path = local.root / "demo.mp4"
        path.write_bytes(_raw(api.get(f"/v1/videos/{video['id']}/content")).content)
    clip = inspect(path)
    _compare(clip, video)
    click.echo(f"      video     {_short(path)}  {clip}")
    return facts


def _compare(clip: Clip, video: dict[str, Any]) -> None:
    """Hold the decoded file against what was asked for."""
    spec = video["spec"]
    asked = Clip("h264", spec["width"], spec["height"], spec["frames"], streams=True)
    if clip != asked:
        raise DemoFailed(f"The video is not what was asked for: {clip} instead of {asked}.")


def _follow(api: httpx.Client, video: dict[str, Any], until: frozenset[str]) -> dict[str, Any]:
    """Ask for the video until it is in one of the states; redraw one line in a terminal."""
    deadline = time.monotonic() + _RENDER_S
    began = time.monotonic()
    while video["status"] not in until:
        if time.monotonic() > deadline:
            raise DemoFailed(f"The video is still {video['status']} after {_RENDER_S:.0f} s.")
        pause(_POLL_S)
        video = _answer(api.get(f"/v1/videos/{video['id']}"))
        if sys.stderr.isatty():
            text = f"{_progress(video)}  {time.monotonic() - began:.0f}s"
            click.echo(f"\r      {text:<70.70}", nl=False, err=True)
    if sys.stderr.isatty():
        click.echo("\r" + " " * 78 + "\r", nl=False, err=True)
    return video


def _progress(video: dict[str, Any]) -> str:
    detail: dict[str, Any] = video.get("progress_detail") or {}
    if video["status"] == "queued":
        return "queued; the worker is starting"
    phase, step, steps = (detail.get(name) for name in ("phase", "step", "steps"))
    if phase == "denoise" and steps:
        bar = "#" * round(12 * (step or 0) / steps)
        return f"denoise {step or 0}/{steps} {bar:<12} {detail.get('expert') or ''}"
    return str(phase or "starting")


def _phases(video: dict[str, Any]) -> str:
    steps = video["spec"]["steps"]
    timings: dict[str, float] = video.get("timings") or {}
    told = [f"{n} {timings[n]:.1f}s" for n in ("load", "denoise", "decode") if timings.get(n)]
    return f"{steps} steps" + "".join(f" | {part}" for part in told)


def _answer(response: httpx.Response) -> dict[str, Any]:
    return _raw(response).json()


def _raw(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        raise DemoFailed(f"The API said HTTP {response.status_code}: {response.text[:300]}")
    return response


def _start(plan: Plan) -> "subprocess.Popen[bytes]":
    """Run `wanfarm up` as our child, on the first free port."""
    host = plan.settings.host
    given = "port" in plan.settings.model_fields_set
    ports = (plan.port,) if given else _PORTS
    port = next((port for port in ports if port_is_free(host, port)), None)
    if port is None:
        raise DemoFailed(
            f"Ports {ports[0]} to {ports[-1]} are all taken. Free one, or set WANFARM_PORT."
        )
    plan.local.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = Program(
        name="up",
        argv=verb("up", "--port", str(port)),
        environment=child_environment(),
        orphan_signal=signal.SIGTERM,  # lets it stop the others in order
    )
    with plan.local.log.open("wb") as log:
        process = spawn(program, log)
    plan.local.await_start(process, within=30)
    return process


def _await(
    local: Local, process: "subprocess.Popen[bytes] | None", stages: tuple[str, ...]
) -> dict[str, Any]:
    facts = local.await_stage(stages, within=_START_S)
    if facts is None:
        said = local.log.read_text(errors="replace").splitlines()[-12:] if process else []
        raise DemoFailed(
            "\n".join(
                ["The farm did not start. It said:", *said, f"All of it: {_short(local.log)}"]
            )
        )
    return facts


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop the farm; another Ctrl-C makes it hard."""
    for _ in range(2):
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(90)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            continue
        return
    process.wait(30)


def _await_interrupt(process: "subprocess.Popen[bytes] | None") -> None:
    """Leave our farm running until Ctrl-C, or until somebody else stops it."""
    if process is None:
        return
    try:
        process.wait()
    except KeyboardInterrupt:
        click.echo("\nstopping ...")


def _invite(local: Local, facts: dict[str, Any], *, ours: bool) -> None:
    program = Path(sys.executable).with_name("wanfarm")
    click.echo(f"dashboard  {login_link(facts['url'], local)}  one use, 5 minutes")
    click.echo(
        f'next       {_short(program)} submit "two green triangles cross" --wait -o mine.mp4'
    )
    if ours:
        click.echo(f"Farm is running. Ctrl-C stops it. Data stays in {_short(local.root)}/.")


def _boxes(path: Path) -> list[str]:
    """List the top-level boxes of an MP4 file in their order."""
    names: list[str] = []
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:  # size and type
            size, name = int.from_bytes(head[:4], "big"), head[4:].decode("latin-1")
            names.append(name)
            if size == 1:  # the real size follows as 64 bits
                size = int.from_bytes(file.read(8), "big") - 8
            if size == 0:  # to the end of the file
                break
            file.seek(size - 8, os.SEEK_CUR)
    return names


def _short(path: Path) -> str:
    """Show a path as a person in this folder would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


class _Steps:
    """Numbered lines with the seconds that each step took."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._numbers = itertools.count(1)
        self._since = time.monotonic()
        self._noted: str | None = None

    def note(self, name: str, text: str) -> None:
        """Open a step whose result follows on a line of its own."""
        self._noted = name
        click.echo(f"[{next(self._numbers)}/{self._total}] {name:<9} {text}")

    def done(self, name: str, text: str, result: str | None = None) -> None:
        """Close a step."""
        taken = result or f"{time.monotonic() - self._since:.1f}s"
        if result is None:
            self._since = time.monotonic()
        head = (
            " " * 16 if name == self._noted else f"[{next(self._numbers)}/{self._total}] {name:<9}"
        )
        click.echo(f"{head:<15} {text:<66} {taken:>6}")
