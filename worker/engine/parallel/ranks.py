"""The ranks of a group: who computes what of a video, and everything they tell each other."""

import json
import zlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import FailureKind
from worker.engine.contract import Seat, Word
from worker.engine.faults import EngineFault, fault_of
from worker.engine.parallel.sequence import Sequence
from worker.engine.parallel.shares import Shares
from worker.engine.parallel.strips import Strips
from worker.engine.result import Branch, Decision

_TIMEOUT: Final = timedelta(minutes=10)  # the parent's own limits are shorter and end the ranks
_LINE: Final = 128  # bytes that hold any decision as JSON
_DTYPES: Final = {str(t): t for t in (torch.float32, torch.bfloat16, torch.float16, torch.uint8)}


class Ranks:
    """All ranks of one group; those that render a video together form a mesh."""

    def __init__(self, seat: Seat) -> None:
        """Meet the other ranks; every rank must come.

        Raises:
            EngineFault: kind `collective`, when they do not all come.
        """
        self._seat = seat
        self._groups: dict[tuple[int, ...], Any] = {}  # process groups by their ranks
        if seat.ranks == 1:
            return
        cuda = seat.device.startswith("cuda")
        try:
            dist.init_process_group(
                backend="cpu:gloo,cuda:nccl" if cuda else "gloo",  # words go over gloo
                init_method=seat.rendezvous.absolute().as_uri(),
                rank=seat.rank,
                world_size=seat.ranks,
                timeout=_TIMEOUT,
                device_id=torch.device(seat.device) if cuda else None,
            )
        except (RuntimeError, ValueError) as error:
            raise EngineFault(
                FailureKind.COLLECTIVE, "The ranks of the group did not find each other."
            ) from error
        assert dist.group.WORLD
        self._groups[tuple(range(seat.ranks))] = dist.group.WORLD

    def mesh(self, plan: ParallelPlan) -> "Mesh":
        """Lay the active ranks out as cfg x ring x ulysses, the last innermost.

        Every rank must call it with every plan, also one that stands by (at `plan.active` and
        above): the ranks meet wherever a plan brings some together for the first time.
        """
        cells = torch.arange(plan.active).view(plan.cfg, plan.ring, plan.ulysses)
        active = self._mine(cells.view(1, -1))
        halves = self._mine(cells.flatten(1).T)
        whole = self._mine(cells.flatten(1))
        ulysses = self._mine(cells.flatten(0, 1))
        ring = self._mine(cells.mT.flatten(0, 1))
        sequence = Sequence(whole, ulysses, ring) if whole else None
        return Mesh(self._seat.rank, active, halves, sequence)

    @property
    def shares(self) -> Shares | None:
        """All ranks, as owners of divided weights; None when there is one."""
        seat = self._seat
        return Shares(seat.rank, seat.ranks) if seat.ranks > 1 else None

    def reach(self, device: torch.device) -> None:
        """Add up a one from each rank, on the device; every rank must call it.

        Raises:
            EngineFault: kind `collective`, when the sum is another.
        """
        ones = torch.ones(1, device=device)
        if self._groups:
            dist.all_reduce(ones)
        if ones.item() != self._seat.ranks:
            message = f"{self._seat.ranks} ranks added up to {ones.item():g} in a self-test."
            raise EngineFault(FailureKind.COLLECTIVE, message)

    def leave(self) -> None:
        """Take the group down; harmless when there is none."""
        if self._groups:
            dist.destroy_process_group()
            self._groups = {}

    def _mine(self, rows: Tensor) -> dist.ProcessGroup | None:
        """Bring the ranks of each row together, once; gives this rank's row if it has company."""
        mine: dist.ProcessGroup | None = None
        for row in rows.tolist():
            members = tuple(row)
            if len(members) > 1 and members not in self._groups:
                self._groups[members] = dist.new_group(row)  # all ranks call, in the same order
            if self._seat.rank in members:
                mine = self._groups.get(members)
        return mine


