"""How much device memory a job takes at its peak, and what must leave the device to make it fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.catalog import Size
from shared.vocabulary.plan import Build, ParallelPlan, Precision, Residency
from shared.vocabulary.spec import GenerationSpec

SHARE: Final = 0.94  # of a card; the rest is for fragments
CONTEXT_BYTES: Final = 1_500_000_000  # CUDA's and its libraries' own
_BF16: Final = 2
_SLOTS: Final = 2  # blocks on the device in a layer-wise stream
_TEXT_TOKENS: Final = 512
_TILE_ROWS: Final = 16  # of the latents, decoded together when the VAE runs in tiles
_LEAST_FRAMES: Final = 5

# Live tensors of one forward of diffusers at its widest, in units of tokens x width x 2 bytes:
# measured on an H200 (A14B, 832x480x81, torch 2.11: 12.6), and on an H100 with one timestep per
# token (TI2V-5B).
_REFERENCE: Final = 13.0
_REFERENCE_PER_TOKEN: Final = 33.0
# What tokens and heads on their way to other ranks add, in the same units of one rank's share:
# bench/measured/pair.json.
_ULYSSES: Final = 2.0
_RING: Final = 6.0

# From the first to the last: what each costs in speed grows, and a picture's bits change only
# where nothing else would do.
_ALL_AWAY: Final = Residency(text_encoder=True, experts=True, vae=True, layerwise=True)
LADDER: Final = (
    Residency(),
    Residency(text_encoder=True),
    Residency(text_encoder=True, tiled_vae=True),
    Residency(text_encoder=True, experts=True),
    Residency(text_encoder=True, experts=True, tiled_vae=True),
    _ALL_AWAY,
    _ALL_AWAY.model_copy(update={"tiled_vae": True}),
)


@dataclass(frozen=True, slots=True)
class Room:
    """What a group's ranks offer, and what its settings force."""

    total_bytes: int | None = None  # of the smallest card; None: no limit is known (CPU)
    forced: Mapping[str, bool] = field(default_factory=dict[str, bool])  # by field of `Residency`

    @property
    def usable_bytes(self) -> float:
        """What a job may take."""
        return float("inf") if self.total_bytes is None else SHARE * self.total_bytes


class DoesNotFit(Exception):
    """A video is too large for a group, however it is placed; says what would fit."""

    def __init__(
        self, spec: GenerationSpec, needed: int, room: Room, nearest: GenerationSpec | None
    ) -> None:
        """Word it for the one who asked."""
        assert room.total_bytes
        self.nearest = nearest
        way_out = f"The nearest that fits is {_shape(nearest)}." if nearest else "Use larger GPUs."
        super().__init__(
            f"{_shape(spec)} needs {needed / 1e9:.1f} GB of GPU memory. "
            f"A GPU here has {room.total_bytes / 1e9:.1f} GB. {way_out}"
        )


def fit(
    spec: GenerationSpec,
    layout: ParallelPlan,
    build: Build,
    cache: CachePolicies | None,
    room: Room,
    rungs_down: int = 0,
) -> ParallelPlan:
    """Choose what rests in CPU memory: the first rung of the ladder that fits.

    A rung that takes no less than the one before it is left out.

    Args:
        spec: the video.
        layout: how the ranks are used; its residency is replaced.
        build: what the engine is made for.
        cache: the policies of this attempt; None without a cache.
        room: the cards and the settings.
        rungs_down: how many rungs below the first that fits: one for each time that the
            prediction was too low for this very video.

    Raises:
        DoesNotFit: when no rung fits.
    """

    def falling(of: GenerationSpec) -> dict[int, ParallelPlan]:
        """The rungs by what they need, from most to least."""
        rungs: dict[int, ParallelPlan] = {}
        for rung in _rungs(layout, room):
            need = peak_bytes(of, rung, build, cache)
            if need < min(rungs, default=need + 1):
                rungs[need] = rung
        return rungs

    rungs = falling(spec)
    fitting = [rung for need, rung in rungs.items() if need <= room.usable_bytes]
    if not fitting:
        nearest = _nearest(spec, lambda other: min(falling(other)) <= room.usable_bytes)
        raise DoesNotFit(spec, min(rungs), room, nearest)
    return fitting[min(rungs_down, len(fitting) - 1)]


def peak_bytes(
    spec: GenerationSpec, layout: ParallelPlan, build: Build, cache: CachePolicies | None = None
) -> int:
    """Predict the most device memory that rank 0 holds at once, its CUDA context included."""
    card, rests = spec.card, layout.residency
    vae_word = _BF16 if build.vae_dtype == "bf16" else 2 * _BF16
    text = card.text_parameters * _BF16 / (layout.ranks if build.shard_text else 1)
    vae = card.vae_parameters * vae_word
    expert_home, expert_visit = _expert_bytes(spec, layout, build)
    home = card.experts * expert_home
    home += 0 if rests.text_encoder else text
    home += 0 if rests.vae else vae

    phases = (
        text if rests.text_encoder else 0,
        expert_visit + _forward_bytes(spec, layout, build) + _cache_bytes(spec, layout, cache),
        (vae if rests.vae else 0) + vae_word / _BF16 * _decode_bytes(spec, layout, build),
    )
    return int(home + max(phases) + CONTEXT_BYTES)


