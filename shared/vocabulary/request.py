"""What a client may ask for: every field of a request, and the names other dialects give them."""

import re
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
)

from shared.vocabulary.spec import (
    MAX_SEED,
    CachePolicyName,
    CacheWish,
    ImageFit,
    LoraRef,
    Sampler,
)

Quality = Literal["draft", "standard", "high", "distill4"]
WEEK_S: Final = 604_800
MAX_EXPIRY_S: Final = 90 * 86_400
_NUMBER: Final = re.compile(r"\s*[0-9]{1,6}(\.[0-9]{1,6})?\s*")


def _number_in_text(value: object) -> object:
    """Take `"5"` for 5: clients of the Videos dialect send seconds as text."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _kind_of_cache(value: object) -> str:
    return "name" if isinstance(value, str) else "policy"


Seconds = Annotated[
    float,
    BeforeValidator(_number_in_text),
    Field(gt=0, le=100_000),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 100_000},
                {"type": "string", "pattern": r"^[0-9]{1,6}(\.[0-9]{1,6})?$"},
            ]
        }
    ),
]
Cache = Annotated[
    Annotated[CachePolicyName, Tag("name")] | Annotated[CacheWish, Tag("policy")],
    Discriminator(_kind_of_cache),
]
Guidance = Annotated[float, Field(ge=0, le=20)]
Deadline = Annotated[int, Field(ge=1, le=WEEK_S)]
Priority = Annotated[int, Field(ge=-10, le=10)]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


class InputReference(BaseModel):
    """An input image: a data URL, or the id of an uploaded file.

    A file part does as well, and so does either of them bare.
    """

    model_config = ConfigDict(extra="forbid")

    image_url: str | None = Field(default=None, description="`data:image/...;base64,...`")
    file_id: str | None = Field(default=None, description="`file_...`, from /v1/files.")


class Overrides(BaseModel):
    """Any field of a request, all optional; null goes back to the model's default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: Annotated[str, Field(max_length=4000)] | None = Field(
        default=None, description="What the video shows; 1 to 4000 characters after trimming."
    )
    negative_prompt: Annotated[str, Field(max_length=4000)] | None = Field(
        default=None, description='What it should not show; `""` for nothing, null for Wan\'s own.'
    )
    model: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="An id or alias of /v1/models."
    )
    input_reference: InputReference | str | None = Field(
        default=None, description="The image to start from."
    )
    size: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="`WxH` in pixels, or `auto` to follow the image."
    )
    seconds: Seconds | None = Field(default=None, description="Length; a number or numeric text.")
    frames: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Number of frames, 4k+1."
    )
    fps: Annotated[int, Field(ge=1, le=60)] | None = Field(
        default=None, description="Playback rate; motion was learned at the model's native one."
    )
    quality: Quality | None = Field(
        default=None, description="Fills `steps` and `cache` where they are left out."
    )
    steps: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="Denoising steps."
    )
    guidance_scale: Guidance | None = Field(
        default=None, description="Sets the guidance of every expert."
    )
    guidance_high: Guidance | None = Field(
        default=None, description="Guidance of the high-noise expert; 1 or less turns it off."
    )
    guidance_low: Guidance | None = Field(
        default=None, description="Guidance of the low-noise expert."
    )
    shift: Annotated[float, Field(ge=0.1, le=30)] | None = Field(
        default=None, description="Shift of the noise schedule."
    )
    boundary: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Noise level at which the experts take turns."
    )
    sampler: Sampler | None = Field(default=None, description="The solver.")
    sigmas: Annotated[list[float], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="Falling noise levels in (0, 1], one per step."
    )
    seed: Annotated[int, Field(ge=-1, le=MAX_SEED)] | None = Field(
        default=None, description="Null or -1 draws one; the drawn seed is recorded."
    )
    image_fit: ImageFit | None = Field(
        default=None, description="How the image meets another aspect."
    )
    loras: Annotated[list[LoraRef], Field(max_length=8)] | None = Field(
        default=None, description="Adapters of /v1/loras, each with strength and target."
    )
    cache: Cache | None = Field(default=None, description="Block cache: a policy's name, or knobs.")
    priority: Priority | None = Field(
        default=None, description="Higher starts sooner; above 0 needs the scope admin."
    )
    max_attempts: Annotated[int, Field(ge=1, le=5)] | None = Field(
        default=None, description="How often the farm tries."
    )
    start_within_s: Deadline | None = Field(
        default=None, description="Cancelled if it has not started by then."
    )
    finish_within_s: Deadline | None = Field(
        default=None, description="Ended if it has not finished by then."
    )
    expires_in_s: Annotated[int, Field(ge=60, le=MAX_EXPIRY_S)] | None = Field(
        default=None, description="How long the files are kept after completion."
    )
    metadata: Metadata | None = Field(default=None, description="Your own pairs, to search by.")
    user: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Your own user's name."
    )
    group: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")] | None = Field(
        default=None, description="The GPU group that must render it; scope admin."
    )
    webhook_url: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="An https address that is told of the end, beside /v1/webhooks."
    )
    embed_provenance: bool | None = Field(
        default=None,
        description="Write the spec, its prompts too, into the file, as the comment of the MP4; "
        "off by default.",
    )


class VideoRequest(Overrides):
    """A request for one video. Only the prompt is needed; the model's own values fill the rest."""

    prompt: Annotated[str, Field(max_length=4000)] = Field(  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
        description="What the video shows; 1 to 4000 characters after trimming."
    )


# Other servers' names for our fields.
ALIASES: Final = MappingProxyType(
    {
        "num_frames": "frames",
        "num_inference_steps": "steps",
        "guidance_scale_2": "guidance_low",
        "flow_shift": "shift",
        "boundary_ratio": "boundary",
        "reference_url": "input_reference",
        "image_reference": "input_reference",
    }
)
# Fields of other dialects that we know and do not have: taken only with the value "off".
OFF_VALUES: Final[MappingProxyType[str, Any]] = MappingProxyType(
    {
        "n": 1,
        "num_outputs_per_prompt": 1,
        "enhance_prompt": False,
        "enable_teacache": False,
        "enable_frame_interpolation": False,
        "enable_upscaling": False,
        "generate_sound": False,
        "enable_dmd": False,
    }
)
REFUSED: Final = frozenset(
    {"output_path", "video_path", "perf_dump_path", "diffusers_kwargs", "scale"}
)
# Objects whose members count as top-level fields.
CONTAINERS: Final = ("extra_body", "extra_params", "extra_json", "extra_args")
# Fields that are built from others before the request is read.
COMPOSED: Final = ("width", "height", "lora", "enable_cache_dit", "cache_dit_params")
CACHE_DIT_NAMES: Final = MappingProxyType(
    {
        "Fn_compute_blocks": "fn",
        "Bn_compute_blocks": "bn",
        "max_warmup_steps": "warmup",
        "warmup_interval": "warmup_interval",
        "residual_diff_threshold": "rdt",
        "max_continuous_cached_steps": "mc",
        "max_cached_steps": "max_cached",
        "enable_taylorseer": "taylorseer",
        "taylorseer_order": "ts_order",
        "scm_steps_mask_policy": "scm_preset",
        "scm_compute_bins": "scm_compute_bins",
        "scm_cache_bins": "scm_cache_bins",
        "scm_steps_policy": "scm_policy",
        "secondary": "secondary",
    }
)