class Mesh:
    """The active ranks of one job: they share its guidance branches, and each branch's tokens."""

    def __init__(
        self,
        rank: int,
        active: dist.ProcessGroup | None,
        halves: dist.ProcessGroup | None,
        sequence: Sequence | None,
    ) -> None:
        """Take this rank's number and its groups.

        Args:
            rank: in the group.
            active: all ranks of the job; None for one.
            halves: the two that hold the same tokens of either branch; None when each rank
                computes both.
            sequence: those that hold tokens of the same branch; None when each holds all.
        """
        self._active = active
        self._halves = halves
        self.sequence = sequence
        self.leads = rank == 0
        second = halves is not None and dist.get_rank(halves) == 1
        self._branch: Branch = "uncond" if second else "cond"

    @property
    def alone(self) -> "Mesh":
        """This rank by itself, for what is not shared out."""
        return Mesh(0 if self.leads else 1, None, None, None)

    def strips(self, rows: int) -> Strips:
        """Share out a picture's rows over the active ranks; each of them must call it."""
        return Strips(self._active, rows)

    def agree(self, ask: Callable[[], Word]) -> Word:
        """Let rank 0 decide for all what comes next; every active rank must call it.

        Args:
            ask: called on rank 0 only.
        """
        word = torch.tensor([int(ask() if self.leads else Word.GO)])
        if self._active is not None:
            dist.broadcast(word, src=0, group=self._active)
        return Word(int(word.item()))

    def share(self, make: Callable[[], list[Tensor]], device: torch.device) -> list[Tensor]:
        """Make tensors on rank 0 and give them to every active rank.

        Raises:
            EngineFault: on all ranks alike, when `make` fails on rank 0, so that none waits.
        """
        if self._active is None:
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
            dist.broadcast(tensor, src=0, group=self._active)
        return made

    def branches(self, predict: Callable[[Branch], Tensor]) -> tuple[Tensor, Tensor]:
        """Compute both guidance branches, one per half of the ranks when there are two.

        Returns:
            The predictions of cond and uncond, equal on all active ranks.
        """
        if self._halves is None:
            return predict("cond"), predict("uncond")
        mine = predict(self._branch).contiguous()
        both = [torch.empty_like(mine), torch.empty_like(mine)]
        dist.all_gather(both, mine, group=self._halves)
        return both[0], both[1]

    def both(self, mine: dict[Branch, Decision]) -> dict[Branch, Decision]:
        """Add what the other branch's ranks have decided; every active rank must call it.

        Args:
            mine: of the branches that this rank computes; empty on all ranks or on none.
        """
        if self._halves is None or not mine:
            return mine
        line = mine[self._branch].model_dump_json().encode().ljust(_LINE)
        word = torch.frombuffer(bytearray(line), dtype=torch.uint8)
        words = [torch.empty_like(word), torch.empty_like(word)]
        dist.all_gather(words, word, group=self._halves)
        cond, uncond = (Decision.model_validate_json(bytes(w.numpy())) for w in words)
        return {"cond": cond, "uncond": uncond}

    def compare(self, decisions: Iterable[Decision]) -> None:
        """Check that all active ranks decided alike; each of them must call it.

        Args:
            decisions: of all forwards of the job, in their order.

        Raises:
            EngineFault: kind `collective`, on all of them, when they differ.
        """
        if self._active is None:
            return
        mark = zlib.crc32("/".join(decision.reason for decision in decisions).encode())
        extremes = torch.tensor([mark, -mark])
        dist.all_reduce(extremes, dist.ReduceOp.MAX, group=self._active)
        if extremes.sum().item() != 0:
            raise EngineFault(
                FailureKind.COLLECTIVE,
                "The ranks of the group did not cache the same steps. The group restarts.",
            )

    def _announce(self, header: dict[str, Any]) -> dict[str, Any]:
        """Send rank 0's header to the others as JSON bytes; returns it on every rank."""
        data = json.dumps(header).encode() if self.leads else b""
        size = torch.tensor([len(data)])
        dist.broadcast(size, src=0, group=self._active)
        body = torch.zeros(int(size.item()), dtype=torch.uint8)
        if self.leads:
            body = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        dist.broadcast(body, src=0, group=self._active)
        return json.loads(bytes(body.numpy()))
