"""Brings a checkpoint directory onto a device, part by part, without ever downloading."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import SafetensorError
from transformers.models.t5.tokenization_t5 import T5Tokenizer
from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel
from transformers.utils import logging

from shared.vocabulary.spec import FailureKind
from worker.engine.faults import EngineFault
from worker.engine.prompts import Prompts

_VOCABULARIES: Final = ("tokenizer.json", "spiece.model")


@dataclass(frozen=True, slots=True)
class Parts:
    """One loaded model."""

    high: WanTransformer3DModel
    low: WanTransformer3DModel | None  # None on one-expert models
    vae: AutoencoderKLWan
    prompts: Prompts | None  # rank 0 only: the others are sent the embeddings


def load(directory: Path, device: torch.device, *, with_text: bool) -> Parts:
    """Load a checkpoint in the diffusers layout.

    Args:
        directory: the checkpoint's folder, with `model_index.json`.
        device: bf16 on CUDA, fp32 on the CPU; what the classes keep in fp32 stays so.
        with_text: load the tokenizer and the text encoder too.

    Raises:
        EngineFault: kind `bad_checkpoint`, when a part is missing or unreadable.
    """
    names = _index(directory)
    logging.disable_progress_bar()  # a rank has no terminal
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def weights(kind: Any, name: str) -> Any:  # noqa: ANN401 - the classes share no typed base
        read = partial(kind.from_pretrained, dtype=dtype, local_files_only=True)
        return _part(directory, name, read).eval().to(device)

    high = weights(WanTransformer3DModel, "transformer")
    low = weights(WanTransformer3DModel, "transformer_2") if "transformer_2" in names else None
    vae = weights(AutoencoderKLWan, "vae")
    prompts = None
    if with_text:
        tokenizer = _part(directory, "tokenizer", _tokenizer)
        prompts = Prompts(tokenizer, weights(UMT5EncoderModel, "text_encoder"))
    return Parts(high, low, vae, prompts)


def _index(directory: Path) -> set[str]:
    """The names of the parts that the checkpoint says it has."""
    try:
        index = json.loads((directory / "model_index.json").read_text())
    except FileNotFoundError as error:
        raise _bad(directory, "has no model_index.json") from error
    except (OSError, ValueError) as error:
        raise _bad(directory, "has an unreadable model_index.json") from error
    return {name for name, kind in index.items() if isinstance(kind, list) and kind[0]}


def _tokenizer(path: str) -> T5Tokenizer:
    """Read the vocabulary; without one, transformers would make up a tiny one in silence."""
    if not any((Path(path) / name).exists() for name in _VOCABULARIES):
        raise FileNotFoundError(path)
    return T5Tokenizer.from_pretrained(path, local_files_only=True)


def _part(directory: Path, name: str, read: Callable[[str], Any]) -> Any:  # noqa: ANN401
    path = directory / name
    if not path.is_dir():
        raise _bad(directory, f"has no {name}")
    try:
        return read(str(path))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "out of memory" in str(error):
            raise
        raise _bad(directory, f"has a {name} that cannot be read") from error


def _bad(directory: Path, trouble: str) -> EngineFault:
    return EngineFault(
        FailureKind.BAD_CHECKPOINT,
        f"The checkpoint {directory.name} {trouble}. Fetch or build it again.",
    )
