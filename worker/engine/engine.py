"""One rank's share of a job, from a complete spec to a finished file."""

import contextlib
import hashlib
import resource
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from shared.vocabulary.spec import FailureKind, GenerationSpec, ParallelPlan
from shared.vocabulary.states import Phase
from worker.engine import conditioning, decode, loading, mp4
from worker.engine.contract import Cancelled, Hooks, Seat, StepDone
from worker.engine.faults import EngineFault
from worker.engine.parallel import Mesh, Ranks
from worker.engine.result import Branch, Report, VideoFile
from worker.engine.sampler import Experts, Scene, denoise
from worker.engine.schedule import Schedule

_CPU: Final = "cpu"


class Engine:
    """The Wan2.2 engine of one rank; holds at most one model.

    `worker/ranks/child.py` says what any engine must offer.
    """

    def __init__(self, seat: Seat) -> None:
        """Take the seat's device and meet the other ranks.

        Raises:
            EngineFault: kind `collective`, when they do not all come.
        """
        torch.set_num_threads(seat.threads)
        self._device = torch.device(seat.device)
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        self._leads = seat.rank == 0
        self._ranks = Ranks(seat)
        self._parts: loading.Parts | None = None

    @property
    def device_name(self) -> str:
        """The GPU's name, or `cpu`."""
        return _CPU if self._on_cpu else torch.cuda.get_device_name(self._device)

    @property
    def memory_total_bytes(self) -> int | None:
        """The GPU's memory; None on the CPU, where it is everybody's."""
        return None if self._on_cpu else torch.cuda.mem_get_info(self._device)[1]

    def memory_bytes(self) -> int | None:
        """Device memory taken now; None on the CPU. Called from another thread."""
        return None if self._on_cpu else torch.cuda.memory_reserved(self._device)

    def load(self, directory: Path, plan: ParallelPlan) -> None:
        """Bring a model to the device, after dropping the one before.

        Raises:
            EngineFault: kind `bad_checkpoint`, when the directory does not hold one; kind
                `bad_input`, when this engine cannot follow the plan.
        """
        self._ranks.mesh(plan)
        self._parts = None
        self._empty()
        self._parts = loading.load(directory, self._device, with_text=self._leads)

    def generate(
        self, spec: GenerationSpec, plan: ParallelPlan, image: Path | None, out: Path, hooks: Hooks
    ) -> tuple[VideoFile, Report] | None:
        """Render one video; every active rank of the plan must call it.

        Args:
            spec: what to render.
            plan: who computes; this rank is one of its active ones.
            image: the input image, when the spec has one; read on rank 0.
            out: where rank 0 puts the MP4.
            hooks: see `Hooks`.

        Returns:
            The file and what it cost on rank 0; None on the others.

        Raises:
            Cancelled: when the hook said so. Nothing of the job is left.
            EngineFault: when it cannot be done. Nothing of the job is left.
        """
        assert self._parts, "the parent loads a model before it asks for a video"
        mesh = self._ranks.mesh(plan)
        schedule = Schedule.of(spec)
        _refuse(spec, plan)
        job = _Job(self._parts, spec, mesh, hooks, self._device)
        self._reset_peak()
        try:
            latents = job.denoise(job.scene(image), schedule)
            if not self._leads:
                return None
            file = job.write(latents, out)
            return file, job.report(latents, schedule, self._peak())
        finally:
            self._parts.vae.clear_cache()
            self._empty()

    def close(self) -> None:
        """Leave the group and the device."""
        self._parts = None
        self._ranks.leave()

    @property
    def _on_cpu(self) -> bool:
        return self._device.type == _CPU

    def _empty(self) -> None:
        if not self._on_cpu:
            torch.cuda.empty_cache()

    def _reset_peak(self) -> None:
        if not self._on_cpu:
            torch.cuda.reset_peak_memory_stats(self._device)

    def _peak(self) -> int:
        if not self._on_cpu:
            return torch.cuda.max_memory_allocated(self._device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _Job:
    """What one job has spent and said; dropped with it."""

    def __init__(
        self,
        parts: loading.Parts,
        spec: GenerationSpec,
        mesh: Mesh,
        hooks: Hooks,
        device: torch.device,
    ) -> None:
        self._parts = parts
        self._spec = spec
        self._mesh = mesh
        self._hooks = Hooks(hooks.cancelled, hooks.phase, self._on_step)
        self._tell = hooks.step
        self._device = device
        self._seconds: dict[Phase, float] = {}
        self._steps: list[StepDone] = []

    def scene(self, image: Path | None) -> Scene:
        """Encode the texts and the image on rank 0, and share them."""
        names: list[Branch] = ["cond", "uncond"] if self._spec.guided else ["cond"]
        with self._phase(Phase.TEXT_ENCODE):
            texts = self._mesh.share(lambda: [self._embed(name) for name in names], self._device)
        shared: list[Tensor] = []
        if image is not None:
            with self._phase(Phase.IMAGE_ENCODE):
                shared = self._mesh.share(lambda: [self._condition(image)], self._device)
        return Scene(
            noise=self._noise(),
            texts=dict(zip(names, texts, strict=True)),
            image=shared[0] if shared else None,
        )

    def denoise(self, scene: Scene, schedule: Schedule) -> Tensor:
        """Run the loop; [1, C, F', h, w] fp32."""
        experts = Experts(self._parts.high, self._parts.low, schedule)
        with self._phase(Phase.DENOISE):
            return denoise(experts, scene, self._spec, self._mesh, self._hooks)

    def write(self, latents: Tensor, out: Path) -> VideoFile:
        """Decode into the file, looking for a cancel between latent frames."""
        spec = self._spec
        with (
            self._phase(Phase.DECODE),
            mp4.writing(out, spec.width, spec.height, spec.fps) as file,
            contextlib.closing(decode.frames(self._parts.vae, latents)) as chunks,
        ):
            for pictures in chunks:
                if self._hooks.cancelled():
                    raise Cancelled(spec.steps)
                file.write(pictures)
        return VideoFile(
            path=str(out), width=spec.width, height=spec.height, frames=file.frames, fps=spec.fps
        )

    def report(self, latents: Tensor, schedule: Schedule, peak_bytes: int) -> Report:
        """Sum the job up."""
        digest = hashlib.sha256(latents.float().cpu().contiguous().numpy().tobytes())
        return Report(
            phase_seconds=self._seconds,
            switch_step=schedule.switch_step,
            steps=[{"step": s.step, "expert": s.expert, "seconds": s.seconds} for s in self._steps],
            peak_memory_bytes=peak_bytes,
            latents_sha256=digest.hexdigest(),
        )

    def _embed(self, name: Branch) -> Tensor:
        assert self._parts.prompts
        text = self._spec.prompt if name == "cond" else self._spec.negative_prompt
        with torch.no_grad():
            return self._parts.prompts.embed(text).to(self._parts.high.dtype)

    def _condition(self, image: Path) -> Tensor:
        with torch.no_grad():
            return conditioning.condition(self._parts.vae, image, self._spec)

    def _noise(self) -> Tensor:
        """Draw on the CPU, so that a seed gives the same video on every device and plan."""
        vae = self._parts.vae.config
        shape = (
            1,
            vae["z_dim"],
            (self._spec.frames - 1) // vae["scale_factor_temporal"] + 1,
            self._spec.height // vae["scale_factor_spatial"],
            self._spec.width // vae["scale_factor_spatial"],
        )
        generator = torch.Generator("cpu").manual_seed(self._spec.seed)
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(self._device)

    def _on_step(self, done: StepDone) -> None:
        self._steps.append(done)
        self._tell(done)

    @contextlib.contextmanager
    def _phase(self, phase: Phase) -> Generator[None]:
        self._hooks.phase(phase)
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[phase] = time.monotonic() - began


def _refuse(spec: GenerationSpec, plan: ParallelPlan) -> None:
    """Say no, on all active ranks alike, to what this engine cannot do."""
    if spec.loras:
        raise EngineFault(
            FailureKind.BAD_LORA,
            f"LoRA '{spec.loras[0].name}' cannot be applied. This engine takes none yet.",
        )
    if plan.cfg == 2 and not spec.guided:
        raise EngineFault(
            FailureKind.BAD_INPUT,
            f"guidance is {spec.guidance_high}, so there is one branch. Plan it with cfg 1.",
        )
