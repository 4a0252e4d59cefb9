"""The models a farm can render with: the facts that validation, planning and pages all read.

Sources: the Wan2.2 repository's shared configuration (boundary, steps, guidance, shift, negative
prompt) and the published diffusers checkpoints (geometry, layout, parameters). What a decode holds
was measured on an H200 with torch 2.11: 704x1280x121 with the VAE 2.2, 480x832x81 with the 2.1.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Task = Literal["T2V", "I2V", "TI2V"]

# The official default of Wan2.2 (`sample_neg_prompt`, Apache-2.0).
WAN_NEGATIVE_PROMPT: Final = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"  # noqa: RUF001
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"  # noqa: RUF001
    "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"  # noqa: RUF001
)


@dataclass(frozen=True, slots=True)
class Size:
    """A frame size in pixels, written `WxH`."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: what it takes, what it makes when nothing is said, and where it stops."""

    id: str
    task: Task
    family: str  # which LoRAs fit
    repo: str  # the published checkpoint; its last part names the local directory
    native_sizes: tuple[Size, ...]  # the first is the default
    size_multiple: int  # VAE compression x patch 2
    max_area: int  # width x height
    min_side: int
    max_side: int
    fps: int
    frames: int
    max_frames: int
    steps: int
    guidance_high: float
    guidance_low: float | None  # None: the model has one expert
    shift: float
    boundary: float | None  # None: the model has one expert
    blocks: int  # transformer blocks per expert
    heads: int  # of self-attention
    width: int  # of a token's hidden state
    ffn: int  # width of the feed-forward
    expert_parameters: int
    text_parameters: int = 5_680_000_000  # UMT5-xxl
    vae_parameters: int
    # What a decoder in bf16 holds at most, per pixel of a frame: ours, and that of diffusers.
    decode_bytes_per_pixel: int
    reference_decode_bytes_per_pixel: int
    negative_prompt: str
    expand_timesteps: bool = False  # one timestep per token (TI2V-5B)
    example: str = ""  # a prompt, where not any will do

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names a request may use."""
        return (self.repo,)

    @property
    def directory(self) -> str:
        """The checkpoint's folder inside a models directory."""
        return self.repo.rpartition("/")[2]

    @property
    def experts(self) -> int:
        """How many transformers share the denoising steps."""
        return 1 if self.boundary is None else 2

    @property
    def takes_image(self) -> bool:
        """Tell whether a request may bring an image."""
        return self.task != "T2V"

    @property
    def needs_image(self) -> bool:
        """Tell whether a request must bring an image."""
        return self.task == "I2V"

    def tokens(self, width: int, height: int, frames: int) -> int:
        """Count the transformer's tokens for one video, after patches of (1, 2, 2)."""
        latent_frames = (frames - 1) // 4 + 1
        return latent_frames * (height // self.size_multiple) * (width // self.size_multiple)


_A14B_SIZES: Final = (Size(1280, 720), Size(720, 1280), Size(832, 480), Size(480, 832))

_T2V_A14B: Final = Model(
    id="wan2.2-t2v-a14b",
    task="T2V",
    family="wan2.2-a14b",
    repo="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    native_sizes=_A14B_SIZES,
    size_multiple=16,
    max_area=1280 * 720,
    min_side=128,
    max_side=1920,
    fps=16,
    frames=81,
    max_frames=193,
    steps=40,
    guidance_high=4.0,
    guidance_low=3.0,
    shift=12.0,
    boundary=0.875,
    blocks=40,
    heads=40,
    width=5120,
    ffn=13824,
    expert_parameters=14_290_000_000,
    vae_parameters=126_892_531,
    decode_bytes_per_pixel=15_500,
    reference_decode_bytes_per_pixel=11_600,
    negative_prompt=WAN_NEGATIVE_PROMPT,
)
_I2V_A14B: Final = Model(
    id="wan2.2-i2v-a14b",
    task="I2V",
    family="wan2.2-a14b",
    repo="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    native_sizes=_A14B_SIZES,
    size_multiple=16,
    max_area=1280 * 720,
    min_side=128,
    max_side=1920,
    fps=16,
    frames=81,
    max_frames=193,
    steps=40,
    guidance_high=3.5,
    guidance_low=3.5,
    shift=5.0,
    boundary=0.9,
    blocks=40,
    heads=40,
    width=5120,
    ffn=13824,
    expert_parameters=14_290_000_000,
    vae_parameters=126_892_531,
    decode_bytes_per_pixel=15_500,
    reference_decode_bytes_per_pixel=11_600,
    negative_prompt=WAN_NEGATIVE_PROMPT,
)
_TI2V_5B: Final = Model(
    id="wan2.2-ti2v-5b",
    task="TI2V",
    family="wan2.2-5b",
    repo="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    native_sizes=(Size(1280, 704), Size(704, 1280)),
    size_multiple=32,
    max_area=1280 * 720,
    min_side=128,
    max_side=1920,
    fps=24,
    frames=121,
    max_frames=289,
    steps=50,
    guidance_high=5.0,
    guidance_low=None,
    shift=5.0,
    boundary=None,
    blocks=30,
    heads=24,
    width=3072,
    ffn=14336,
    expert_parameters=5_000_000_000,
    vae_parameters=704_688_668,
    decode_bytes_per_pixel=12_600,
    reference_decode_bytes_per_pixel=11_600,
    negative_prompt=WAN_NEGATIVE_PROMPT,
    expand_timesteps=True,
)


def _tiny(task: Task, like: Model, *, size_multiple: int) -> Model:
    """Shrink a model to one that a laptop renders in seconds; same classes, same loading code.

    Its weights are drawn at random: it shows that a farm works, and nothing of the prompt.
    """
    return Model(
        id=f"wan-tiny-{task.lower()}",
        task=task,
        family="wan-tiny" if like.boundary else "wan-tiny-one",
        repo=f"wanfarm/wan-tiny-{task.lower()}",
        native_sizes=(Size(128, 128),),
        size_multiple=size_multiple,
        max_area=256 * 256,
        min_side=64,
        max_side=512,
        fps=16,
        frames=33,
        max_frames=65,
        steps=20,
        guidance_high=like.guidance_high,
        guidance_low=like.guidance_low,
        shift=like.shift,
        boundary=like.boundary,
        blocks=6,
        heads=2,
        width=48,
        ffn=96,
        expert_parameters=215_000,
        text_parameters=25_000,
        vae_parameters=800_000,
        decode_bytes_per_pixel=15_500,
        reference_decode_bytes_per_pixel=11_600,
        negative_prompt="",
        expand_timesteps=like.expand_timesteps,
    )


def _mini(task: Task, like: Model) -> Model:
    """A trained miniature: it draws the shapes of its little world as a prompt says."""
    return Model(
        id=f"wan-mini-{task.lower()}",
        task=task,
        family=f"wan-mini-{task.lower()}",
        repo=f"wanfarm/wan-mini-{task.lower()}",
        native_sizes=(Size(128, 128),),
        size_multiple=16,
        max_area=128 * 128,
        min_side=128,
        max_side=128,
        fps=16,
        frames=17,
        max_frames=17,
        steps=20,
        guidance_high=2.0,
        guidance_low=2.0 if like.boundary else None,
        shift=like.shift,
        boundary=like.boundary,
        blocks=5,
        heads=6,
        width=192,
        ffn=512,
        expert_parameters=2_827_000,
        text_parameters=89_500,
        vae_parameters=2_578_000,
        decode_bytes_per_pixel=15_500,
        reference_decode_bytes_per_pixel=11_600,
        negative_prompt="",
        expand_timesteps=like.expand_timesteps,
        example="a yellow star moves up over a gradient from navy to black",
    )


_ALL: Final = (
    _T2V_A14B,
    _I2V_A14B,
    _TI2V_5B,
    _mini("T2V", _T2V_A14B),
    _mini("TI2V", _TI2V_5B),
    _tiny("T2V", _T2V_A14B, size_multiple=16),
    _tiny("I2V", _I2V_A14B, size_multiple=16),
    _tiny("TI2V", _TI2V_5B, size_multiple=32),
)

MODELS: Final = MappingProxyType({model.id: model for model in _ALL})
BUNDLED: Final = tuple(m.id for m in _ALL if m.repo.startswith("wanfarm/"))  # come with wanfarm
MINIATURES: Final = tuple(name for name in BUNDLED if name.startswith("wan-mini-"))  # the trained
_BY_NAME: Final = MappingProxyType({name: m for m in _ALL for name in (m.id, *m.aliases)})


def find_model(name: str) -> Model | None:
    """Look a model up by its id or an alias."""
    return _BY_NAME.get(name)
