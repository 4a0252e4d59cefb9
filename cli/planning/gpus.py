"""The kinds of GPU that a plan knows, by their makers' data sheets, and what a machine has."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cli.client import Exit, FarmError

_ASKED: Final = re.compile(r"([1-9]\d?)x([A-Za-z0-9-]+)")
_MOST: Final = 64  # as WANFARM_RANKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of GPU. Rates are those of its data sheet: dense, one way, in 10^9 or 10^12."""

    name: str
    reported: tuple[str, ...]  # what its driver calls it
    memory_bytes: int
    bf16_tflops: float
    capability: tuple[int, int]
    nvlink_gb_s: float | None  # None: its GPUs meet over PCIe
    pcie_gb_s: float
    sheet: str

    @property
    def is_hopper(self) -> bool:
        """Tell whether FlashAttention-3 runs on it."""
        return self.capability[0] == 9


_ALL: Final = (
    Kind(
        name="H100-80G",
        reported=("NVIDIA H100 80GB HBM3",),
        memory_bytes=80 * 10**9,
        bf16_tflops=989,
        capability=(9, 0),
        nvlink_gb_s=450,
        pcie_gb_s=64,
        sheet="NVIDIA H100 Tensor Core GPU data sheet, SXM",
    ),
    Kind(
        name="H200-141G",
        reported=("NVIDIA H200",),
        memory_bytes=141 * 10**9,
        bf16_tflops=989,
        capability=(9, 0),
        nvlink_gb_s=450,
        pcie_gb_s=64,
        sheet="NVIDIA H200 Tensor Core GPU data sheet, SXM",
    ),
    Kind(
        name="RTX4090-24G",
        reported=("NVIDIA GeForce RTX 4090",),
        memory_bytes=24 * 10**9,
        bf16_tflops=165,
        capability=(8, 9),
        nvlink_gb_s=None,
        pcie_gb_s=32,
        sheet="NVIDIA Ada GPU architecture white paper, accumulating in fp32",
    ),
    Kind(
        name="L40S-48G",
        reported=("NVIDIA L40S",),
        memory_bytes=48 * 10**9,
        bf16_tflops=362,
        capability=(8, 9),
        nvlink_gb_s=None,
        pcie_gb_s=32,
        sheet="NVIDIA L40S data sheet",
    ),
    Kind(
        name="A100-80G",
        reported=("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
        memory_bytes=80 * 10**9,
        bf16_tflops=312,
        capability=(8, 0),
        nvlink_gb_s=300,
        pcie_gb_s=32,
        sheet="NVIDIA A100 Tensor Core GPU data sheet",
    ),
)
KINDS: Final = MappingProxyType({kind.name: kind for kind in _ALL})
_BY_REPORT: Final = MappingProxyType({name: kind for kind in _ALL for name in kind.reported})


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The GPUs of one host, in the order of their indices."""

    kind: Kind
    count: int
    memory_bytes: int  # of the smallest, for programs
    uuids: tuple[str, ...] = ()  # empty where no driver was asked
    islands: tuple[tuple[int, ...], ...] = ()  # joined by NVLink; empty where it is not known
    host_bytes: int | None = None  # CPU memory; None where it is not known

    @property
    def is_linked(self) -> bool:
        """Tell whether NVLink joins its GPUs, or some of them."""
        if self.islands:
            return any(len(island) > 1 for island in self.islands)
        return self.kind.nvlink_gb_s is not None

    def __str__(self) -> str:
        return f"{self.count}x{self.kind.name}"


def kind_of(reported: str) -> Kind | None:
    """Find a kind by what a driver calls it."""
    return _BY_REPORT.get(reported)


def machine_of(asked: str) -> Machine:
    """Read `8xH100-80G`: so many of one kind, with the memory of its data sheet.

    Raises:
        FarmError: when it cannot be read, or the kind is not known.
    """
    match = _ASKED.fullmatch(asked)
    if match is None or int(match[1]) > _MOST:
        raise FarmError(
            Exit.USAGE,
            f"--gpus is '{asked}'. It reads as a number up to {_MOST} and a kind. "
            "Write 8xH100-80G, for example.",
        )
    by_name = {name.lower(): kind for name, kind in KINDS.items()}
    kind = by_name.get(match[2].lower())
    if kind is None:
        raise FarmError(Exit.USAGE, f"--gpus is '{asked}'. That kind is not known. {_known(KINDS)}")
    return Machine(kind=kind, count=int(match[1]), memory_bytes=kind.memory_bytes)


def one_kind(reported: Iterable[str]) -> Kind:
    """Find the one kind that all GPUs of a machine are.

    Raises:
        FarmError: when they differ, or are of a kind that is not known.
    """
    names = sorted(set(reported))
    if len(names) > 1:
        raise FarmError(
            Exit.BLOCKED,
            f"The GPUs here are {' and '.join(names)}. A plan is for GPUs of one kind. "
            "Plan each kind apart by --gpus.",
        )
    kind = kind_of(names[0])
    if kind is None:
        raise FarmError(
            Exit.BLOCKED,
            f"The GPUs here are {names[0]}. How fast they are is not known. "
            f"Name the nearest kind by --gpus. {_known(KINDS)}",
        )
    return kind


def _known(kinds: Iterable[str]) -> str:
    return f"Known are {', '.join(kinds)}."
