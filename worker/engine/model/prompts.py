"""Prompts to UMT5 embeddings, kept for the jobs that repeat them."""

import contextlib
import html
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import ftfy
import torch
from torch import Tensor
from transformers.models.t5.tokenization_t5 import T5Tokenizer
from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel

MAX_TOKENS: Final = 512
Visit = Callable[[], contextlib.AbstractContextManager[None]]


class Prompts:
    """The text encoder of one loaded model and the embeddings it made last."""

    def __init__(self, tokenizer: T5Tokenizer, encoder: UMT5EncoderModel, room_bytes: int) -> None:
        """Take the encoder; embeddings are made on its device.

        Args:
            tokenizer: of the same checkpoint.
            encoder: where it is.
            room_bytes: CPU memory for embeddings; the longest unused go first.
        """
        self._tokenizer = tokenizer
        self.encoder = encoder
        self.together = False  # whether all ranks must encode, each with its part of the encoder
        self.visit: Visit = contextlib.nullcontext  # brings the encoder to its device, and back
        self._room_bytes = room_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()  # [n, D] by text, last used last

    def embed(self, prompts: list[str]) -> list[Tensor]:
        """Encode some prompts; the encoder is visited once for all that are new, or not at all.

        Returns:
            [1, 512, D] each, in the encoder's dtype, on the CPU; zeros past the prompt's end.
        """
        texts = [clean(prompt) for prompt in prompts]
        if new := [text for text in dict.fromkeys(texts) if text not in self._kept]:
            with self.visit():
                self._kept |= {text: self._encode(text).to("cpu", copy=True) for text in new}
        embedded = [_padded(self._kept[text]) for text in texts]
        for text in texts:
            self._kept.move_to_end(text)
        while sum(tokens.nbytes for tokens in self._kept.values()) > self._room_bytes:
            self._kept.popitem(last=False)
        return embedded

    def _encode(self, text: str) -> Tensor:
        given = self._tokenizer(
            [text],
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = self.encoder.device
        mask = given.attention_mask.to(device)
        hidden = self.encoder(given.input_ids.to(device), mask).last_hidden_state
        return hidden[0, : int(mask.sum())]


def _padded(tokens: Tensor) -> Tensor:
    """[n, D] as [1, 512, D]."""
    padding = tokens.new_zeros(MAX_TOKENS - tokens.shape[0], tokens.shape[1])
    return torch.cat([tokens, padding]).unsqueeze(0)


def clean(text: str) -> str:
    """Mend and unescape a prompt and fold its white space, as Wan's training texts were."""
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", mended).strip()
