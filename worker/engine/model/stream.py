"""Weights on the move: one module's tensors as one stretch of memory, and blocks in few slots."""

import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from itertools import chain, islice
from typing import Final, Protocol

import torch
from torch import Tensor, nn

Wait = Callable[[], None]  # lets the computation go on only when the bytes have arrived
_ALIGNED: Final = 256  # bytes; what CUDA's own allocator promises


class Packed:
    """The tensors of one module, laid out so that all of them move in one copy."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Lay them out; nothing is copied yet."""
        self._tensors = list(tensors)
        self._shapes = [(t.dtype, t.size(), t.stride()) for t in self._tensors]
        self._starts: list[int] = []
        self.nbytes = 0
        for tensor in self._tensors:
            self._starts.append(self.nbytes)
            self.nbytes += -(-_extent(tensor) // _ALIGNED) * _ALIGNED

    def write(self, flat: Tensor) -> None:
        """Copy the values into `flat`, [nbytes] uint8."""
        for tensor, view in zip(self._tensors, self._views(flat), strict=True):
            view.copy_(tensor.detach())

    def use(self, flat: Tensor) -> None:
        """Let the module compute with what `flat` holds, [nbytes] uint8."""
        for tensor, view in zip(self._tensors, self._views(flat), strict=True):
            tensor.data = view

    def empty(self) -> None:
        """Let go of the memory; the module cannot compute until the next `use`."""
        for tensor in self._tensors:
            tensor.data = tensor.new_empty(0)

    def _views(self, flat: Tensor) -> Iterable[Tensor]:
        for start, (dtype, size, stride) in zip(self._starts, self._shapes, strict=True):
            yield flat[start:].view(dtype).as_strided(size, stride)


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Give each parameter and buffer of a module once."""
    return list({id(t): t for t in chain(module.parameters(), module.buffers())}.values())


def host_memory(nbytes: int, *, pin: bool) -> Tensor:
    """CPU memory, [nbytes] uint8; pinned for as long as this very tensor is kept.

    It is pinned in place: torch's own pinned memory comes in powers of two and is never given back.
    """
    memory = torch.empty(nbytes, dtype=torch.uint8)
    if pin:
        cuda = torch.cuda.cudart()
        assert cuda
        torch.cuda.check_error(cuda.cudaHostRegister(memory.data_ptr(), nbytes, 0))
        weakref.finalize(memory, cuda.cudaHostUnregister, memory.data_ptr()).atexit = False
    return memory


class Away(Protocol):
    """Weights that are not on the device, or not whole."""

    packed: Packed
    nbytes: int  # of device memory that a visit takes

    def fetch(self, into: Tensor) -> Wait:
        """Begin to bring the bytes to the device, beside the computation."""
        ...

    def rest(self) -> None:
        """Let the module's tensors be what they are between two visits."""
        ...


class Copier:
    """Copies from CPU memory on a stream of its own; on the CPU, at once."""

    def __init__(self, device: torch.device) -> None:
        """Take the device that is copied to."""
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, into: Tensor, source: Tensor) -> Wait:
        """Copy after all that the computation has been given so far, and before what it waits for.

        Args:
            into: device memory that only earlier work of the computation may still read.
            source: pinned, or the copy is not beside the computation.
        """
        if self._stream is None:
            into.copy_(source)
            return lambda: None
        computing = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(computing)
        with torch.cuda.stream(self._stream):
            into.copy_(source, non_blocking=True)
        return partial(computing.wait_event, self._stream.record_event())


class OnHost:
    """Weights that rest in CPU memory and are copied over; they go back by being dropped."""

    def __init__(self, packed: Packed, home: Tensor, copier: Copier) -> None:
        """Move the weights into `home`, [nbytes] uint8 in CPU memory."""
        self.packed = packed
        self.nbytes = packed.nbytes
        self._home = home
        self._copier = copier
        packed.write(home)
        self.rest()

    def fetch(self, into: Tensor) -> Wait:
        """Copy from CPU memory."""
        return self._copier.start(into, self._home)

    def rest(self) -> None:
        """Use the memory at home; what is changed there comes along with the next fetch."""
        self.packed.use(self._home)


class Streamed:
    """Brings each block into one of a few device slots shortly before its turn."""

    def __init__(
        self,
        inner: nn.ModuleList,
        away: Sequence[Away],
        device: torch.device,
        *,
        slots: int,
        skipped_too: bool = False,
    ) -> None:
        """Take the slots' memory.

        Args:
            inner: the blocks.
            away: where each block's weights are.
            device: where the blocks compute.
            slots: 2 or more; as many as blocks, and each is fetched once.
            skipped_too: fetch blocks that are not run as well. Other ranks may run them, and a
                fetch that is a collective needs all ranks.
        """
        self._inner = inner
        self._away = away
        nbytes = max(one.nbytes for one in away)
        self._free = [torch.empty(nbytes, dtype=torch.uint8, device=device) for _ in range(slots)]
        self._slots = slots
        self._held: dict[int, tuple[Tensor, Wait]] = {}  # by block, the longest held first
        self._skipped_too = skipped_too
        self._next = 0  # the first block that this forward has not fetched

    def through(self, first: int, last: int) -> Generator[nn.Module]:
        """Give blocks `first` to `last - 1` in order; see `blocks.Stream`."""
        if self._skipped_too:
            self._catch_up(first)
        for index in range(first, last):
            # only what surely runs next: after the last block that is block 0 of the next forward
            after = (0,) if last == len(self._inner) and not self._skipped_too else ()
            for coming in islice(chain(range(index, last), after), self._slots):
                self._fetch(coming)
            slot, arrived = self._held[index]
            arrived()
            self._away[index].packed.use(slot)
            yield self._inner[index]

    def close(self) -> None:
        """Let all blocks rest and give the slots' memory back."""
        for index in list(self._held):
            self._evict(index)
        self._free.clear()

    def _catch_up(self, first: int) -> None:
        if first == 0:
            self._next = 0
        for skipped in range(self._next, first):
            self._fetch(skipped)

    def _fetch(self, index: int) -> None:
        """Have a block in a slot, or on its way there, and count it as the one held last."""
        self._next = max(self._next, index + 1)
        if index in self._held:
            self._held[index] = self._held.pop(index)
            return
        if not self._free:
            self._evict(next(iter(self._held)))
        away, slot = self._away[index], self._free.pop()
        self._held[index] = slot, away.fetch(slot[: away.nbytes])

    def _evict(self, index: int) -> None:
        slot, arrived = self._held.pop(index)
        arrived()  # it may never have been used
        self._away[index].rest()
        self._free.append(slot)


def _extent(tensor: Tensor) -> int:
    """Bytes from a tensor's first to its last element."""
    if tensor.numel() == 0:
        return 0
    last = sum((n - 1) * step for n, step in zip(tensor.size(), tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()
