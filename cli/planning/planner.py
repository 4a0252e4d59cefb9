"""From what is asked to a plan: every way that works, in order, and every other with its reason."""

import importlib.metadata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from cli.client import Exit, FarmError
from cli.planning.compose import compose
from cli.planning.gpus import Machine
from cli.planning.layouts import Rejected, Working, judge, ways
from cli.planning.ranking import OBJECTIVES, Objective, ranked, why
from cli.planning.records import Records
from cli.planning.timing import Clock, Video, usual
from shared.vocabulary.cache_levels import CacheEnvironment, settle
from shared.vocabulary.catalog import find_model
from shared.vocabulary.errors import RequestRejected
from shared.vocabulary.plan import Build, Precision
from shared.vocabulary.request import VideoRequest
from shared.vocabulary.resolve import resolve
from shared.vocabulary.validation import validate

Json = dict[str, Any]
_VIDEO: Final = ("model", "size", "frames", "steps", "quality")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of a plan."""

    gpus: str | None  # as written; None: those of this machine
    model: str
    size: str | None
    frames: int | None
    steps: int | None
    quality: str
    objective: Objective
    precision: Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What came of it."""

    version: str
    wish: Wish
    machine: Machine
    records: str  # their fingerprint
    video: Video
    working: tuple[Working, ...]  # the best first
    rejected: tuple[Rejected, ...]
    notes: tuple[str, ...]

    @property
    def best_for(self) -> dict[Objective, Working]:
        """The first by each objective."""
        return {name: ranked(self.working, name)[0] for name in OBJECTIVES if self.working}

    @property
    def inputs(self) -> str:
        """What it was made from, in one line that makes it again."""
        spec, wish = self.video.spec, self.wish
        words = {
            "gpus": str(self.machine),
            "model": spec.model,
            "size": f"{spec.width}x{spec.height}",
            "frames": spec.frames,
            "steps": spec.steps,
            "quality": wish.quality,
            "precision": wish.precision,
            "objective": wish.objective,
        }
        options = " ".join(f"--{name} {value}" for name, value in words.items())
        whence = "" if wish.gpus else "; the GPUs as their driver told"
        return f"{options}; records {self.records}{whence}"

    def compose(self, name: str) -> str:
        """Write the compose file of the best way, to be called `name`."""
        return compose(
            self.working[0],
            self.video,
            self.machine.uuids,
            name=name,
            inputs=self.inputs,
            version=self.version,
        )

    def to_json(self) -> Json:
        """Everything, as one object."""
        spec = self.video.spec
        return {
            "object": "plan",
            "version": self.version,
            "inputs": asdict(self.wish) | {"gpus": str(self.machine), "records": self.records},
            "video": {
                "model": spec.model,
                "size": f"{spec.width}x{spec.height}",
                "frames": spec.frames,
                "steps": spec.steps,
                "cached": self.video.cache is not None,
            },
            "layouts": [_layout(one) for one in self.working],
            "rejected": [_way(one) | {"reason": one.reason} for one in self.rejected],
            "best_for": {name: _way(one) for name, one in self.best_for.items()},
            "notes": list(self.notes),
        }


def make(wish: Wish, machine: Machine, records: Records) -> Plan:
    """Plan a machine.

    Raises:
        FarmError: when the video cannot be one of the model.
    """
    video, warnings = video_of(wish)
    clock = Clock(records)
    judged = [judge(way, video, machine, clock) for way in ways(machine.count)]
    working = ranked([one for one in judged if isinstance(one, Working)], wish.objective)
    return Plan(
        version=importlib.metadata.version("wanfarm"),
        wish=wish,
        machine=machine,
        records=records.fingerprint,
        video=video,
        working=tuple(working),
        rejected=tuple(one for one in judged if isinstance(one, Rejected)),
        notes=(*warnings, *_notes(wish, machine, working)),
    )


def video_of(wish: Wish) -> tuple[Video, list[str]]:
    """Settle the video by the rules that a request meets; also gives what its sender would be told.

    Raises:
        FarmError: with every fault.
    """
    model = find_model(wish.model)
    fields = {name: getattr(wish, name) for name in _VIDEO if getattr(wish, name) is not None}
    if wish.size == "auto":
        raise FarmError(
            Exit.USAGE, "size is 'auto'. A plan has no image to follow. Write it as WxH."
        )
    image = None
    if model is not None:
        fields.setdefault("size", str(model.native_sizes[0]))
        image = usual(model).image
    try:
        request = validate(VideoRequest, {"prompt": "-", "seed": 0} | fields, lax=False)
        resolved = resolve(
            request, default_text_model=wish.model, default_image_model=wish.model, image=image
        )
    except RequestRejected as err:
        faults = [fault.message for fault in err.faults]
        raise FarmError(Exit.USAGE, faults[0], details=faults[1:]) from err
    spec = resolved.spec
    settled = settle(spec.cache, CacheEnvironment(), spec.card)
    build = Build(precision=wish.precision)
    video = Video(spec, build, settled.policies if settled else None)
    return video, [warning["message"] for warning in resolved.warnings]


def _notes(wish: Wish, machine: Machine, working: list[Working]) -> Iterator[str]:
    """What to know before one believes it."""
    if wish.quality == "high":
        yield "quality high plans as standard does: a group caches nothing unless it is told to."
    if wish.precision.startswith("fp8"):
        yield f"Precision {wish.precision} is experimental: nobody has graded its pictures."
    if machine.count > 1 and machine.is_linked and not machine.islands:
        yield "NVLink is taken to join all GPUs; on the machine itself, plan without --gpus."
    if len(working) > 1:
        yield f"1 before 2: {why(*working[:2])}."
    if working and working[0].host_bytes:
        gb = working[0].host_bytes / 1e9
        yield f"Plan 1 keeps {gb:.0f} GB pinned in CPU memory."


def _layout(one: Working) -> Json:
    rests = one.layout.residency.model_dump()
    estimate = one.estimate
    return _way(one) | {
        "gpus": [list(members) for members in one.members],
        "in_cpu_memory": [name for name, is_away in rests.items() if is_away],
        "peak_bytes": one.peak_bytes,
        "host_bytes": one.host_bytes,
        "seconds": round(estimate.seconds, 1),
        "videos_per_hour": round(one.videos_per_hour, 2),
        "basis": estimate.basis,
        "error": round(estimate.error, 3),
        "source": estimate.source,
    }


def _way(one: Working | Rejected) -> Json:
    return {"groups": one.way.groups, "ranks": one.way.degrees.ranks} | one.way.degrees._asdict()
