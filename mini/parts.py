"""The untrained parts of the miniature: Wan2.2's classes, small enough for a repository."""

from typing import Final

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from mini import world

LATENTS: Final = 16  # channels
TEXT_WIDTH: Final = 64
SHIFTS: Final = {"t2v": 12.0, "ti2v": 5.0}  # of the schedule, as A14B and TI2V-5B have them
BOUNDARY: Final = 0.875  # the sigma where the experts take turns
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


def tokenizer() -> T5Tokenizer:
    """The words of the world, and single letters for all others."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in world.words()), *_LETTERS]
    scores = [0.0 if piece[0] == "<" else -2.0 for piece in pieces]
    return T5Tokenizer(
        vocab=list(zip(pieces, scores, strict=True)), extra_ids=0, model_max_length=512
    )


def text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """A UMT5 encoder of two layers."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


def vae() -> AutoencoderKLWan:
    """A VAE as A14B's: 8 x 8 pixels and 4 frames to a latent of 16 channels."""
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENTS,
        num_res_blocks=1,
        latents_mean=[0.0] * LATENTS,
        latents_std=[1.0] * LATENTS,
    )


def transformer() -> WanTransformer3DModel:
    """One expert."""
    return WanTransformer3DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=LATENTS,
        out_channels=LATENTS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=512,
        num_layers=5,
        rope_max_seq_len=128,
    )


def million_parameters(part: torch.nn.Module) -> float:
    """How large a part is."""
    return sum(weights.numel() for weights in part.parameters()) / 1e6
