"""How a group lays itself out: what its engine is built for, and where a job's parts have room."""

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.jobs.ledger import Values
from shared.machinery.settings import Settings
from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.cache_levels import Settled, settle
from shared.vocabulary.catalog import Model
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.memory import LADDER, DoesNotFit, Room, fit
from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.planning import degrees_of, plan
from shared.vocabulary.spec import FailureKind, GenerationSpec, ImageRef
from worker.ranks.faults import RankFault
from worker.ranks.group import Layout, RankGroup
from worker.ranks.messages import Hello

_PATIENCE: Final = 0.8  # of the lease; the parent itself stops its ranks at 0.7


def build_of(settings: Settings) -> Build:
    """Tell what the settings want an engine to be made for."""
    auto = "bf16" if settings.device == "cuda" else "reference"
    return Build(
        precision=auto if settings.precision == "auto" else settings.precision,
        attention=settings.attention,
        pin_memory=settings.pin_cpu_memory,
        shard_weights=settings.shard_weights,
        shard_text=settings.shard_text,
        vae=str(settings.vae_path) if settings.vae_path else None,
        vae_dtype=settings.vae_dtype,
        prompt_cache_bytes=settings.prompt_cache_mb * 2**20,
    )


def group_of(settings: Settings, *inherit: int, sign: Path | None = None) -> RankGroup:
    """Prepare the ranks that the settings ask for.

    Args:
        settings: of the worker.
        inherit: file descriptors that they keep open.
        sign: a file that their parent touches while it lives. Without a touch they end before the
            lease does: a parent that is stopped cannot tell them to.
    """
    patience_s = _PATIENCE * settings.lease_s
    words = ("--sign", str(sign), "--patience", str(patience_s)) if sign else ()
    return RankGroup(
        Layout(
            ranks=settings.ranks,
            device=settings.device,
            engine=settings.engine,
            start_s=settings.rank_start_s,
            load_s=settings.load_s,
            hang_s=settings.hang_s,
            inherit=inherit,
            words=words,
        )
    )


def cache_of(spec: GenerationSpec, settings: Settings) -> Settled | None:
    """Settle what a request leaves open by this group's own environment.

    Raises:
        RankFault: of kind `bad_input`, when the two do not go together.
    """
    settled = settle(spec.cache, settings.cache, spec.card)
    for fault in settled.faults(spec.card) if settled else ():
        raise RankFault(JobFailure(FailureKind.BAD_INPUT, fault.message))
    return settled


def room_of(settings: Settings, ranks: Sequence[Hello]) -> Room:
    """Tell what the ranks' cards offer, and which parts the settings place."""
    cards = [rank.memory_total_bytes for rank in ranks if rank.memory_total_bytes]
    switches = {
        "text_encoder": settings.offload_text_encoder,
        "experts": settings.offload_dit,
        "vae": settings.offload_vae,
        "layerwise": settings.offload_layerwise,
    }
    forced = {name: switch == "on" for name, switch in switches.items() if switch != "auto"}
    return Room(min(cards, default=None), forced)


def made_by(ranks: Sequence[Hello]) -> Values:
    """Tell what a group renders with, for the record of a video."""
    ours = {"wanfarm": importlib.metadata.version("wanfarm"), "python": platform.python_version()}
    return {
        "software": ours | ranks[0].software,
        "gpu": {"type": ranks[0].device, "count": len(ranks)},
    }


def lay_out(
    spec: GenerationSpec,
    settings: Settings,
    ranks: Sequence[Hello],
    cache: CachePolicies | None,
    rungs_down: int,
) -> ParallelPlan:
    """Plan one attempt; see `memory.fit`.

    Raises:
        RankFault: kind `does_not_fit`, when the video is too large for the group.
    """
    layout = plan(spec, settings.ranks, degrees_of(settings.parallel))
    room = room_of(settings, ranks)
    try:
        return fit(spec, layout, build_of(settings), cache, room, rungs_down)
    except DoesNotFit as err:
        raise RankFault(JobFailure(FailureKind.DOES_NOT_FIT, str(err))) from err


def expected(model: Model, settings: Settings, ranks: Sequence[Hello]) -> ParallelPlan:
    """Plan for a model's usual video, before there is one; too large a model comes in by layers."""
    size = model.native_sizes[0]
    image = ImageRef(sha256="0" * 64, width=1, height=1) if model.needs_image else None
    usual = {"model": model.id, "prompt": "-", "seed": 0, "image": image}
    spec = GenerationSpec.model_validate(usual | {"width": size.width, "height": size.height})
    try:
        return lay_out(spec, settings, ranks, None, 0)
    except RankFault:
        layout = plan(spec, settings.ranks, degrees_of(settings.parallel))
        return layout.model_copy(update={"residency": LADDER[-1]})


def devices_of(ranks: RankGroup) -> list[Values]:
    """What a group's heartbeat says of each rank's device."""
    return [
        {
            "rank": hello.rank,
            "pid": hello.pid,
            "device": hello.device,
            "uuid": hello.device_uuid,
            "memory_bytes": used,
            "memory_total_bytes": hello.memory_total_bytes,
        }
        for hello, used in zip(ranks.hellos, ranks.memory_bytes, strict=False)
    ]
