"""How the tests ask for a small video, and what they look at afterwards."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from shared.vocabulary.catalog import MODELS
from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import GenerationSpec, ImageRef
from worker.engine.contract import Hooks, Order, Seat, StepDone, Word
from worker.engine.engine import Engine
from worker.engine.result import Report, VideoFile

SIDE = 64
ALONE = ParallelPlan(ranks=1)
REF = ImageRef(sha256="0" * 64, width=SIDE, height=SIDE)


def small(model: str = "wan-tiny-t2v", **fields: object) -> GenerationSpec:
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

    def __init__(
        self,
        models: Path,
        picture: Path,
        scratch: Path,
        device: str = "cpu",
        build: Build | None = None,
    ) -> None:
        self._seat = Seat(0, 1, scratch / "rendezvous", device, threads=1)
        self.engine = Engine(self._seat)
        self.models = models
        self.scratch = scratch
        self._picture = picture
        self._build = build or Build()
        self._loaded = ""

    def load(self, model: str) -> None:
        if self._loaded != model:
            self.engine.load(self.models / MODELS[model].directory, ALONE, self._build)
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
        word: Callable[[], Word] | None = None,
        saved: Callable[[int, Path], None] = lambda _step, _path: None,
        picture: Path | None = None,
        plan: ParallelPlan = ALONE,
        **more,
    ) -> tuple[VideoFile, Report]:
        self.load(spec.model)
        word = word or (lambda: Word(cancelled()))
        hooks = Hooks(word=word, phase=lambda _: None, step=step, saved=saved)
        image = (picture or self._picture) if spec.image else None
        order = Order(spec, plan, self.scratch / "video.mp4", image=image, **more)
        return self.engine.generate(order, hooks)()
