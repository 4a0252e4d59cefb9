"""Fakes that go further: one makes a real file, one never comes up."""

import subprocess
from pathlib import Path

from imageio_ffmpeg import get_ffmpeg_exe

from shared.vocabulary.spec import GenerationSpec, ParallelPlan
from tests.engine.fake import NEVER, Engine
from worker.engine.contract import Hooks, Seat
from worker.engine.result import Report, VideoFile


class Filmmaker(Engine):
    """Loads when its directory says `go`, and leaves a red video behind."""

    def load(self, directory: Path, plan: ParallelPlan) -> None:
        while not (directory / "go").exists():
            NEVER.wait(0.02)

    def generate(
        self, spec: GenerationSpec, plan: ParallelPlan, image: Path | None, out: Path, hooks: Hooks
    ) -> tuple[VideoFile, Report] | None:
        made = super().generate(spec, plan, image, out, hooks)
        if made is None:
            return None
        red = f"color=red:s={spec.width}x{spec.height}:r=8"
        argv = [get_ffmpeg_exe(), "-v", "error", "-y", "-f", "lavfi", "-i", red]
        subprocess.run([*argv, "-frames:v", str(spec.frames), str(out)], check=True)
        told = 1000 if spec.prompt == "lie" else spec.frames
        file = VideoFile(
            path=str(out), width=spec.width, height=spec.height, frames=told, fps=spec.fps
        )
        return file, made[1]


class Silent(Engine):
    def __init__(self, seat: Seat) -> None:
        NEVER.wait()
