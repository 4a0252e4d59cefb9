"""Where a model's parts are: on the device for good, or in CPU memory with visits to work."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from shared.vocabulary.plan import Build, Residency
from worker.engine.cache.blocks import Blocks
from worker.engine.model.loading import Parts
from worker.engine.model.sharding import Shared, split_text
from worker.engine.model.stream import (
    Away,
    Copier,
    OnHost,
    Packed,
    Streamed,
    host_memory,
    tensors_of,
)
from worker.engine.parallel.shares import Shares
from worker.engine.result import Expert

_FEW: Final = 2  # device slots of a layer-wise stream: one computes while the other is filled


def resting(residency: Residency, build: Build) -> frozenset[str]:
    """Name the parts that loading leaves in CPU memory, as `Parts.modules` does.

    What is to be divided over the ranks waits there too.
    """
    experts = residency.experts or residency.layerwise or build.shard_weights
    names = {"text_encoder": residency.text_encoder or build.shard_text, "vae": residency.vae}
    names |= dict.fromkeys(("high", "low", "single"), experts)
    return frozenset(name for name, rests in names.items() if rests)


class Placement:
    """Moves the parts of one loaded model, and knows which are at home on the device."""

    def __init__(
        self, parts: Parts, device: torch.device, build: Build, shares: Shares | None = None
    ) -> None:
        """Take the parts where loading has put them.

        Args:
            parts: their weights are moved from here on by nobody else; who changes them does so
                between visits.
            device: where parts work.
            build: says whether to pin CPU memory, so that copies run beside the computation, and
                what to divide. Experts that are divided do not go to CPU memory as well.
            shares: the ranks to divide over, if any.
        """
        self.device = device
        self._residency = Residency()
        self._parts = {
            name: Part(module, device, pin=build.pin_memory)
            for name, module in parts.modules.items()
        }
        if shares and build.shard_weights:
            for name in parts.experts:
                self._parts[name].divide(shares)
        if parts.prompts is not None:
            if shares and build.shard_text:
                split_text(parts.prompts.encoder, shares)
                parts.prompts.together = True
            parts.prompts.visit = partial(self.using, "text_encoder")

    def settle(self, residency: Residency) -> None:
        """Follow the plan of a job; between two jobs of one plan nothing moves."""
        self._residency = residency
        away = resting(residency, Build())
        for name in sorted(self._parts, key=away.__contains__, reverse=True):  # first make room
            self._parts[name].settle(rests=name in away)

    @contextlib.contextmanager
    def using(self, name: str) -> Generator[None]:
        """Have a part on the device meanwhile; free when it lives there."""
        with self._parts[name].visit(few_slots=self._residency.layerwise):
            yield

    @contextlib.contextmanager
    def taking_turns(self) -> Generator[Callable[[Expert], None]]:
        """Let experts work by turns: one on the device at a time, none afterwards.

        Yields:
            What is told each step whose turn it is. A new expert's blocks arrive one by one
            beside its first forward, in the memory that the other has left.
        """
        with contextlib.ExitStack() as stay:
            here: list[Expert] = []

            def turn(name: Expert) -> None:
                if here != [name]:
                    stay.close()
                    here[:] = [name]
                    stay.enter_context(self.using(name))

            yield turn


class Part:
    """One module and, while it rests in CPU memory, how it gets to the device and back."""

    def __init__(self, module: nn.Module, device: torch.device, *, pin: bool) -> None:
        """Take the module where it is; one with `Blocks` travels block by block."""
        self._module = module
        self._device = device
        self._pin = pin and device.type == "cuda"
        self._blocks = next((m for m in module.modules() if isinstance(m, Blocks)), None)
        self._copier = Copier(device)
        self._home: Tensor | None = None  # the weights in CPU memory, [n] uint8
        self._rest: OnHost | None = None  # all but the blocks; None at home on the device
        self._away: Sequence[Away] = ()
        self._divided = False

    def divide(self, shares: Shares) -> None:
        """Keep a share of each block on the device, and the rest of the module whole."""
        assert self._blocks
        packs = [Packed(tensors_of(block)) for block in self._blocks.inner]
        self._away = [Shared(packed, shares, self._device) for packed in packs]
        self._module.to(self._device)
        self._divided = True

    def settle(self, *, rests: bool) -> None:
        """Be at home in CPU memory, or on the device."""
        if self._divided:
            return
        if not rests:
            self._module.to(self._device)
            self._rest, self._away, self._home = None, (), None
        elif self._rest is None:
            self._go_home()

    @contextlib.contextmanager
    def visit(self, *, few_slots: bool) -> Generator[None]:
        """Be on the device meanwhile."""
        with contextlib.ExitStack() as leaving:
            if self._rest is not None:
                leaving.callback(self._rest.rest)
                packed = self._rest.packed
                flat = torch.empty(packed.nbytes, dtype=torch.uint8, device=self._device)
                self._rest.fetch(flat)()
                packed.use(flat)
            if self._away:
                assert self._blocks
                stream = Streamed(
                    self._blocks.inner,
                    self._away,
                    self._device,
                    slots=_FEW if few_slots or self._divided else len(self._away),
                    skipped_too=self._divided,
                )
                leaving.callback(stream.close)
                leaving.callback(setattr, self._blocks, "stream", None)
                self._blocks.stream = stream
            yield

    def _go_home(self) -> None:
        """Move to CPU memory."""
        inner = list(self._blocks.inner) if self._blocks else []
        packs = [Packed(tensors_of(block)) for block in inner]
        inside = {id(tensor) for block in inner for tensor in tensors_of(block)}
        rest = Packed(t for t in tensors_of(self._module) if id(t) not in inside)
        sizes = [rest.nbytes, *(packed.nbytes for packed in packs)]
        self._home = host_memory(sum(sizes), pin=self._pin)
        pieces = zip((rest, *packs), self._home.split(sizes), strict=True)
        self._rest, *self._away = [OnHost(packed, piece, self._copier) for packed, piece in pieces]
