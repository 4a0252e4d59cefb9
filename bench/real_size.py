"""Wan2.2's transformers and VAEs at their real size with random weights: right for time and memory.

Configurations are those of the published diffusers checkpoints; `tiny` tries a bench out.
"""

from types import MappingProxyType
from typing import Any, Final

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

# latents of the videos that the published models are made for: channels, frames, rows, columns
SHAPES: Final = MappingProxyType(
    {
        "a14b-832x480x81": ("a14b", (16, 21, 60, 104)),
        "a14b-1280x720x81": ("a14b", (16, 21, 90, 160)),
        "5b-1280x704x121": ("5b", (48, 31, 44, 80)),
        "tiny": ("tiny", (16, 3, 8, 8)),
    }
)
_WAN22_VAE: Final[dict[str, Any]] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
_A14B: Final = {"num_attention_heads": 40, "in_channels": 16, "ffn_dim": 13824, "num_layers": 40}
_5B: Final = {"num_attention_heads": 24, "in_channels": 48, "ffn_dim": 14336, "num_layers": 30}
_TINY: Final = {"num_attention_heads": 2, "in_channels": 16, "ffn_dim": 96, "num_layers": 2}
_TRANSFORMERS: Final = MappingProxyType({"a14b": _A14B, "5b": _5B, "tiny": _TINY})
_VAES: Final = MappingProxyType[str, dict[str, Any]](
    {"a14b": {}, "5b": _WAN22_VAE, "tiny": {"base_dim": 8, "num_res_blocks": 1}}
)


def transformer(family: str, device: str = "cuda") -> WanTransformer3DModel:
    """Draw one expert of `a14b`, or the transformer of `5b`, typed as when loaded."""
    config: dict[str, Any] = dict(_TRANSFORMERS[family])
    config |= {"out_channels": config["in_channels"], "text_dim": 4096}
    torch.manual_seed(22)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = WanTransformer3DModel(**config)
    finally:
        torch.set_default_dtype(torch.float32)
    kept = model._keep_in_fp32_modules  # pyright: ignore[reportPrivateUsage]
    modules: dict[str, Any] = dict(model.named_modules())
    for name, module in modules.items():
        if name.rpartition(".")[2] in kept:
            module.float()
        if hasattr(module, "scale_shift_table"):
            module.scale_shift_table.data = module.scale_shift_table.data.float()
    return model.eval().requires_grad_(requires_grad=False)


def twin(model: WanTransformer3DModel) -> WanTransformer3DModel:
    """Give another instance over the same weights, so that one may be changed and one not."""
    with torch.device("meta"):
        other: Any = WanTransformer3DModel.from_config(model.config)
    other.load_state_dict(model.state_dict(), assign=True)
    other.rope = model.rope  # its tables are no part of the state
    return other.eval().requires_grad_(requires_grad=False)


def vae(family: str, device: str = "cuda") -> AutoencoderKLWan:
    """Draw the VAE of `a14b` (Wan2.1's) or of `5b` (Wan2.2's) in bf16."""
    torch.manual_seed(22)
    with torch.device(device):
        model: Any = AutoencoderKLWan(**_VAES[family])
    return model.to(torch.bfloat16).eval().requires_grad_(requires_grad=False)


def inputs(family: str, shape: tuple[int, ...], device: str = "cuda") -> dict[str, torch.Tensor]:
    """Draw what a transformer is given, by its names in diffusers; on one timestep or per token."""
    generator = torch.Generator(device).manual_seed(1)
    latents = torch.randn(1, *shape, generator=generator, device=device, dtype=torch.bfloat16)
    tokens = shape[1] * (shape[2] // 2) * (shape[3] // 2)
    timestep = torch.full((1, tokens) if family == "5b" else (1,), 700.0, device=device)
    text = prompt(device=device)
    return {"hidden_states": latents, "timestep": timestep, "encoder_hidden_states": text}


def prompt(seed: int = 1, device: str = "cuda") -> torch.Tensor:
    """Draw an embedded prompt of 120 tokens, [1, 512, 4096] with zeros past its end."""
    generator = torch.Generator(device).manual_seed(seed)
    tokens = torch.randn(1, 120, 4096, generator=generator, device=device, dtype=torch.bfloat16)
    return torch.nn.functional.pad(tokens, (0, 0, 0, 512 - tokens.shape[1]))
