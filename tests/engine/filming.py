"""Fakes that go further: some make real files, one never comes up."""

import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import FailureKind
from tests.engine.fake import NEVER, Engine
from worker.engine.contract import Closing, Hooks, Order, Seat, StepDone
from worker.engine.faults import EngineFault
from worker.engine.result import Report, VideoFile
from worker.engine.video import mp4


class Camera(Engine):
    """Leaves a red video behind."""

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        made, spec, out = super().generate(order, hooks), order.spec, order.out
        if made is None:
            return None
        red = np.zeros((spec.frames, spec.height, spec.width, 3), np.uint8)
        red[..., 0] = 255
        with mp4.writing(out, spec) as film:
            film.write(red)
        file = VideoFile(
            path=str(out),
            **{name: str(path) for name, path in mp4.stills(out).items()},
            width=spec.width,
            height=spec.height,
            frames=spec.frames,
            fps=spec.fps,
        )
        return lambda: (file, made()[1])


class Filmmaker(Camera):
    """Loads when its directory says `go`."""

    def load(self, directory: Path, plan: ParallelPlan, build: Build) -> None:
        while not (directory / "go").exists():
            NEVER.wait(0.02)


class LateFilmmaker(Filmmaker):
    """Closes each film when its checkpoint's directory says so; some it cannot close."""

    def load(self, directory: Path, plan: ParallelPlan, build: Build) -> None:
        super().load(directory, plan, build)
        self._directory = directory

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        made, prompt = super().generate(order, hooks), order.spec.prompt

        def close() -> tuple[VideoFile, Report]:
            while not (self._directory / "close").exists():
                NEVER.wait(0.02)
            if prompt == "fail to close":
                raise EngineFault(FailureKind.STORAGE, "The video could not be written.")
            assert made
            return made()

        return close


class Poorly(Filmmaker):
    """Computes rubbish while its checkpoint's directory says that it is sick."""

    def load(self, directory: Path, plan: ParallelPlan, build: Build) -> None:
        super().load(directory, plan, build)
        self._directory = directory

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        if (self._directory / "sick").exists():
            raise EngineFault(FailureKind.CUDA_ERROR, "An illegal memory access was met.")
        return super().generate(order, hooks)

    def probe(self) -> None:
        if (self._directory / "sick").exists():
            raise EngineFault(FailureKind.CUDA_ERROR, "It computed a wrong product.")


class Witness(Camera):
    """Writes down, beside the checkpoints, when which run was at work on which seed."""

    def load(self, directory: Path, plan: ParallelPlan, build: Build) -> None:
        super().load(directory, plan, build)
        self._log = directory.parent / "runs.log"

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        run = uuid.uuid4().hex[:8]

        def tell(done: StepDone) -> None:
            with self._log.open("a") as log:
                log.write(f"{order.spec.seed} {run} {time.monotonic()}\n")
            hooks.step(done)

        return super().generate(order, replace(hooks, step=tell))


class Gossip(Camera):
    """Fails, and tells what it was asked for."""

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        raise ValueError(f"nobody can draw {order.spec.prompt}")


class SlowCloser(Engine):
    """Closes its files when a file beside them says so."""

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        made, prompt = super().generate(order, hooks), order.spec.prompt
        told = order.out.with_name(f"{order.out.name}.close")

        def close() -> tuple[VideoFile, Report]:
            while not told.exists():
                NEVER.wait(0.02)
            if prompt.startswith("fail"):
                raise EngineFault(FailureKind.STORAGE, "The video could not be written.")
            assert made
            return made()

        return close if "when told" in prompt else made


class Crowded(Filmmaker):
    """Runs out of memory while the text encoder is on its device."""

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        if not order.plan.residency.text_encoder:
            raise MemoryError
        return super().generate(order, hooks)


class Tiny(Filmmaker):
    memory_total_bytes = 10**9  # less than a context


class Silent(Engine):
    def __init__(self, seat: Seat) -> None:
        NEVER.wait()
