"""One vocabulary for a render: checked at the door, stored in the row, sent down the pipe."""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from shared.vocabulary.catalog import MODELS, Model

MAX_SEED: Final = 2**53 - 1  # the largest integer JSON clients hold exactly

Positive = Annotated[int, Field(ge=1)]
Target = Literal["high", "low", "both"]
ImageFit = Literal["cover", "contain", "stretch"]
Sampler = Literal["unipc", "euler"]
CachePolicyName = Literal["off", "default", "fast"]


def _threshold(value: object) -> object:
    """Refuse a threshold that would silently mean "always"."""
    try:
        is_one = value == "always" or 0 < float(str(value)) < 1
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError('It must be above 0 and below 1, or "always" to cache every step it may')
    return value


# The block cache's knobs: names and meaning are cache-dit's.
Bn = Annotated[int, Field(ge=0)]
Warmup = Annotated[int, Field(ge=0, le=1000)]
Rdt = Annotated[
    Annotated[float, Field(gt=0, lt=1)] | Literal["always"], BeforeValidator(_threshold)
]
Limit = Annotated[int, Field(ge=-1)]  # -1: none
TaylorOrder = Annotated[int, Field(ge=1, le=2)]
Accumulated = Annotated[float, Field(gt=0)]
ScmPreset = Literal["none", "slow", "medium", "fast", "ultra"]
ScmPolicy = Literal["dynamic", "static"]
Bin = Annotated[int, Field(ge=1, le=1000)]
Bins = Annotated[list[Bin], Field(min_length=1, max_length=100)]


class Value(BaseModel):
    """Base of every value that crosses a process: frozen, complete, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageRef(Value):
    """An input image by the hash of its cleaned PNG; never by a path or a URL."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    width: Positive
    height: Positive


class LoraRef(Value):
    """An adapter from the catalogue, with its strength and the experts it goes to."""

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,63}$")]
    strength: Annotated[float, Field(ge=-4, le=4)] = 1.0
    target: Target = "both"


class SecondaryCache(Value):
    """The knobs that the low-noise expert may set apart; None inherits the primary one."""

    fn: Positive | None = None
    bn: Bn | None = None
    warmup: Warmup | None = None
    rdt: Rdt | None = None
    mc: Limit | None = None
    taylorseer: bool | None = None
    ts_order: TaylorOrder | None = None

    @model_serializer(mode="wrap")
    def _what_was_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None}


class CacheWish(SecondaryCache):
    """What a request says about block caching; None leaves the knob to the group's settings."""

    enabled: bool | None = None
    warmup_interval: Positive | None = None
    max_cached: Limit | None = None
    max_accumulated: Accumulated | None = None
    scm_preset: ScmPreset | None = None
    scm_compute_bins: Bins | None = None
    scm_cache_bins: Bins | None = None
    scm_policy: ScmPolicy | None = None
    force_last: bool | None = None
    secondary: SecondaryCache | None = None

    @model_validator(mode="after")
    def _bins_come_in_pairs(self) -> Self:
        if (self.scm_compute_bins is None) != (self.scm_cache_bins is None):
            raise ValueError("scm_compute_bins and scm_cache_bins go together. Send both.")
        return self


def _known_model(name: str) -> str:
    if name not in MODELS:
        raise ValueError(f"Unknown model '{name}'.")
    return name


def _of_model(field: str) -> Any:  # noqa: ANN401 - pydantic's Field is typed so
    """A default taken from the catalogue entry of the `model` given before it."""
    return Field(default_factory=lambda given: getattr(MODELS[given["model"]], field))


