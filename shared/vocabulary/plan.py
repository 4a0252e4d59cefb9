"""How a group computes: what it is built for, and how one attempt uses its ranks and memory."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.vocabulary.spec import Positive, Value

Precision = Literal["reference", "bf16", "fp8", "fp8_attn"]
Attention = Literal["auto", "fa3", "cudnn", "flash", "native"]


class Build(Value):
    """What a group's engine is made for; the same for all its jobs.

    `reference` runs diffusers' own forward and gives its bits. `bf16` is our forward with the best
    attention and fused kernels; `fp8` and `fp8_attn` lower linears, and attention too.
    """

    precision: Precision = "reference"
    attention: Attention = "auto"
    pin_memory: bool = True
    shard_weights: bool = False  # each rank keeps its share of every block
    shard_text: bool = False  # the text encoder's matrices over all ranks (tensor parallel)
    vae: str | None = None  # a directory that replaces the checkpoint's VAE
    vae_dtype: Literal["bf16", "fp32"] = "bf16"  # on CUDA; the CPU computes in fp32
    prompt_cache_bytes: Annotated[int, Field(ge=0)] = 512 * 2**20


class Residency(Value):
    """Which parts wait in CPU memory while they are not needed; all False: all on the device."""

    text_encoder: bool = False
    experts: bool = False  # the expert whose turn it is not
    vae: bool = False
    layerwise: bool = False  # block weights are streamed in, a few blocks ahead
    tiled_vae: bool = False  # decodes in overlapping tiles: less memory, not the same bits


class ParallelPlan(Value):
    """How one attempt uses the ranks of its group; cfg * ulysses * ring of them are active."""

    ranks: Positive
    cfg: Literal[1, 2] = 1
    ulysses: Positive = 1
    ring: Positive = 1
    residency: Residency = Residency()

    @property
    def active(self) -> int:
        """Ranks that compute; the others stand by."""
        return self.cfg * self.ulysses * self.ring

    @model_validator(mode="after")
    def _fits_its_group(self) -> Self:
        if self.active > self.ranks:
            raise ValueError(f"cfg x ulysses x ring is {self.active}, the group has {self.ranks}.")
        return self
