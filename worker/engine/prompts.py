"""Prompts to UMT5 embeddings, kept for the jobs that repeat them."""

import html
import re
from collections import OrderedDict
from typing import Final

import ftfy
import torch
from torch import Tensor
from transformers.models.t5.tokenization_t5 import T5Tokenizer
from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel

MAX_TOKENS: Final = 512
_KEPT: Final = 64  # prompts; at real width 4 kB a token in fp32 x 4, so at most some 500 MB


class Prompts:
    """The text encoder of one loaded model and the embeddings it made last."""

    def __init__(self, tokenizer: T5Tokenizer, encoder: UMT5EncoderModel) -> None:
        """Take the encoder where it is; embeddings are made there and kept on the CPU."""
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def embed(self, prompt: str) -> Tensor:
        """Encode one prompt.

        Returns:
            [1, 512, D] in the encoder's dtype and on its device; zeros past the prompt's end.
        """
        text = clean(prompt)
        if text not in self._kept:
            self._kept[text] = self._encode(text).cpu()
        self._kept.move_to_end(text)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        tokens = self._kept[text].to(self._encoder.device)  # [n, D]
        padding = tokens.new_zeros(MAX_TOKENS - tokens.shape[0], tokens.shape[1])
        return torch.cat([tokens, padding]).unsqueeze(0)

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
        device = self._encoder.device
        mask = given.attention_mask.to(device)
        hidden = self._encoder(given.input_ids.to(device), mask).last_hidden_state
        return hidden[0, : int(mask.sum())]


def clean(text: str) -> str:
    """Mend and unescape a prompt and fold its white space, as Wan's training texts were."""
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", mended).strip()
