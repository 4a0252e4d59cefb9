"""How long a video takes on a layout, and what that rests on: a record, several, or a formula."""

import itertools
from dataclasses import dataclass
from typing import Final, NamedTuple

from cli.planning.gpus import KINDS, Kind, Machine
from cli.planning.records import Measured, Records, What, belongs
from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.catalog import MODELS, Model
from shared.vocabulary.memory import expert_bytes
from shared.vocabulary.plan import Build, ParallelPlan, Precision
from shared.vocabulary.planning import plan
from shared.vocabulary.runtime import UNSURE, Basis, work_of
from shared.vocabulary.spec import GenerationSpec, ImageRef

_BASE: Final = KINDS["H100-80G"]  # what kinds without records are compared with
_BASE_MODEL: Final = MODELS["wan2.2-t2v-a14b"]
_OTHERWISE: Final = UNSURE[1] - 1  # relative error of what other machines or models tell
# Relative error of a formula: 8 ranks are 87 to 91% as good as 8 times one by the one for
# exchanges, and 79 to 84% by Wan2.2's repository, which divides the weights too.
_FORMULA: Final = 0.15
_CLOSING_S: Final = 0.5  # x264 with the last pictures, in every job on record
_BUS_SHARE: Final = 0.8  # of its data sheet: 50 GB/s where that says 64
_BF16: Final = 2
_FORWARDS: Final[dict[Precision, str]] = {
    "reference": "diffusers eager",
    "bf16": "bf16",
    "fp8": "fp8",
    "fp8_attn": "fp8_attn",
}
_ALONE: Final = "1 rank"


@dataclass(frozen=True, slots=True)
class Video:
    """What is rendered, again and again."""

    spec: GenerationSpec
    build: Build
    cache: CachePolicies | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a video takes."""

    seconds: float
    basis: Basis
    error: float  # relative; 0 of what was measured
    source: str

    @property
    def at_worst_s(self) -> float:
        """The seconds with the error on top: what a guess has to be judged by."""
        return self.seconds * (1 + self.error)


class _Part(NamedTuple):
    """One part of a video's time."""

    seconds: float
    error: float  # relative, of the whole, by what is not on record as it is asked for
    sources: tuple[str, ...]
    is_prior: bool


