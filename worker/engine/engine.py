"""One rank's share of a job, from a complete spec to a finished file."""

import gc
import resource
import sys
from pathlib import Path
from typing import Final

import torch

from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import FailureKind
from worker.engine.cache.blocks import blocks_of
from worker.engine.contract import Closing, Hooks, Order, Seat
from worker.engine.denoise.schedule import Schedule
from worker.engine.faults import EngineFault
from worker.engine.job import Job
from worker.engine.kernels import divided, forward
from worker.engine.model import loading
from worker.engine.model.identity import identity
from worker.engine.model.lora import Adapters
from worker.engine.model.offload import Placement, resting
from worker.engine.model.originals import Originals
from worker.engine.parallel.ranks import Ranks
from worker.engine.parallel.sequence import SelfAttention, Sequence
from worker.engine.parallel.shares import Shares

_CPU: Final = "cpu"
_PROBE: Final = 512  # rows of what a self-test multiplies


class Engine:
    """The Wan2.2 engine of one rank; holds at most one model.

    `worker/ranks/child.py` says what any engine must offer.
    """

    def __init__(self, seat: Seat) -> None:
        """Take the seat's device and meet the other ranks.

        Raises:
            EngineFault: kind `bad_input`, when there is no such device; kind `collective`, when
                the ranks do not all come.
        """
        torch.set_num_threads(seat.threads)
        self._device = torch.device(seat.device)
        if self._device.type == "cuda":
            _refuse_absent(self._device)
            torch.cuda.set_device(self._device)
        self._leads = seat.rank == 0
        self._ranks = Ranks(seat)
        self._parts: loading.Parts | None = None
        self._adapters: Adapters | None = None
        self._placement: Placement | None = None
        self._attend: SelfAttention | None = None
        self._shared: Shares | None = None  # the owners of divided weights
        self._made: dict[str, str] = {}  # weights and precision class, on rank 0
        self._fits: object = None  # what the allocator's free blocks were cut for

    @property
    def device_name(self) -> str:
        """The GPU's name, or `cpu`."""
        return _CPU if self._on_cpu else torch.cuda.get_device_name(self._device)

    @property
    def device_uuid(self) -> str | None:
        """The GPU's name that no reordering changes, as NVML writes it; None on the CPU."""
        if self._on_cpu:
            return None
        return f"GPU-{torch.cuda.get_device_properties(self._device).uuid}"

    @property
    def memory_total_bytes(self) -> int | None:
        """The GPU's memory; None on the CPU, where it is everybody's."""
        return None if self._on_cpu else torch.cuda.mem_get_info(self._device)[1]

    def memory_bytes(self) -> int | None:
        """Device memory taken now; None on the CPU. Called from another thread."""
        return None if self._on_cpu else torch.cuda.memory_reserved(self._device)

    def load(self, directory: Path, plan: ParallelPlan, build: Build) -> None:
        """Bring a model to the device, after dropping the one before.

        Raises:
            EngineFault: kind `bad_checkpoint`, when the directory does not hold one; kind
                `bad_input`, when this engine cannot follow the plan.
        """
        mesh = self._ranks.mesh(plan)
        self._parts = self._adapters = self._placement = None
        gc.collect()  # a transformer and what runs its blocks know each other
        self._empty()
        places = [directory, Path(build.vae)] if build.vae else [directory]
        self._made = {"weights": identity(*places), "precision": build.precision}
        self._shared = self._ranks.shares if build.shard_weights or build.shard_text else None
        self._parts = loading.load(
            directory,
            self._device,
            build,
            with_text=self._leads or (build.shard_text and self._shared is not None),
            resting=resting(plan.residency, build),
        )
        self._attend = self._attending(self._parts, build)
        self._made["attention"] = self._attend.name
        self._divide(mesh.sequence)
        self._placement = Placement(self._parts, self._device, build, self._shared)
        self._placement.settle(plan.residency)
        self._adapters = Adapters(
            self._parts.experts,
            self._device,
            Originals(directory, self._parts.high.dtype),
            pin=build.pin_memory,
        )

    def generate(self, order: Order, hooks: Hooks) -> Closing | None:
        """Render one video; every active rank of the plan must call it.

        Returns:
            On rank 0 what closes the file, beside the next job or at once; None on the others.

        Raises:
            Cancelled: when the hook said so. Nothing of the job is left.
            EngineFault: when it cannot be done. Nothing of the job is left.
        """
        assert self._parts, "the parent loads a model before it asks for a video"
        assert self._adapters
        assert self._placement
        mesh = self._ranks.mesh(order.plan)
        schedule = Schedule.of(order.spec)
        _refuse(order, sharded=self._shared is not None)
        self._divide(mesh.sequence)
        job = Job(self._parts, order, mesh, hooks, self._placement)
        self._make_room(order)
        try:
            self._placement.settle(order.plan.residency)
            job.adapt(self._adapters)
            job.save_as(self._made, schedule)
            latents = job.denoise(job.scene(), schedule)
            close = job.write(latents, own=self._made["precision"] != "reference")
            if close is None:
                return None
            kept, peak = latents.cpu(), self._peak()
            return lambda: (close(), job.report(kept, schedule, peak))
        except BaseException:
            self._fits = None
            raise
        finally:
            job.end()
            self._parts.vae.clear_cache()

    def stand_by(self, plan: ParallelPlan) -> None:
        """Take no part in a job of this plan, but meet the others where it joins ranks."""
        self._ranks.mesh(plan)

    def probe(self) -> None:
        """Compute something whose result is known, and reach the other ranks.

        Raises:
            EngineFault: kind `cuda_error` or `collective`, with what is wrong.
        """
        numbers = torch.arange(_PROBE**2, device=self._device).view(_PROBE, _PROBE) % 7
        product = numbers.float() @ numbers.float().T
        right = numbers.cpu().float() @ numbers.cpu().float().T  # small whole numbers: exact
        if not product.cpu().equal(right):
            message = f"{self.device_name} computed a wrong product in its self-test."
            raise EngineFault(FailureKind.CUDA_ERROR, message)
        self._ranks.reach(self._device)

    def close(self) -> None:
        """Leave the group and the device."""
        self._parts = self._adapters = self._placement = None
        self._ranks.leave()

    def _attending(self, parts: loading.Parts, build: Build) -> SelfAttention:
        """Prepare the experts for their class; gives the self-attention that they share."""
        experts = parts.experts.values()
        if build.precision == "reference":
            if build.attention not in ("auto", "native"):
                raise EngineFault(
                    FailureKind.BAD_INPUT,
                    f"Attention '{build.attention}' was asked for with precision reference, which "
                    "attends as diffusers does. Take attention auto, or precision bf16.",
                )
            return divided.install(experts, self._device)
        if self._on_cpu and build.precision.startswith("fp8"):
            raise EngineFault(
                FailureKind.BAD_INPUT,
                f"The precision {build.precision} needs a GPU. Take bf16 or reference on the CPU.",
            )
        return forward.install(experts, build, self._device)

    def _divide(self, sequence: Sequence | None) -> None:
        """Have each expert's tokens divided over these ranks from now on.

        Raises:
            EngineFault: kind `bad_input`, when the attention is of no use in a ring.
        """
        assert self._parts
        assert self._attend
        self._attend.divide(sequence)
        for expert in self._parts.experts.values():
            blocks_of(expert).sequence = sequence

    @property
    def _on_cpu(self) -> bool:
        return self._device.type == _CPU

    def _make_room(self, order: Order) -> None:
        """Give back what was freed, unless this job will take just that; count its peak anew."""
        spec = order.spec
        fits = (spec.width, spec.height, spec.frames, spec.guided, order.cache, order.plan)
        if fits != self._fits:
            self._empty()
        self._fits = fits
        if not self._on_cpu:
            torch.cuda.reset_peak_memory_stats(self._device)

    def _empty(self) -> None:
        if not self._on_cpu:
            torch.cuda.empty_cache()

    def _peak(self) -> int:
        if not self._on_cpu:
            return torch.cuda.max_memory_allocated(self._device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _refuse_absent(device: torch.device) -> None:
    """Say no to a GPU that torch does not see."""
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise EngineFault(
            FailureKind.BAD_INPUT,
            f"The device is {device}, and torch {torch.__version__} sees {count} GPUs here. "
            "Set WANFARM_DEVICE to cpu, or install a torch for this machine's GPUs.",
        )


def _refuse(order: Order, *, sharded: bool) -> None:
    """Say no, on all active ranks alike, to what this engine cannot do."""
    spec, plan = order.spec, order.plan
    if plan.cfg == 2 and not spec.guided:
        raise EngineFault(
            FailureKind.BAD_INPUT,
            f"guidance is {spec.guidance_high}, so there is one branch. Plan it with cfg 1.",
        )
    if sharded and plan.active < plan.ranks:
        raise EngineFault(
            FailureKind.BAD_INPUT,
            f"The weights are divided over {plan.ranks} ranks, and the plan uses {plan.active}. "
            "Turn sharding off, or give the group another number of ranks.",
        )
    if sharded and spec.loras:
        raise EngineFault(
            FailureKind.BAD_INPUT,
            "The weights are divided over the ranks. LoRAs cannot be merged into shares. "
            "Send it without, or turn sharding off.",
        )