def host_bytes(spec: GenerationSpec, layout: ParallelPlan, build: Build) -> int:
    """Tell what a group keeps in CPU memory: rank 0 the text encoder, each rank its idle parts."""
    card, rests = spec.card, layout.residency
    away = card.experts * expert_bytes(spec, build) if rests.experts or rests.layerwise else 0
    away += card.vae_parameters * _BF16 if rests.vae else 0
    text = card.text_parameters * _BF16 if rests.text_encoder else 0
    return int(layout.ranks * away + text)


def expert_bytes(spec: GenerationSpec, build: Build) -> float:
    """Tell what one expert weighs, undivided."""
    whole, _ = _expert_bytes(spec, ParallelPlan(ranks=1), build)
    return whole


def _nearest(spec: GenerationSpec, fits: Callable[[GenerationSpec], bool]) -> GenerationSpec | None:
    """The shape with most tokens that fits: fewer frames, or a native size that is no larger."""
    area = spec.width * spec.height
    native = [size for size in spec.card.native_sizes if size.width * size.height <= area]
    shapes = [
        spec.model_copy(update={"width": size.width, "height": size.height, "frames": frames})
        for size in (Size(spec.width, spec.height), *native)
        for frames in range(spec.frames, _LEAST_FRAMES - 1, -4)
    ]
    return max(filter(fits, shapes), key=lambda shape: shape.tokens, default=None)


def _shape(spec: GenerationSpec) -> str:
    return f"{spec.width}x{spec.height} with {spec.frames} frames"


def _rungs(layout: ParallelPlan, room: Room) -> list[ParallelPlan]:
    """The ladder under what the settings force, each way once."""
    ways = dict.fromkeys(way.model_copy(update=dict(room.forced)) for way in LADDER)
    return [layout.model_copy(update={"residency": way}) for way in ways]


def _expert_bytes(spec: GenerationSpec, layout: ParallelPlan, build: Build) -> tuple[float, float]:
    """What one expert takes for good, and what comes on top while it works."""
    card, rests = spec.card, layout.residency
    square, wide = card.width**2, card.width * card.ffn
    per_block = _BF16 * (8 * square + 2 * wide)
    blocks = card.blocks * per_block
    rest = _BF16 * card.expert_parameters - blocks
    if build.precision in ("fp8", "fp8_attn"):  # all linears but the text's keys and values
        per_block -= 6 * square + 2 * wide
        blocks = card.blocks * per_block
    if build.shard_weights:
        return rest + blocks / layout.ranks, _SLOTS * per_block
    if rests.layerwise:
        return 0, rest + _SLOTS * per_block
    return (0, rest + blocks) if rests.experts else (rest + blocks, 0)


def _forward_bytes(spec: GenerationSpec, layout: ParallelPlan, build: Build) -> float:
    """Activations at their widest, and the prompt's keys and values where they are kept."""
    pair = 2 * _TEXT_TOKENS * spec.card.width * _BF16
    kept = _branches(spec, layout) * spec.card.experts * spec.card.blocks * pair
    kept = 0 if build.precision == "reference" else kept
    exchanged = _RING if layout.ring > 1 else _ULYSSES if layout.ulysses > 1 else 0
    wide = _activations(spec, layout, build.precision) + exchanged
    return wide * _states_bytes(spec, layout) + kept


def _activations(spec: GenerationSpec, layout: ParallelPlan, precision: Precision) -> float:
    """Live tensors of one forward at its widest, in units of [tokens, width] in bf16.

    Those of our own forward are counted in `worker/engine/kernels/block.py`: the tokens as
    embedded, the stream, its norm (half as large in fp8), and either projections, queries, keys,
    values and the result of the attention, or what the feed-forward makes of them.
    """
    card = spec.card
    if precision == "reference":
        return _REFERENCE_PER_TOKEN if card.expand_timesteps else _REFERENCE
    inner = card.ffn / card.width
    attending = {"bf16": 9.0, "fp8": 6.5, "fp8_attn": 8.0}[precision]
    feeding = 5 + inner if precision == "bf16" else 3.5 + 1.5 * inner
    opening = _branches(spec, layout) - 1  # the first block's attention waits for the other branch
    return max(attending, feeding) + opening


def _decode_bytes(spec: GenerationSpec, layout: ParallelPlan, build: Build) -> float:
    """What a decoder in bf16 holds of one rank's pictures."""
    card, reference = spec.card, build.precision == "reference"
    each = card.reference_decode_bytes_per_pixel if reference else card.decode_bytes_per_pixel
    whole = each * spec.width * spec.height
    if layout.residency.tiled_vae:
        rows = spec.height // (card.size_multiple // 2)
        return whole * min(1, _TILE_ROWS / rows)
    return whole / (1 if reference else layout.active)


def _cache_bytes(spec: GenerationSpec, layout: ParallelPlan, cache: CachePolicies | None) -> float:
    """What the block cache keeps: per branch a residual and `order + 1` differences."""
    if cache is None:
        return 0
    policies = [one for one in (cache.high, cache.low) if one is not None]
    most = max(2 + (one.ts_order if one.taylorseer else 0) for one in policies)
    return _branches(spec, layout) * most * _states_bytes(spec, layout)


def _branches(spec: GenerationSpec, layout: ParallelPlan) -> int:
    """Guidance branches that one rank computes."""
    return 2 if spec.guided and layout.cfg == 1 else 1


def _states_bytes(spec: GenerationSpec, layout: ParallelPlan) -> int:
    """One rank's share of the hidden states, [tokens, width] in bf16."""
    tokens = -(-spec.tokens // (layout.ulysses * layout.ring))
    return tokens * spec.card.width * _BF16