class Clock:
    """Estimates from what is on record."""

    def __init__(self, records: Records) -> None:
        """Take the records, and see how far their parts are from the whole jobs among them."""
        self._records = records
        jobs = [one for one in records.figures if one.what == "job" and one.way in _FORWARDS]
        self.composed_error = max((self._held_out(job) for job in jobs), default=_OTHERWISE)

    def estimate(self, video: Video, layout: ParallelPlan, machine: Machine) -> Estimate:
        """Tell what a video takes: as it was measured, else put together from its parts."""
        job = self._measured(video, layout, machine.kind)
        if job:
            return Estimate(job.seconds, "measured", 0.0, job.file)
        parts = self._parts(video, layout, machine)
        files = dict.fromkeys(source for part in parts for source in part.sources)
        return Estimate(
            seconds=sum(part.seconds for part in parts),
            basis="prior" if any(part.is_prior for part in parts) else "interpolated",
            error=self.composed_error + max(part.error for part in parts),
            source=", ".join(files),
        )

    def _measured(self, video: Video, layout: ParallelPlan, kind: Kind) -> Measured | None:
        """The whole job of just this video on just this layout."""
        spec = video.spec
        kept = layout.residency.model_copy(update={"text_encoder": False})
        by_itself = plan(spec, layout.ranks).model_copy(update={"residency": layout.residency})
        if video.cache or any(kept.model_dump().values()) or layout != by_itself:
            return None
        wanted = (spec.model, spec.width, spec.height, spec.frames, spec.steps, layout.active)
        for one in self._records.of("job", kind.name, video.build.precision):
            if wanted == (one.model, one.width, one.height, one.frames, one.steps, one.ranks):
                return one
        return None

    def _held_out(self, job: Measured) -> float:
        """How far a whole job is from what its parts tell."""
        kind = KINDS[job.gpu]
        build = Build.model_validate({"precision": job.way})
        spec = _shaped(job, usual(MODELS[job.model])).model_copy(update={"steps": job.steps})
        machine = Machine(kind=kind, count=job.ranks, memory_bytes=kind.memory_bytes)
        parts = self._parts(Video(spec, build, None), plan(spec, job.ranks), machine)
        return abs(sum(part.seconds for part in parts) / job.seconds - 1)

    def _parts(self, video: Video, layout: ParallelPlan, machine: Machine) -> tuple[_Part, ...]:
        forwards = work_of(video.spec, 1, "").forwards / layout.cfg
        forward = self._forward(video, layout, machine)
        exchange = self._exchange(video.spec, layout, machine)
        streaming = _streaming(video, layout, machine.kind, forward.seconds)
        steps = [
            part._replace(seconds=part.seconds * forwards)
            for part in (forward, exchange, streaming)
        ]
        decode = self._decode(video, layout, machine.kind)
        return *steps, decode, _moving(video, layout, machine.kind)

    def _forward(self, video: Video, layout: ParallelPlan, machine: Machine) -> _Part:
        """One branch of one step on a rank, its tokens divided over the ranks of the sequence."""
        way, kind = _FORWARDS[video.build.precision], machine.kind
        found, gpu, model = self._known("forward", kind, video.spec.card, way)
        units = _units(video.spec)
        base = video.spec if model is video.spec.card else usual(model)
        one = min(found, key=lambda one: abs(_units(_shaped(one, base)) - units))
        known = _units(_shaped(one, base))
        weight = video.spec.card.expert_parameters / model.expert_parameters
        seconds = one.seconds * units / known * weight * gpu.bf16_tflops / kind.bf16_tflops
        error = 0.0 if known == units else self._shape_error(gpu, way)
        part = self._told(one, kind, gpu, video.spec.card, model)
        divided = seconds / (layout.ulysses * layout.ring)
        part = part._replace(seconds=divided, error=part.error + error)
        return self._cached(part, video)

    def _cached(self, part: _Part, video: Video) -> _Part:
        """The same, if as many steps are cached as on the miniature; at worst none is."""
        if video.cache is None:
            return part
        beyond = 1 - video.cache.high.fn / video.spec.card.blocks
        left = 1 - self._records.fast_cached_ratio * beyond
        sources = (*part.sources, "the miniature's share of cached steps (cache.json)")
        return _Part(part.seconds * left, part.error + 1 / left - 1, sources, is_prior=True)

    def _exchange(self, spec: GenerationSpec, layout: ParallelPlan, machine: Machine) -> _Part:
        """What a forward waits for tokens and heads on their way to other ranks."""
        u, r = layout.ulysses, layout.ring
        whole = _states_bytes(spec) * spec.card.blocks
        # of the whole states: queries, keys, values and the result; keys and values lap by lap
        moved = {
            "ulysses 2": whole * 4 * (u - 1) / (u * u * r),
            "ring 2": whole * 2 * (r - 1) / (u * r),
        }
        parts = [self._moved(n, way, spec.card, machine) for way, n in moved.items() if n]
        if not parts:
            return _Part(0, 0, (), is_prior=False)
        beyond = layout.active > 2  # nothing on record has more than two GPUs
        sources = tuple(source for part in parts for source in part.sources)
        return _Part(
            seconds=sum(part.seconds for part in parts),
            error=max(part.error for part in parts) + _FORMULA * beyond,
            sources=(*sources, *["more than 2 GPUs by formula"] * beyond),
            is_prior=beyond or any(part.is_prior for part in parts),
        )

    def _moved(self, moved: float, way: str, card: Model, machine: Machine) -> _Part:
        """Some bytes at the rate at which two ranks exchanged theirs."""
        kind = machine.kind
        found, gpu, model = self._known("step", kind, card, way)
        one = found[0]
        alone = next(
            alone
            for alone in self._records.of("step", gpu.name, _ALONE)
            if (alone.file, alone.model) == (one.file, one.model)
        )
        # of a step's two forwards: half of them computed by each rank, and what is left
        waited = one.seconds / 2 - alone.seconds / 4
        rate = _states_bytes(_shaped(one, usual(model))) * model.blocks / waited
        part = self._told(one, kind, gpu, card, model)
        if not machine.is_linked:
            slow_s = moved / rate + moved / (_BUS_SHARE * kind.pcie_gb_s * 1e9)
            sources = (*part.sources, "PCIe rate of the data sheet")
            return _Part(slow_s, _OTHERWISE, sources, is_prior=True)
        assert gpu.nvlink_gb_s
        assert kind.nvlink_gb_s
        return part._replace(seconds=moved / (rate * kind.nvlink_gb_s / gpu.nvlink_gb_s))

    def _decode(self, video: Video, layout: ParallelPlan, kind: Kind) -> _Part:
        """What comes after the last step: the decode in strips, and the file."""
        spec, reference = video.spec, video.build.precision == "reference"
        found, gpu, model = self._known(
            "decode", kind, spec.card, "diffusers" if reference else "ours"
        )
        one = found[0]
        pixels = spec.width * spec.height * spec.frames / (one.width * one.height * one.frames)
        seconds = one.seconds * pixels * gpu.bf16_tflops / kind.bf16_tflops
        shared = 1 if reference else layout.active
        part = self._told(one, kind, gpu, spec.card, model)
        return part._replace(seconds=seconds / shared + _CLOSING_S, error=0.0)

    def _known(
        self, what: What, kind: Kind, card: Model, way: str
    ) -> tuple[list[Measured], Kind, Model]:
        """The figures that are nearest to a kind and a model, and whose they are."""
        for gpu, model in ((kind, card), (_BASE, card), (_BASE, _BASE_MODEL)):
            found = [one for one in self._records.of(what, gpu.name, way) if belongs(one, model)]
            if found:
                return found, gpu, model
        raise AssertionError(f"no {what} in {way} is on record")

    def _told(self, one: Measured, kind: Kind, gpu: Kind, card: Model, model: Model) -> _Part:
        """What a figure says of itself, where it is another kind's or another model's too."""
        sources = [one.file]
        if gpu is not kind:
            sources.append(f"bf16 rates of {gpu.name} and {kind.name} ({gpu.sheet}; {kind.sheet})")
        if model is not card:
            sources.append(f"parameters of {model.id} and {card.id}")
        is_other = len(sources) > 1
        return _Part(0, _OTHERWISE * is_other, tuple(sources), is_prior=is_other)

    def _shape_error(self, kind: Kind, way: str) -> float:
        """How far a forward of another shape is from what its work tells, where both are known."""
        errors = [_OTHERWISE]
        figures = self._records.of("forward", kind.name, way)
        for one, other in itertools.permutations(figures, 2):
            if one.model == other.model:
                card = next(card for card in MODELS.values() if belongs(one, card))
                a, b = (_units(_shaped(each, usual(card))) for each in (one, other))
                errors.append(abs(one.seconds * b / a / other.seconds - 1))
        return max(errors[1:] or errors)


