"""One job on one rank: encode, denoise, decode into the file, and say what it cost."""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from shared.vocabulary.states import Phase
from worker.engine.cache.blocks import blocks_of
from worker.engine.cache.job_cache import JobCache
from worker.engine.contract import Cancelled, Hooks, Order, StepDone, Word
from worker.engine.denoise.resume import Saves, stamp
from worker.engine.denoise.sampler import Experts, Scene, denoise
from worker.engine.denoise.schedule import Schedule
from worker.engine.model.loading import Parts
from worker.engine.model.lora import Adapters
from worker.engine.model.offload import Placement
from worker.engine.parallel.ranks import Mesh
from worker.engine.result import Branch, Report, StepRecord, VideoFile
from worker.engine.video import conditioning, decode, mp4


class Job:
    """What one job has spent and said; dropped with it."""

    def __init__(
        self,
        parts: Parts,
        order: Order,
        mesh: Mesh,
        hooks: Hooks,
        placement: Placement,
    ) -> None:
        """Take what the job runs on; `mesh` holds the active ranks of its plan."""
        self._parts = parts
        self._order = order
        self._spec = order.spec
        self._mesh = mesh
        self._hooks = dataclasses.replace(hooks, step=self._on_step)
        self._tell = hooks.step
        self._placement = placement
        self._device = placement.device
        self._seconds: dict[Phase, float] = {}
        self._steps: list[StepRecord] = []
        self._warnings: list[str] = []
        self._loras: dict[str, dict[str, str]] = {}
        self._made: dict[str, str] = {}
        self._saves: Saves | None = None

    def adapt(self, adapters: Adapters) -> None:
        """Have the job's adapters merged into the experts, and no others."""
        if not adapters.fit(self._order.loras):
            with self._phase(Phase.LOAD):
                adapters.wear(self._order.loras)
        self._loras = adapters.hashes

    def save_as(self, made: dict[str, str], schedule: Schedule) -> None:
        """Prepare to save the latents; `made` tells the weights, the class and the attention."""
        self._made = made
        mark = stamp(self._order, schedule.timesteps, loras=json.dumps(self._loras), **made)
        self._saves = Saves(self._order, mark, self._hooks.saved, leads=self._mesh.leads)

    def end(self) -> None:
        """Wait for the latents that are being saved."""
        if self._saves is not None:
            self._saves.close()

    def scene(self) -> Scene:
        """Encode the texts and the image on rank 0, and share them."""
        names: list[Branch] = ["cond", "uncond"] if self._spec.guided else ["cond"]
        with self._phase(Phase.TEXT_ENCODE):
            prompts = self._parts.prompts
            made = self._embed(names) if prompts and prompts.together else None
            texts = self._mesh.share(lambda: made or self._embed(names), self._device)
        shared: list[Tensor] = []
        if self._order.image is not None:
            condition = partial(self._condition, self._order.image)
            with self._phase(Phase.IMAGE_ENCODE):
                shared = self._mesh.share(lambda: [condition()], self._device)
        return Scene(
            noise=self._noise(),
            texts=dict(zip(names, texts, strict=True)),
            image=shared[0] if shared else None,
            resumed=self._resumed(),
        )

    def denoise(self, scene: Scene, schedule: Schedule) -> Tensor:
        """Run the loop; [1, C, F', h, w] fp32."""
        assert self._saves
        depth = len(blocks_of(self._parts.high).inner)
        with (
            self._phase(Phase.DENOISE),
            contextlib.closing(JobCache(self._order.cache, depth)) as cache,
            self._placement.taking_turns() as turn,
        ):
            experts = Experts(self._parts.high, self._parts.low, schedule, cache, turn)
            latents = denoise(experts, scene, self._spec, self._mesh, self._hooks, self._saves)
            self._mesh.compare(one for step in self._steps for one in step.branches.values())
            self._warnings += cache.warnings(self._steps)
            return latents

    def write(self, latents: Tensor, *, own: bool) -> Callable[[], VideoFile] | None:
        """Decode into the file, looking for a cancel between latent frames.

        Every active rank must call it. They share out the pictures' rows where they can; else
        rank 0 decodes alone.

        Args:
            latents: [1, C, F', h, w].
            own: decode with our own decoder; else with that of diffusers.

        Returns:
            On rank 0 what closes the file, when the device has nothing more to do with it.
        """
        plan, rows = self._order.plan, latents.shape[3]
        tiled = plan.residency.tiled_vae
        divided = own and not tiled and plan.active <= rows
        mesh = self._mesh if divided else self._mesh.alone
        if not (divided or mesh.leads):
            return None
        if tiled:
            self._warnings.append("The VAE decoded in tiles, so the pictures are not exact.")
        strips = mesh.strips(rows) if own else None
        with self._phase(Phase.DECODE), contextlib.ExitStack() as opened:
            file = opened.enter_context(self._file()) if mesh.leads else None
            chunks = decode.frames(self._parts.vae, latents, strips, tiled=tiled)
            with self._placement.using("vae"), contextlib.closing(chunks):
                for pictures in chunks:
                    self._heed(mesh.agree(partial(self._word, file)), file)
                    if file is not None:
                        file.write(pictures)
            closing = opened.pop_all()
        return None if file is None else partial(self._closed, closing, file)

    def report(self, latents: Tensor, schedule: Schedule, peak_bytes: int) -> Report:
        """Sum the job up."""
        saves = self._saves
        assert saves
        digest = hashlib.sha256(latents.float().cpu().contiguous().numpy().tobytes())
        return Report(
            phase_seconds=self._seconds,
            switch_step=schedule.switch_step,
            steps=self._steps,
            peak_memory_bytes=peak_bytes,
            latents_sha256=digest.hexdigest(),
            cache=self._order.cache,
            build=self._made,
            warnings=self._warnings + saves.warnings + self._cold(saves),
            loras=self._loras,
            resumed_at=saves.resumed_at,
        )

    def _cold(self, saves: Saves) -> list[str]:
        if self._order.cache is None or not saves.resumed_at:
            return []
        return [
            f"cache_cold: The attempt went on after step {saves.resumed_at}, its cache was cold."
        ]

    def _file(self) -> AbstractContextManager[mp4.Mp4]:
        return mp4.writing(self._order.out, self._spec)

    def _closed(self, closing: contextlib.ExitStack, file: mp4.Mp4) -> VideoFile:
        spec = self._spec
        closing.close()
        return VideoFile(
            path=str(self._order.out),
            **{name: str(path) for name, path in mp4.stills(self._order.out).items()},
            width=spec.width,
            height=spec.height,
            frames=file.frames,
            fps=spec.fps,
        )

    def _word(self, file: mp4.Mp4 | None) -> Word:
        """What is to happen while decoding; a file that cannot be written stops all ranks."""
        return Word.CANCEL if file is not None and file.broken else self._hooks.word()

    def _heed(self, word: Word, file: mp4.Mp4 | None) -> None:
        """Stop while decoding, when that is the word."""
        if word is Word.GO:
            return
        if file is not None and file.broken:
            file.finish()  # raises
        if word is Word.SAVE_AND_STOP and self._saves is not None:
            self._saves.keep()
        raise Cancelled(self._spec.steps)

    def _resumed(self) -> Tensor | None:
        """Read what an earlier attempt saved on rank 0, and share it."""
        saves, path = self._saves, self._order.resume
        if saves is None or path is None:
            return None
        device = self._device
        shared = self._mesh.share(lambda: [one.to(device) for one in saves.read(path)], device)
        return shared[0] if shared else None

    def _embed(self, names: list[Branch]) -> list[Tensor]:
        assert self._parts.prompts
        texts = {"cond": self._spec.prompt, "uncond": self._spec.negative_prompt}
        with torch.no_grad():
            embedded = self._parts.prompts.embed([texts[name] for name in names])
        return [tokens.to(self._device, self._parts.high.dtype) for tokens in embedded]

    def _condition(self, image: Path) -> Tensor:
        with torch.no_grad(), self._placement.using("vae"):
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
        self._steps.append(
            StepRecord(
                step=done.step, expert=done.expert, seconds=done.seconds, branches=done.branches
            )
        )
        if self._saves is not None:
            self._saves.spent(done.seconds)
        self._tell(done)

    @contextlib.contextmanager
    def _phase(self, phase: Phase) -> Generator[None]:
        self._hooks.phase(phase)
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[phase] = time.monotonic() - began
