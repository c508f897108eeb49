"""What the denoiser's U-Net is built of: residual blocks, attention, and how grids are halved and doubled.

Images ``[n, C, H, W]`` and volumes ``[n, C, D, H, W]`` share one definition: below, "..." stands for the sides of either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Residual block with adaptive normalisation (scale and shift from the condition); halves first, attends and reads last where asked."""

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        hidden: int,
        dropout: float,
        attention: bool,
        halve: bool = False,
        reads: bool = False,
    ) -> None:
        super().__init__()
        self.halve = halve
        self.norm1 = ChannelNorm(inputs)
        self.conv1 = conv(dims, inputs, outputs, 3)
        self.scale_shift = nn.Linear(hidden, 2 * outputs)
        self.norm2 = ChannelNorm(outputs)
        self.conv2 = conv(dims, outputs, outputs, 3)
        self.dropout = dropout
        self.skip = conv(dims, inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(dims, outputs) if attention else None
        self.reading = CrossAttention(dims, outputs, hidden) if reads else None
        silence(self.conv2)

    def forward(self, x: Tensor, condition: Tensor, read: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """``[n, inputs, ...]``, ``[n, hidden]`` and what was read to ``[n, outputs, ...]`` (half the sides where it halves)."""
        if self.halve:
            x = F.avg_pool2d(x, 2) if x.ndim == 4 else F.avg_pool3d(x, 2)
        y = self.conv1(F.silu(self.norm1(x)))
        scale_shift: Tensor = self.scale_shift(condition)
        scale, shift = scale_shift.reshape(*scale_shift.shape, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        y = F.silu(self.norm2(y) * (1 + scale) + shift)
        y = self.conv2(F.dropout(y, self.dropout, self.training))
        x = (self.skip(x) + y) * math.sqrt(0.5)
        if self.attention is not None:
            x = self.attention(x)
        if self.reading is not None and read is not None:
            x = self.reading(x, *read)
        return x


class Attention(nn.Module):
    """Self-attention over the grid, 64 channels a head."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 64)
        self.norm = ChannelNorm(width)
        self.qkv = conv(dims, width, 3 * width, 1)
        self.out = conv(dims, width, width, 1)
        silence(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, ...]`` to the same."""
        n, width, *sides = x.shape
        tokens = self.qkv(self.norm(x)).movedim(1, -1).reshape(n, math.prod(sides), 3, self.heads, width // self.heads)
        query, key, value = tokens.permute(2, 0, 3, 1, 4).unbind(0)
        y = attend(query, key, value)
        y = y.transpose(1, 2).reshape(n, *sides, width).movedim(-1, 1)
        attended: Tensor = x + self.out(y)
        return attended


class CrossAttention(nn.Module):
    """Attention of the grid's places to the words of a text (Rombach et al. 2022, arXiv:2112.10752, section 3.3), 64 channels a head."""

    def __init__(self, dims: int, width: int, hidden: int) -> None:
        super().__init__()
        self.heads = max(1, width // 64)
        self.norm = ChannelNorm(width)
        self.query = conv(dims, width, width, 1)
        self.key_value = nn.Linear(hidden, 2 * width)
        self.out = conv(dims, width, width, 1)
        silence(self.out)

    def forward(self, x: Tensor, words: Tensor, there: Tensor) -> Tensor:
        """``[n, width, ...]``, and ``[n, L, hidden]`` of which ``there [n, L]`` tells what is a word, to ``[n, width, ...]``."""
        n, width, *sides = x.shape
        query = self.query(self.norm(x)).reshape(n, self.heads, width // self.heads, -1).transpose(2, 3)
        both = self.key_value(words).reshape(n, words.shape[1], 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        found = attend(query, both[0], both[1], there[:, None, None, :])
        read: Tensor = self.out(found.transpose(2, 3).reshape(n, width, *sides))
        return (x + read) * math.sqrt(0.5)


def attend(query: Tensor, key: Tensor, value: Tensor, there: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, on a CPU in float32: torch's kernel for bfloat16 takes two to five times as long there (2.15)."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=there)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=there)


class Double(nn.Module):
    """Double the grid: nearest neighbour, then a convolution."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.conv = conv(dims, width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, ...]`` to the same with doubled sides."""
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return y


class Expand(nn.Module):
    """Double the grid: a convolution of side and stride 2 transposed, as one matrix product whose outputs are shuffled into place."""

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(dims, inputs, outputs * 2**dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, ...]`` to ``[n, outputs, ...]`` with doubled sides."""
        return shuffle(self.conv(x), 2)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel.

    In channels-last memory this is one pass over contiguous vectors: on a CPU about five times as fast as group normalisation.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, ...]`` to the same."""
        y: Tensor = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias).movedim(-1, 1)
        return y


def pad(x: Tensor, multiple: int) -> Tensor:
    """Pad ``[n, C, ...]`` on all sides, by repeating the border, until every side is a multiple of ``multiple``."""
    short = [-side % multiple for side in x.shape[2:]]
    if not any(short):
        return x
    # F.pad counts from the last axis.
    return F.pad(x, [part for more in reversed(short) for part in (more // 2, more - more // 2)], mode="replicate")


def crop(x: Tensor, sides: Sequence[int]) -> Tensor:
    """What :func:`pad` was given, of sides ``sides``."""
    for axis, side in enumerate(sides, start=2):
        x = x.narrow(axis, (x.shape[axis] - side) // 2, side)
    return x


def conv(dims: int, inputs: int, outputs: int, kernel: int) -> nn.Conv2d | nn.Conv3d:
    """A convolution of images or volumes that keeps their sides."""
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(inputs, outputs, kernel, padding=kernel // 2)


def silence(layer: nn.Conv2d | nn.Conv3d) -> None:
    """Start a layer at zero, so that what it ends begins as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def unshuffle(x: Tensor, patch: int) -> Tensor:
    """Move ``patch``-sided blocks of pixels or voxels to channels: ``[n, C, ...]`` to ``[n, C · patch^dims, ... / patch]``."""
    if x.ndim == 4:
        return F.pixel_unshuffle(x, patch)
    n, channels, depth, height, width = x.shape
    blocks = x.reshape(n, channels, depth // patch, patch, height // patch, patch, width // patch, patch)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, channels * patch**3, depth // patch, height // patch, width // patch)


def shuffle(x: Tensor, patch: int) -> Tensor:
    """The inverse of :func:`unshuffle`."""
    if x.ndim == 4:
        return F.pixel_shuffle(x, patch)
    n, channels, depth, height, width = x.shape
    blocks = x.reshape(n, channels // patch**3, patch, patch, patch, depth, height, width)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, channels // patch**3, depth * patch, height * patch, width * patch)
