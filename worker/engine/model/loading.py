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
from torch import nn
from transformers.models.t5.tokenization_t5 import T5Tokenizer
from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel
from transformers.utils import logging

from shared.vocabulary.plan import Build
from shared.vocabulary.spec import FailureKind
from worker.engine.cache.blocks import install
from worker.engine.faults import EngineFault
from worker.engine.model import replacement
from worker.engine.model.prompts import Prompts
from worker.engine.result import Expert

_VOCABULARIES: Final = ("tokenizer.json", "spiece.model")


@dataclass(frozen=True, slots=True)
class Parts:
    """One loaded model."""

    high: WanTransformer3DModel
    low: WanTransformer3DModel | None  # None on one-expert models
    vae: AutoencoderKLWan
    prompts: Prompts | None  # on rank 0, which sends embeddings; on all that encode together

    @property
    def experts(self) -> dict[Expert, WanTransformer3DModel]:
        """The transformers by name."""
        if self.low is None:
            return {"single": self.high}
        return {"high": self.high, "low": self.low}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All parts with weights by name; the text encoder only where it is."""
        modules: dict[str, nn.Module] = {**self.experts, "vae": self.vae}
        return modules if self.prompts is None else modules | {"text_encoder": self.prompts.encoder}


def load(
    directory: Path,
    device: torch.device,
    build: Build,
    *,
    with_text: bool,
    resting: frozenset[str] = frozenset(),
) -> Parts:
    """Load a checkpoint in the diffusers layout.

    Args:
        directory: the checkpoint's folder, with `model_index.json`.
        device: bf16 on CUDA, fp32 on the CPU; what the classes keep in fp32 stays so.
        build: may name another VAE, and its dtype on CUDA.
        with_text: load the tokenizer and the text encoder too.
        resting: parts that stay in CPU memory, by the names of `Parts.modules`.

    Raises:
        EngineFault: kind `bad_checkpoint`, when a part is missing, unreadable or does not fit.
    """
    names = _index(directory)
    logging.disable_progress_bar()  # a rank has no terminal
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def weights(kind: Any, name: str, folder: str) -> Any:  # noqa: ANN401 - no typed base
        kept = torch.float32 if name == "vae" and build.vae_dtype == "fp32" else dtype
        read = partial(kind.from_pretrained, dtype=kept, local_files_only=True)
        part = _part(directory, folder, read).eval()
        return part if name in resting else part.to(device)

    two = "transformer_2" in names
    high = weights(WanTransformer3DModel, "high" if two else "single", "transformer")
    low = weights(WanTransformer3DModel, "low", "transformer_2") if two else None
    for expert in (high, low):
        if expert is not None:
            install(expert)
    if build.vae is not None:
        replacement.check(directory / "vae", Path(build.vae))
    vae = weights(AutoencoderKLWan, "vae", build.vae or "vae")
    prompts = None
    if with_text:
        tokenizer = _part(directory, "tokenizer", _tokenizer)
        encoder = weights(UMT5EncoderModel, "text_encoder", "text_encoder")
        prompts = Prompts(tokenizer, encoder, build.prompt_cache_bytes)
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
    path = directory / name  # a path of its own, where the name is one
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
