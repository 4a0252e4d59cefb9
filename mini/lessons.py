"""What each part is taught, as losses over scenes of the world."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn
from transformers import T5Tokenizer, UMT5EncoderModel

from mini import whole, world

FRAMES: Final = 17
PROMPT_TOKENS: Final = 512  # of the transformer's input, zeros past a caption's end
_KEPT_TOKENS: Final = 32  # of them in a lesson; the last one stands for all that are left out
UNSAID: Final = "unsaid"
_WORDINGS: Final = 4
_KL: Final = 1e-6


def scenes(first: int, count: int) -> list[world.Scene]:
    """Scenes of consecutive seeds."""
    return [world.scene(seed) for seed in range(first, first + count)]


class Said:
    """What is said of scenes, in a few wordings each, and nothing."""

    def __init__(self, hidden: Tensor, nothing: Tensor) -> None:
        """Take [N, wordings, n, D] and [n, D]."""
        self._wordings = hidden.shape[1]
        self._hidden = torch.cat([hidden.flatten(0, 1), nothing[None]])

    def draw(self, rows: Tensor, dropout: float) -> Tensor:
        """Some wording of each scene, [B, n, D]; a share is left unsaid, for guidance to use."""
        picked = rows * self._wordings + torch.randint_like(rows, self._wordings)
        silent = torch.rand(len(rows), device=rows.device) < dropout
        return self._hidden[picked.where(~silent, len(self._hidden) - 1)]


class Words:
    """Captions to what a transformer is given of them."""

    def __init__(self, tokenizer: T5Tokenizer, encoder: UMT5EncoderModel) -> None:
        """Take both."""
        self._tokenizer = tokenizer
        self.encoder = encoder

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embed captions, [B, n, D], and tell where words are, [B, n]."""
        told = self._tokenizer(list(texts), padding=True, return_tensors="pt")
        mask = told.attention_mask.to(self.encoder.device)
        ids = told.input_ids.to(self.encoder.device)
        hidden = self.encoder(ids, mask).last_hidden_state
        return hidden * mask[..., None], mask

    def folded(self, texts: Sequence[str]) -> Tensor:
        """[B, 32, D]: as diffusers' pipeline gives them to a `fold`ed transformer, but shorter."""
        hidden = self(texts)[0]
        assert hidden.shape[1] < _KEPT_TOKENS, "the last token must be padding"
        return F.pad(hidden, (0, 0, 0, _KEPT_TOKENS - hidden.shape[1]))

    @torch.no_grad()
    def all_of(self, batch: Sequence[world.Scene], seed: int) -> Said:
        """Word scenes, each in four ways."""
        each = (one for one in batch for _ in range(_WORDINGS))
        texts = [world.caption(one, seed * _WORDINGS + i) for i, one in enumerate(each)]
        parts = [self.folded(texts[i : i + 1024]) for i in range(0, len(texts), 1024)]
        hidden = torch.cat(parts).unflatten(0, (len(batch), _WORDINGS))
        return Said(hidden, self.folded([""])[0])


def fold(model: WanTransformer3DModel) -> None:
    """Have the last token of a text count for all that `Words.folded` left out."""
    for block in model.blocks:
        attention: Any = block.attn2
        attention.set_processor(_Folded())


class _Folded:
    """Attention to a text whose padding, equal rows all, is computed once and counted often."""

    def __call__(self, attn: Any, hidden: Tensor, text: Tensor, *_: object) -> Tensor:  # noqa: ANN401
        query = attn.norm_q(attn.to_q(hidden))
        key, value = attn.norm_k(attn.to_k(text)), attn.to_v(text)
        heads = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
        left_out = query.new_full((1,), math.log(PROMPT_TOKENS - text.shape[1] + 1))
        times = F.pad(left_out, (text.shape[1] - 1, 0))
        made = F.scaled_dot_product_attention(*heads, attn_mask=times.expand(hidden.shape[1], -1))
        return attn.to_out[0](made.transpose(1, 2).flatten(2))


