"""Our forward of a whole transformer, for every precision class but `reference`."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from shared.vocabulary.plan import Build
from worker.engine.cache.blocks import Blocks, blocks_of
from worker.engine.kernels import block as own
from worker.engine.kernels.attention import choose
from worker.engine.kernels.block import Modulation, Opening, Rotary
from worker.engine.kernels.norm import Norm
from worker.engine.kernels.precision import lower_block
from worker.engine.kernels.rows import add_norm
from worker.engine.kernels.text import Text, folded
from worker.engine.parallel.sequence import SelfAttention


def install(
    transformers: Iterable[WanTransformer3DModel], build: Build, device: torch.device
) -> SelfAttention:
    """Give a model's loaded transformers, their blocks wrapped, our forward in place of their own.

    Args:
        transformers: changed in place; of these instances only.
        build: its precision says whether linears are lowered to fp8.
        device: where the transformers work, wherever they are now.

    Returns:
        The self-attention that they share.

    Raises:
        EngineFault: kind `bad_input`, when the attention asked for is not here or is wrong.
    """
    transformers = list(transformers)
    width = transformers[0].config["attention_head_dim"]
    kernel = choose(build.attention, device, low=build.precision == "fp8_attn", width=width)
    attend = SelfAttention(kernel.attend, kernel.with_lse, kernel.name)
    for transformer in transformers:
        blocks = blocks_of(transformer)
        for block in blocks.inner:
            typed: Any = block  # a WanTransformerBlock
            if build.precision in ("fp8", "fp8_attn"):
                lower_block(typed, device)
            elif typed.attn1.to_q.weight.is_cuda:
                own.join_projections(typed.attn1)
            typed.forward = partial(own.forward, typed, attend=attend)
        replaced: Any = transformer
        replaced.forward = Forward(transformer, blocks)
    return attend


class Forward:
    """A transformer's forward that remembers what does not change between steps."""

    def __init__(self, transformer: WanTransformer3DModel, blocks: Blocks) -> None:
        """Keep the modules; nothing is copied."""
        self._transformer = transformer
        self._blocks = blocks
        self._texts = WeakTensorKeyDictionary()  # a prompt's part goes when its job drops it
        self._openings = WeakTensorKeyDictionary()  # by a step's latents, and gone with them
        self._rotary: tuple[tuple[int, ...], Rotary] | None = None

    def __call__(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        return_dict: bool = False,  # noqa: FBT001, FBT002 - as diffusers calls it
    ) -> tuple[Tensor]:
        """Predict the flow.

        Args:
            hidden_states: [1, C_in, F, h, w]; the same tensor for both branches of a step.
            timestep: [1], or one per token, [1, L]. The tokens of the first latent frame then
                share one value and all later ones share another, as Wan2.2's do.
            encoder_hidden_states: [1, 512, D_text]; the same tensor for all steps of a job.
            return_dict: accepted for the likeness to diffusers; always a tuple comes back.

        Returns:
            [1, C_out, F, h, w], alone in a tuple.
        """
        frames, height, width = hidden_states.shape[2:]
        grid = (frames, height // 2, width // 2)
        first = hidden_states[0, 0].numel() // 4
        if timestep.ndim == 2:
            first //= frames
            timestep = torch.stack([timestep[0, 0], timestep[0, -1]])

        text = self._text(encoder_hidden_states)
        time, values = self._time(timestep, encoder_hidden_states)
        modulation = Modulation(values, first, self._opening(hidden_states))
        hidden = self._blocks(
            self._embed(hidden_states), text, modulation, self._angles(hidden_states)
        )
        return (self._head(hidden, time, first, grid),)

    def _text(self, states: Tensor) -> Text:
        if states not in self._texts:
            rows, times = folded(states)
            embedded = self._transformer.condition_embedder.text_embedder(rows)
            self._texts[states] = Text(embedded, times)
        return self._texts[states]

    def _opening(self, latents: Tensor) -> Opening | None:
        """What the branches of a step share: all up to the first attention to the text."""
        if len(self._texts) == 1:
            return None
        if latents not in self._openings:
            self._openings[latents] = Opening(self._blocks.inner[0])
        return self._openings[latents]

    def _time(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Embed the timesteps: [S, D] for the head and [6, S, D] for the blocks."""
        embedder = self._transformer.condition_embedder
        waves = embedder.timesteps_proj(timestep)
        waves = waves.to(embedder.time_embedder.linear_1.weight.dtype)
        time = embedder.time_embedder(waves).type_as(like)
        values = embedder.time_proj(F.silu(time)).unflatten(1, (6, -1)).transpose(0, 1)
        return time, values.contiguous()

    def _embed(self, latents: Tensor) -> Tensor:
        """Patches of (1, 2, 2) as tokens, [1, L, D]: a convolution without overlap is a product."""
        cells = latents.unflatten(4, (-1, 2)).unflatten(3, (-1, 2))  # [1, C, F, h, 2, w, 2]
        patches = cells.permute(0, 2, 3, 5, 1, 4, 6).reshape(1, -1, latents.shape[1] * 4)
        layer = self._transformer.patch_embedding
        return F.linear(patches, layer.weight.flatten(1), layer.bias)

    def _angles(self, latents: Tensor) -> Rotary:
        """Cos and sin of every token, [L, d / 2] fp32; they depend on the shape alone."""
        shape = tuple(latents.shape[2:])
        if self._rotary is None or self._rotary[0] != shape:
            cos, sin = (
                x[0, :, 0, 0::2].float().contiguous() for x in self._transformer.rope(latents)
            )
            self._rotary = shape, (cos, sin)
        return self._rotary[1]

    def _head(self, hidden: Tensor, time: Tensor, first: int, grid: tuple[int, ...]) -> Tensor:
        transformer = self._transformer
        shift, scale = (transformer.scale_shift_table[0, :, None] + time).unbind(0)  # [S, D] each
        _, normed = add_norm(hidden, Norm(1 + scale, shift, first, transformer.norm_out.eps))
        cells = transformer.proj_out(normed).reshape(1, *grid, 2, 2, -1)  # [1, F, h, w, 2, 2, C]
        return cells.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