def usual(card: Model) -> GenerationSpec:
    """A model's own video."""
    size = card.native_sizes[0]
    image = ImageRef(sha256="0" * 64, width=1, height=1) if card.needs_image else None
    given = {"model": card.id, "prompt": "-", "seed": 0, "image": image}
    return GenerationSpec.model_validate(given | {"width": size.width, "height": size.height})


def _shaped(one: Measured, spec: GenerationSpec) -> GenerationSpec:
    shape = {"width": one.width, "height": one.height, "frames": one.frames}
    return spec.model_copy(update=shape)


def _units(spec: GenerationSpec) -> float:
    """What the time of one forward is proportional to."""
    work = work_of(spec, 1, "")
    return work.units / work.forwards


def _states_bytes(spec: GenerationSpec) -> int:
    """The hidden states of a whole sequence in bf16."""
    return spec.tokens * spec.card.width * _BF16


def _streaming(video: Video, layout: ParallelPlan, kind: Kind, computed_s: float) -> _Part:
    """What a forward waits for blocks that do not come in as fast as they are computed."""
    if not layout.residency.layerwise:
        return _Part(0, 0, (), is_prior=False)
    copied_s = expert_bytes(video.spec, video.build) / (_BUS_SHARE * kind.pcie_gb_s * 1e9)
    return _Part(
        seconds=max(0.0, copied_s - computed_s),
        error=_FORMULA,
        sources=("blocks streamed at the PCIe rate of the data sheet",),
        is_prior=True,
    )


def _moving(video: Video, layout: ParallelPlan, kind: Kind) -> _Part:
    """What a job waits for parts that rest in CPU memory, if nothing hides it."""
    card, rests = video.spec.card, layout.residency
    rate = _BUS_SHARE * kind.pcie_gb_s * 1e9
    text_s = card.text_parameters * _BF16 / rate if rests.text_encoder else 0.0
    if not rests.experts or rests.layerwise:
        return _Part(text_s, 0, (), is_prior=False)
    experts_s = card.experts * expert_bytes(video.spec, video.build) / rate
    sources = ("experts moved at the PCIe rate of the data sheet",)
    return _Part(text_s + experts_s, 0, sources, is_prior=True)