class Quiz(nn.Module):
    """Asks of an embedded caption what its scene is; it teaches the text encoder and is dropped."""

    def __init__(self, width: int) -> None:
        """Prepare one question per property."""
        super().__init__()
        self._answers: dict[str, list[str]] = {
            "motion": [*world.MOTIONS],
            "top": [*world.BACKGROUNDS, UNSAID],
            "bottom": [*world.BACKGROUNDS, UNSAID],
        }
        for place in ("first", "second"):
            self._answers |= {
                f"{place} shape": [*world.SHAPES, UNSAID],
                f"{place} colour": [*world.COLOURS, UNSAID],
            }
        self._ask = nn.ModuleDict(
            {name: nn.Linear(width, len(answers)) for name, answers in self._answers.items()}
        )

    def forward(self, hidden: Tensor, mask: Tensor, truths: Sequence[dict[str, str]]) -> Tensor:
        """The mean loss of all answers."""
        pooled = hidden.sum(1) / mask.sum(1, keepdim=True)
        losses = [
            F.cross_entropy(
                self._ask[name](pooled),
                torch.tensor(
                    [answers.index(truth[name]) for truth in truths], device=pooled.device
                ),
            )
            for name, answers in self._answers.items()
        ]
        return torch.stack(losses).mean()


def truth(one: world.Scene, said: str) -> dict[str, str]:
    """The right answers to the quiz."""
    first, second = (*one.things, None)[:2]
    told = "background" in said or "gradient" in said
    return {
        "motion": one.motion,
        "top": one.background[0] if told else UNSAID,
        "bottom": one.background[1] if told else UNSAID,
        "first shape": first.shape if first else UNSAID,
        "first colour": first.colour if first else UNSAID,
        "second shape": second.shape if second else UNSAID,
        "second colour": second.colour if second else UNSAID,
    }


def reconstruction(vae: AutoencoderKLWan, clip: Tensor) -> tuple[Tensor, Tensor]:
    """The VAE's loss on clips in -1 to 1, and its error as PSNR in dB."""
    mean, spread = whole.encode(vae, clip)
    given = mean + (0.5 * spread).exp() * torch.randn_like(mean)
    made = whole.decode(vae, given).float()
    error = F.mse_loss(made, clip)
    kl = 0.5 * (mean.square() + spread.exp() - 1 - spread).mean()
    psnr = -10 * torch.log10(error.detach() / 4)
    return F.l1_loss(made, clip) + error + _KL * kl, psnr


@dataclass(frozen=True, slots=True)
class Course:
    """Which part of the noise a transformer is taught."""

    shift: float
    lowest: float = 0.0  # sigma
    highest: float = 1.0
    expands: bool = False  # one timestep per token; half of the clips begin with a given picture

    def sigmas(self, count: int, device: torch.device) -> Tensor:
        """Draw noise levels as a shifted schedule spends its steps on them, [B]."""
        low, high = (self._place(sigma) for sigma in (self.lowest, self.highest))
        places = low + (high - low) * torch.rand(count, device=device)
        return self.shift * places / (1 + (self.shift - 1) * places)

    def _place(self, sigma: float) -> float:
        return sigma / (self.shift - (self.shift - 1) * sigma)


def flow(model: WanTransformer3DModel, latents: Tensor, texts: Tensor, course: Course) -> Tensor:
    """The loss of one transformer, which finds noise minus latents, [B, C, F', h, w]."""
    sigmas = course.sigmas(len(latents), latents.device)
    noise = torch.randn_like(latents)
    free = torch.ones_like(latents[:, :1])
    timestep = sigmas * 1000
    if course.expands:
        free[::2, :, 0] = 0
        timestep = (free[:, 0, :, ::2, ::2] * timestep[:, None, None, None]).flatten(1)
    level = sigmas[:, None, None, None, None] * free
    given = (1 - level) * latents + level * noise
    made = model(given, timestep, texts, return_dict=False)[0]
    wrong = (made.float() - (noise - latents)).square() * free
    return wrong.sum() / free.expand_as(wrong).sum()


def psnr_of(vae: AutoencoderKLWan, clip: Tensor) -> float:
    """How well held-out clips come back, in dB."""
    coder: Any = vae
    with torch.no_grad():
        made = whole.decode(coder, whole.encode(coder, clip)[0]).clamp(-1, 1)
    return float(-10 * torch.log10(F.mse_loss(made.float(), clip) / 4))