class GenerationSpec(Value):
    """Everything that decides the file of one video. Complete once parsed; `cache` is a wish.

    Sizes are pixels, `seed` feeds a CPU generator, guidance 1 or less turns the unconditional
    branch off. `guidance_low` and `boundary` are None on one-expert models.
    """

    model: Annotated[str, AfterValidator(_known_model)]
    prompt: Annotated[str, Field(min_length=1, max_length=4000)]
    negative_prompt: Annotated[str, Field(max_length=4000)] = _of_model("negative_prompt")
    width: Positive
    height: Positive
    frames: Positive = _of_model("frames")
    fps: Annotated[int, Field(ge=1, le=60)] = _of_model("fps")
    steps: Annotated[int, Field(ge=1, le=100)] = _of_model("steps")
    guidance_high: Annotated[float, Field(ge=0, le=20)] = _of_model("guidance_high")
    guidance_low: Annotated[float, Field(ge=0, le=20)] | None = _of_model("guidance_low")
    shift: Annotated[float, Field(ge=0.1, le=30)] = _of_model("shift")
    boundary: Annotated[float, Field(ge=0, le=1)] | None = _of_model("boundary")
    sampler: Sampler = "unipc"
    sigmas: tuple[float, ...] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    image: ImageRef | None = None
    image_fit: ImageFit = "cover"
    loras: tuple[LoraRef, ...] = ()
    cache: CachePolicyName | CacheWish = "default"
    embed_provenance: bool = False  # changes no pixel

    @model_validator(mode="after")
    def _fits_its_model(self) -> Self:
        """The engine's own last check; the door has said the same in friendlier words."""
        model = self.card
        if (self.frames - 1) % 4:
            raise ValueError(f"frames is {self.frames}. Wan2.2 makes 4k+1 frames.")
        if self.width % model.size_multiple or self.height % model.size_multiple:
            raise ValueError(f"sizes of {model.id} are multiples of {model.size_multiple}.")
        if (self.guidance_low is None) != (model.guidance_low is None):
            raise ValueError("guidance_low goes with two-expert models, and only with them.")
        if (self.boundary is None) != (model.boundary is None):
            raise ValueError("boundary goes with two-expert models, and only with them.")
        if (self.image is None and model.needs_image) or (self.image and not model.takes_image):
            raise ValueError(f"the image does not go with the task of {model.id}.")
        return self

    @property
    def comment(self) -> str | None:
        """What the file says of itself: all of the above as JSON, where that is asked for."""
        return self.model_dump_json(exclude={"embed_provenance"}) if self.embed_provenance else None

    @property
    def card(self) -> Model:
        """The catalogue entry of this video's model."""
        return MODELS[self.model]

    @property
    def tokens(self) -> int:
        """Transformer tokens: what time and memory grow with."""
        return self.card.tokens(self.width, self.height, self.frames)

    @property
    def guided(self) -> bool:
        """Tell whether the unconditional branch runs; decided by the high value for the job."""
        return self.guidance_high > 1


class Delivery(Value):
    """When and to whom: what does not change a pixel. Times are seconds from creation."""

    priority: Annotated[int, Field(ge=-10, le=10)] = 0
    max_attempts: Annotated[int, Field(ge=1, le=5)] = 3
    start_within_s: Annotated[int, Field(ge=1, le=604_800)] | None = None
    finish_within_s: Annotated[int, Field(ge=1, le=604_800)] | None = None
    expires_in_s: Annotated[int, Field(ge=60)] = 7 * 86_400
    metadata: dict[str, str] = Field(default_factory=dict)
    user: str | None = None
    group: str | None = None
    webhook_url: str | None = None


class FailureKind(StrEnum):
    """Why an attempt ended badly; decides retry, restart and the public code."""

    BAD_INPUT = "bad_input"
    BAD_CHECKPOINT = "bad_checkpoint"
    BAD_LORA = "bad_lora"
    DOES_NOT_FIT = "does_not_fit"
    OUT_OF_MEMORY = "out_of_memory"
    CUDA_ERROR = "cuda_error"
    COLLECTIVE = "collective"
    RANK_DIED = "rank_died"
    HANG = "hang"
    NON_FINITE = "non_finite"
    STORAGE = "storage"
    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    LOST = "lost"
    INTERNAL = "internal"

    @property
    def retryable(self) -> bool:
        """Tell whether another attempt may help."""
        return self not in _HOPELESS

    @property
    def poisons_group(self) -> bool:
        """Tell whether the ranks must be started anew before they take another job."""
        return self in _POISON


_HOPELESS: Final = frozenset(
    {
        FailureKind.BAD_INPUT,
        FailureKind.BAD_CHECKPOINT,
        FailureKind.BAD_LORA,
        FailureKind.DOES_NOT_FIT,
        FailureKind.TIMEOUT,
        FailureKind.DEADLINE,
    }
)
_POISON: Final = frozenset(
    {
        FailureKind.OUT_OF_MEMORY,
        FailureKind.CUDA_ERROR,
        FailureKind.COLLECTIVE,
        FailureKind.RANK_DIED,
        FailureKind.HANG,
        FailureKind.TIMEOUT,
        FailureKind.INTERNAL,
    }
)
