"""Checkpoints of real size with random weights, written as published ones are."""

import gc
import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from transformers import UMT5Config, UMT5EncoderModel

from bench import real_size
from mini.build import build, tokenizer
from shared.vocabulary.catalog import MODELS

_FAMILIES = {"wan2.2-t2v-a14b": "a14b", "wan2.2-ti2v-5b": "5b"}
BENCHED = (*_FAMILIES, "wan-tiny-t2v", "wan-tiny-ti2v")


def write(model: str, models: Path) -> Path:
    """Write a model where loading looks for it; gives its directory.

    A real one is drawn on the GPU. Its text encoder has 2 layers, and where it has two experts
    their files are the same.
    """
    card = MODELS[model]
    directory = models / card.directory
    if model not in _FAMILIES:
        build(card, models)
        return directory
    family = _FAMILIES[model]
    kind: Any = WanPipeline
    pipe = kind(
        tokenizer=tokenizer(),
        text_encoder=_text_encoder(),
        vae=real_size.vae(family),
        scheduler=UniPCMultistepScheduler(),
        transformer=real_size.transformer(family),
        expand_timesteps=card.expand_timesteps,
    )
    pipe.save_pretrained(directory)
    del pipe
    gc.collect()
    torch.cuda.empty_cache()  # who loads it needs the room
    if card.experts > 1:
        _double(directory, card.boundary)
    return directory


def _text_encoder() -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=256384,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=2,
        num_heads=64,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.device("cuda"):
        encoder: Any = UMT5EncoderModel(config)
    return encoder.to(torch.bfloat16).eval()


def _double(directory: Path, boundary: float | None) -> None:
    """Name the files of the one expert a second time."""
    second = directory / "transformer_2"
    second.mkdir()
    for file in (directory / "transformer").iterdir():
        os.link(file, second / file.name)
    index = directory / "model_index.json"
    told = json.loads(index.read_text())
    told |= {"transformer_2": told["transformer"], "boundary_ratio": boundary}
    index.write_text(json.dumps(told, indent=2))
