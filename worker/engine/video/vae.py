"""Wan's VAE decoder over frames that lie channels-last, one latent frame after another."""

from typing import Any, Final

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d
from torch import Tensor, nn

from worker.engine.parallel.strips import Strips
from worker.engine.video.fused import normalised, settle, spread
from worker.engine.video.terms import Shortcut, Sum

_PAST: Final = 2  # frames that a causal convolution looks back
_FEW: Final = 128  # channels


class Decoder:
    """The decoder of one VAE; its weights are laid channels-last where they are."""

    def __init__(self, vae: AutoencoderKLWan, strips: Strips) -> None:
        """Take a loaded VAE, and this rank's share of every picture."""
        self._strips = strips
        self._decoder: Any = vae.decoder
        self._past: dict[nn.Module, Tensor] = {}  # the last frames that each convolution saw
        self._tables: dict[tuple[int, ...], Tensor] = {}  # where frames meet their past, by shape
        self._weights: dict[nn.Module, Tensor] = {}
        for module in vae.decoder.modules():
            if isinstance(module, WanCausalConv3d):
                self._weights[module] = _laid(module)
            elif isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                self._weights[module] = _last(_phases(module.weight.data))

    def frames(self, hidden: Tensor, *, first: bool) -> Tensor:
        """Decode the next latent frames.

        Args:
            hidden: [1, C, n, h, w] after the VAE's `post_quant_conv`.
            first: whether they begin the video; then n is 1 and gives one frame, else 4 n.

        Returns:
            This rank's rows, [n', h', W', 3 * patch**2].
        """
        decoder = self._decoder
        hidden = hidden[0].permute(1, 2, 3, 0)[:, self._strips.mine]
        table, room = self._table(decoder.conv_in, hidden)
        room.copy_(hidden)
        x = Sum(self._convolved(decoder.conv_in, table), decoder.conv_in.bias)
        x, _ = self._residual(decoder.mid_block.resnets[0], x)
        for attention, block in zip(
            decoder.mid_block.attentions, decoder.mid_block.resnets[1:], strict=True
        ):
            x, _ = self._residual(block, self._attend(attention, x))
        for block in decoder.up_blocks:
            x = self._up(block, x, first=first)
        table, room = self._table(decoder.conv_out, x.y)
        settle(x, None, decoder.norm_out.gamma, room)
        y = self._convolved(decoder.conv_out, table)
        if first:
            self._tables.clear()  # all others have more frames
        return y + decoder.conv_out.bias

    def _residual(self, block: Any, x: Sum) -> tuple[Sum, Tensor]:  # noqa: ANN401
        """One residual block; also what went into it."""
        table, room = self._table(block.conv1, x.y)
        entry = torch.empty_like(x.y)
        settle(x, entry, block.norm1.gamma, room)
        y = self._convolved(block.conv1, table)
        table, room = self._table(block.conv2, y)
        settle(Sum(y, block.conv1.bias), None, block.norm2.gamma, room)
        y = self._convolved(block.conv2, table)
        short = block.conv_shortcut
        around = entry if isinstance(short, nn.Identity) else _pointwise(short, entry)
        return Sum(y, block.conv2.bias, around), entry

    def _attend(self, block: Any, x: Sum) -> Sum:  # noqa: ANN401
        """Attention of each frame to itself."""
        entry = torch.empty_like(x.y)
        settle(x, entry, None, None)
        whole = self._strips.whole(entry)
        n, h, w, c = whole.shape
        qkv = _pointwise(block.to_qkv, normalised(whole, block.norm.gamma))
        q, k, v = qkv.view(n, 1, h * w, 3 * c).chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v).view(n, h, w, c)
        return Sum(_pointwise(block.proj, self._strips.cut(y)), None, entry)

    def _up(self, block: Any, x: Sum, *, first: bool) -> Sum:  # noqa: ANN401
        """One level: residual blocks, then twice the size and, for some, twice the frames."""
        x, entry = self._residual(block.resnets[0], x)
        for residual in block.resnets[1:]:
            x, _ = self._residual(residual, x)
        resample = _resampling(block)
        if resample is None:
            return x
        if resample.mode == "upsample3d" and not first:
            x = Sum(self._doubled(resample.time_conv, x))
        conv = resample.resample[1]
        table, room = self._table(conv, x.y)
        settle(x, room, None, None)
        self._strips.meet(table)
        # phases instead of a repeated picture: 4/9 of the work, and a quarter of the memory
        phases = F.conv2d(table.permute(0, 3, 1, 2), self._weights[conv], padding=(0, 1))
        phases = phases.permute(0, 2, 3, 1).contiguous()
        return Sum(spread(phases, conv.bias, _shortcut(block, entry, first=first)))

    def _doubled(self, conv: Any, x: Sum) -> Tensor:  # noqa: ANN401
        """Two frames of each; [2 n, h, w, C]."""
        n, h, w, c = x.y.shape
        table, room = self._table(conv, x.y)
        settle(x, room, None, None)
        y = self._convolved(conv, table) + conv.bias
        return y.view(n, h, w, 2, c).permute(0, 3, 1, 2, 4).contiguous().view(2 * n, h, w, c)

    def _table(self, conv: Any, like: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """What a convolution is to read, and in it the place of its new frames.

        Returns:
            [past + n, halo + h + halo, W, C], with zeros beyond the picture's edges, and the part
            of it that is shaped as `like`, to be written.
        """
        n, h, w, c = like.shape
        past = _PAST if isinstance(conv, nn.Conv3d) else 0
        halo = conv.kernel_size[-1] // 2
        shape = (past + n, halo + h + halo, w, c)
        if shape not in self._tables:
            self._tables[shape] = like.new_zeros(shape)
        table = self._tables[shape]
        if past:
            table[:past] = self._past.get(conv, torch.zeros(()))
        return table, table[past:, halo : halo + h]

    def _convolved(self, conv: Any, table: Tensor) -> Tensor:  # noqa: ANN401
        """Convolve a table, without bias, and keep its last frames; [n, h, W, C']."""
        halo = conv.kernel_size[-1] // 2
        if halo:
            self._strips.meet(table[_PAST:])
        if conv not in self._past:
            self._past[conv] = torch.empty_like(table[:_PAST])
        self._past[conv].copy_(table[-_PAST:])
        weight = self._weights[conv]
        if weight.dim() == 4:  # time is folded into the channels
            n = len(table) - _PAST
            folded = torch.cat([table[k : k + n] for k in range(_PAST + 1)], dim=-1)
            y = F.conv2d(folded.permute(0, 3, 1, 2), weight, padding=(0, halo))
            y = y.permute(0, 2, 3, 1)
        else:
            x = table.unsqueeze(0).permute(0, 4, 1, 2, 3)
            y = F.conv3d(x, weight, padding=(0, 0, halo))[0].permute(1, 2, 3, 0)
        return y[..., : conv.out_channels].contiguous()


def _resampling(block: Any) -> Any:  # noqa: ANN401
    """What enlarges at the end of a level, VAE 2.2's or 2.1's; None at the last one."""
    if hasattr(block, "upsampler"):
        return block.upsampler
    return block.upsamplers[0] if block.upsamplers else None


def _shortcut(block: Any, entry: Tensor, *, first: bool) -> Shortcut | None:  # noqa: ANN401
    if not hasattr(block, "avg_shortcut"):
        return None
    times = block.avg_shortcut.factor_t
    return Shortcut(entry, times, skip=times - 1 if first else 0)


def _pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution with one tap over [n, H, W, C]."""
    weight = conv.weight
    assert isinstance(weight, Tensor)
    return F.linear(x, weight.flatten(1), conv.bias)  # type: ignore[arg-type]


def _phases(weight: Tensor) -> Tensor:
    """Two by two taps for each phase of a 3x3 convolution over repeated pixels; [4 O, C, 2, 2]."""
    taps = weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=torch.float32)
    folded = torch.einsum("apk,bql,ockl->abocpq", taps, taps, weight.float())
    return folded.flatten(0, 2).to(weight.dtype)


def _laid(conv: WanCausalConv3d) -> Tensor:
    """The weight of a causal convolution as it runs fastest; in its place where it keeps its shape.

    Source: cuDNN 9.19 on an H200. Up to 128 channels its 3-D kernels reach 300 TFLOP/s and its
    2-D ones over folded time 560; with more channels the 3-D ones win. Tensor cores want output
    channels by eights.
    """
    weight = conv.weight.data
    if weight.shape[0] % 8:
        return _last(F.pad(weight, (0, 0) * 4 + (0, -weight.shape[0] % 8)))
    if weight.shape[1] <= _FEW and weight.shape[-1] > 1:
        return _last(weight.transpose(1, 2).flatten(1, 2))
    conv.weight.data = _last(weight)
    return conv.weight.data


def _last(weight: Tensor) -> Tensor:
    layout = torch.channels_last_3d if weight.dim() == 5 else torch.channels_last
    return weight.contiguous(memory_format=layout)
