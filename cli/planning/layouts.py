"""Every way to divide a machine's GPUs into equal groups, and why some of them cannot work."""

from collections.abc import Iterator
from dataclasses import dataclass

from cli.planning.gpus import Kind, Machine
from cli.planning.timing import Clock, Estimate, Video
from shared.vocabulary.memory import DoesNotFit, Room, fit, host_bytes, peak_bytes
from shared.vocabulary.plan import ParallelPlan, Precision
from shared.vocabulary.planning import Degrees, plan
from shared.vocabulary.spec import GenerationSpec

_FP8: tuple[int, int] = (8, 9)  # the first capability whose tensor cores have it


@dataclass(frozen=True, slots=True)
class Way:
    """Equal groups, and how each divides one video."""

    groups: int
    degrees: Degrees

    @property
    def shape(self) -> str:
        """Groups by GPUs of each."""
        return f"{self.groups} x {self.degrees.ranks}"

    @property
    def layout(self) -> str:
        """What the GPUs of a group share out: branches, heads (u), laps of a ring (r)."""
        names = {"cfg": self.degrees.cfg, "u": self.degrees.ulysses, "r": self.degrees.ring}
        words = [f"{name}{degree}" for name, degree in names.items() if degree > 1]
        return " x ".join(words) or "one GPU"

    def __str__(self) -> str:
        return f"{self.shape} {self.layout}"


@dataclass(frozen=True, slots=True)
class Working:
    """A way that works: what rests in CPU memory for it, what it takes, and how long."""

    way: Way
    layout: ParallelPlan
    members: tuple[tuple[int, ...], ...]  # the GPUs of each group, by index
    peak_bytes: int  # of each GPU
    host_bytes: int  # of the machine
    estimate: Estimate

    @property
    def videos_per_hour(self) -> float:
        """Of all groups."""
        return self.way.groups * 3600 / self.estimate.seconds

    @property
    def least_per_hour(self) -> float:
        """The same, if each video takes as long as its error allows."""
        return self.way.groups * 3600 / self.estimate.at_worst_s


@dataclass(frozen=True, slots=True)
class Rejected:
    """A way that does not work, and why."""

    way: Way
    reason: str


def ways(count: int) -> list[Way]:
    """Divide so many GPUs into groups of every size that leaves none out, in every layout."""
    return [
        Way(count // ranks, degrees)
        for ranks in range(1, count + 1)
        if count % ranks == 0
        for degrees in _degrees(ranks)
    ]


def judge(way: Way, video: Video, machine: Machine, clock: Clock) -> Working | Rejected:
    """Try a way with the arithmetic that its workers would use."""
    fault = _fault(way, video, machine)
    if fault:
        return Rejected(way, fault)
    layout = plan(video.spec, way.degrees.ranks, way.degrees)
    try:
        layout = fit(video.spec, layout, video.build, video.cache, Room(machine.memory_bytes))
    except DoesNotFit as refused:
        return Rejected(way, str(refused))
    waiting = way.groups * host_bytes(video.spec, layout, video.build)
    if machine.host_bytes and waiting > machine.host_bytes:
        return Rejected(
            way,
            f"{waiting / 1e9:.0f} GB would wait in CPU memory. "
            f"This machine has {machine.host_bytes / 1e9:.0f} GB.",
        )
    return Working(
        way=way,
        layout=layout,
        members=_members(way, machine),
        peak_bytes=peak_bytes(video.spec, layout, video.build, video.cache),
        host_bytes=waiting,
        estimate=clock.estimate(video, layout, machine),
    )


def _degrees(ranks: int) -> Iterator[Degrees]:
    for cfg in (1, 2):
        for ulysses in range(1, ranks // cfg + 1):
            ring, rest = divmod(ranks, cfg * ulysses)
            if not rest:
                yield Degrees(cfg, ulysses, ring)


def _fault(way: Way, video: Video, machine: Machine) -> str | None:
    """Say why a way cannot work, whatever the memory."""
    return (
        way.degrees.fault(video.spec.card, way.degrees.ranks)
        or precision_fault(machine.kind, video.build.precision)
        or _ring_fault(way.degrees, video.build.precision)
        or _share_fault(way.degrees, video.spec)
        or _island_fault(way, machine)
    )


def precision_fault(kind: Kind, precision: Precision) -> str | None:
    """Say why a kind of GPU cannot compute in a class; None when it can."""
    if precision == "fp8_attn" and not kind.is_hopper:
        return f"Precision fp8_attn needs FlashAttention-3. {kind.name} is no Hopper GPU."
    if precision == "fp8" and kind.capability < _FP8:
        return f"Precision fp8 needs tensor cores with fp8. {kind.name} has none."
    return None


def _ring_fault(degrees: Degrees, precision: Precision) -> str | None:
    if degrees.ring > 1 and precision == "fp8_attn":
        return (
            f"ring is {degrees.ring}. Attention in fp8 gives no log-sum-exp to join laps by: "
            "use ulysses, or precision fp8."
        )
    return None


def _share_fault(degrees: Degrees, spec: GenerationSpec) -> str | None:
    """Say which ranks would have nothing to do."""
    shares = degrees.ulysses * degrees.ring
    if spec.tokens < shares:
        return f"{shares} ranks share a branch. The video has {spec.tokens} tokens."
    rows = spec.height // (spec.card.size_multiple // 2)
    if rows < degrees.ranks:
        return f"{degrees.ranks} ranks decode strips. The latents have {rows} rows."
    return None


def _island_fault(way: Way, machine: Machine) -> str | None:
    """Say which ranks that exchange tokens NVLink does not join, if it joins others."""
    shares = way.degrees.ulysses * way.degrees.ring
    if shares == 1 or not machine.islands or not machine.is_linked:
        return None
    for members in _members(way, machine):
        for first in range(0, len(members), shares):
            together = set(members[first : first + shares])
            if not any(together <= set(island) for island in machine.islands):
                names = ", ".join(map(str, sorted(together)))
                return f"GPUs {names} would exchange tokens in every block. No NVLink joins them."
    return None


def _members(way: Way, machine: Machine) -> tuple[tuple[int, ...], ...]:
    """Give each group its GPUs, those of an island next to each other."""
    order = [gpu for island in machine.islands for gpu in island] or list(range(machine.count))
    size = way.degrees.ranks
    return tuple(tuple(order[n : n + size]) for n in range(0, machine.count, size))
