"""How the tests ask for a small video, and what they look at afterwards."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from shared.vocabulary.catalog import MODELS
from shared.vocabulary.spec import GenerationSpec, ImageRef, ParallelPlan
from worker.engine.contract import Hooks, Seat, StepDone
from worker.engine.engine import Engine
from worker.engine.result import Report, VideoFile

SIDE = 64
ALONE = ParallelPlan(ranks=1)
REF = ImageRef(sha256="0" * 64, width=SIDE, height=SIDE)


def small(model: str = "wan-mini-t2v", **fields: object) -> GenerationSpec:
    """A video of 64x64 pixels and 9 frames in few steps, unless said otherwise."""
    given = {
        "prompt": "a red  ball &amp; a hill",
        "negative_prompt": "grey",
        "width": SIDE,
        "height": SIDE,
        "frames": 9,
        "steps": 5,
        "seed": 1,
    }
    return GenerationSpec.model_validate({"model": model} | given | fields)


def decoded(path: Path, width: int, height: int) -> np.ndarray:
    """The pictures of a file, [n, H, W, 3]."""
    argv = [get_ffmpeg_exe(), "-loglevel", "error", "-i", path, "-f", "rawvideo"]
    raw = subprocess.run([*argv, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


class Render:
    """An engine in this process that loads what a spec needs."""

    def __init__(self, models: Path, picture: Path, scratch: Path, device: str = "cpu") -> None:
        self._seat = Seat(0, 1, scratch / "rendezvous", device, threads=1)
        self.engine = Engine(self._seat)
        self.models = models
        self.scratch = scratch
        self._picture = picture
        self._loaded = ""

    def load(self, model: str) -> None:
        if self._loaded != model:
            self.engine.load(self.models / MODELS[model].directory, ALONE)
            self._loaded = model

    def anew(self):
        """An empty engine like this one."""
        return type(self.engine)(self._seat)

    def __call__(
        self,
        spec: GenerationSpec,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        step: Callable[[StepDone], None] = lambda _: None,
        picture: Path | None = None,
    ) -> tuple[VideoFile, Report]:
        self.load(spec.model)
        hooks = Hooks(cancelled=cancelled, phase=lambda _: None, step=step)
        image = (picture or self._picture) if spec.image else None
        return self.engine.generate(spec, ALONE, image, self.scratch / "video.mp4", hooks)
