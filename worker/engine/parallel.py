"""The ranks of a group: who computes which branch, and everything they tell each other."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from shared.vocabulary.spec import FailureKind, ParallelPlan
from worker.engine.contract import Seat
from worker.engine.faults import EngineFault, fault_of
from worker.engine.result import Branch

_TIMEOUT: Final = timedelta(minutes=10)  # the parent's own limits are shorter and end the ranks
_DTYPES: Final = {str(t): t for t in (torch.float32, torch.bfloat16, torch.float16)}


class Ranks:
    """All ranks of one group; those that share a video's branches form a mesh."""

    def __init__(self, seat: Seat) -> None:
        """Meet the other ranks; every rank must come.

        Raises:
            EngineFault: kind `collective`, when they do not all come.
        """
        self._seat = seat
        self._pair: Any = None  # a process group once the ranks have met
        if seat.ranks == 1:
            return
        cuda = seat.device.startswith("cuda")
        try:
            dist.init_process_group(
                backend="cpu:gloo,cuda:nccl" if cuda else "gloo",
                init_method=seat.rendezvous.absolute().as_uri(),
                rank=seat.rank,
                world_size=seat.ranks,
                timeout=_TIMEOUT,
                device_id=torch.device(seat.device) if cuda else None,
            )
            self._pair = dist.new_group([0, 1])  # called by all ranks, also those that stay out
        except (RuntimeError, ValueError) as error:
            raise EngineFault(
                FailureKind.COLLECTIVE, "The ranks of the group did not find each other."
            ) from error

    def mesh(self, plan: ParallelPlan) -> "Mesh":
        """Give the active ranks of one job; ranks at `plan.active` and above stand by.

        Raises:
            EngineFault: kind `bad_input`, when the plan asks for what this engine cannot do.
        """
        if plan.ulysses * plan.ring > 1:
            raise EngineFault(
                FailureKind.BAD_INPUT,
                f"The plan splits the sequence over {plan.ulysses * plan.ring} ranks. "
                "This engine splits the guidance branches only. Use cfg 2 or one rank.",
            )
        return Mesh(self._seat.rank, self._pair if plan.cfg == 2 else None)

    def leave(self) -> None:
        """Take the group down; harmless when there is none."""
        if self._pair is not None:
            dist.destroy_process_group()
            self._pair = None


class Mesh:
    """The active ranks of one job: one, or a pair with one guidance branch each."""

    def __init__(self, rank: int, pair: dist.ProcessGroup | None) -> None:
        """Take this rank's number and, for a pair, its process group."""
        self._pair = pair
        self.leads = rank == 0
        self._branch: Branch = "cond" if rank == 0 else "uncond"

    @property
    def paired(self) -> bool:
        """Tell whether two ranks compute together."""
        return self._pair is not None

    def agree(self, *, stop: Callable[[], bool]) -> bool:
        """Let rank 0 decide for all whether to stop; every active rank must call it.

        Args:
            stop: asked on rank 0 only.
        """
        word = torch.tensor([int(self.leads and stop())])
        if self._pair is not None:
            dist.broadcast(word, src=0, group=self._pair)
        return bool(word.item())

    def share(self, make: Callable[[], list[Tensor]], device: torch.device) -> list[Tensor]:
        """Make tensors on rank 0 and give them to every active rank.

        Raises:
            EngineFault: on all ranks alike, when `make` fails on rank 0, so that none waits.
        """
        if self._pair is None:
            return make()
        made: list[Tensor] = []
        header: dict[str, Any] = {}
        try:
            made = [tensor.contiguous() for tensor in make()] if self.leads else []
            header = {"tensors": [[str(t.dtype), list(t.shape)] for t in made]}
        except Exception as error:
            fault = fault_of(error)
            header = {"kind": fault.kind, "message": fault.message}
            self._announce(header)
            raise
        header = self._announce(header)
        if "kind" in header:
            raise EngineFault(FailureKind(header["kind"]), header["message"])
        if not self.leads:
            made = [
                torch.empty(shape, dtype=_DTYPES[dtype], device=device)
                for dtype, shape in header["tensors"]
            ]
        for tensor in made:
            dist.broadcast(tensor, src=0, group=self._pair)
        return made

    def branches(self, predict: Callable[[Branch], Tensor]) -> tuple[Tensor, Tensor]:
        """Compute both guidance branches, one per rank when there are two.

        Returns:
            The predictions of cond and uncond, equal on all active ranks.
        """
        if self._pair is None:
            return predict("cond"), predict("uncond")
        mine = predict(self._branch).contiguous()
        both = [torch.empty_like(mine), torch.empty_like(mine)]
        dist.all_gather(both, mine, group=self._pair)
        return both[0], both[1]

    def _announce(self, header: dict[str, Any]) -> dict[str, Any]:
        """Send rank 0's header to the others as JSON bytes; returns it on every rank."""
        data = json.dumps(header).encode() if self.leads else b""
        size = torch.tensor([len(data)])
        dist.broadcast(size, src=0, group=self._pair)
        body = torch.zeros(int(size.item()), dtype=torch.uint8)
        if self.leads:
            body = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        dist.broadcast(body, src=0, group=self._pair)
        return json.loads(bytes(body.numpy()))
