"""The denoiser's network: a U-Net that works on pixel-unshuffled images, told of noise, class and augmentation.

The input is rearranged in patch × patch blocks to channels, so that a 32-pixel image costs what a 16-pixel one does; blocks are
residual with adaptive normalisation (Dhariwal & Nichol 2021, arXiv:2105.05233), attention where the grid is small. Images
``[n, C, H, W]`` and volumes ``[n, C, D, H, W]`` share one definition: below, "..." stands for the sides of either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pipeline.diffusion import grid
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.layers import Block, ChannelNorm, Double, Expand, conv, crop, pad, shuffle, silence, unshuffle
from pipeline.diffusion.text import TextEncoder

AUGMENTATIONS = 7
"""Numbers that describe an image's augmentation to the network; all zero for an image as it is."""


class UNet(nn.Module):
    """F(x, c_noise, c, augmentation).

    ``CLASS_TABLE`` names the parameter with one row a class, the null class last; of several fields, one field after the other.

    Args:
        channels: of the image, 1–4.
        classes: number of classes, after the last of which comes the learned null class; of several fields, of each one's values
            (:class:`~pipeline.diffusion.conditioning.Condition`).
        widths: channels at each resolution, finest first.
        blocks: residual blocks at each resolution, in the encoder and in the decoder.
        attention: sides of the grid at which attention follows a block.
        size: side of the images; any size works, since the network pads inside and crops.
        patch: side of the pixel-unshuffle.
        dropout: inside the residual blocks, except for those of the finest of several resolutions (as in simple diffusion, Hoogeboom et
            al. 2023, arXiv:2301.11093).
        dims: 2 for images, 3 for volumes.
        checkpointing: keep only each block's input for the backward pass and compute the rest again: less memory, a third more work.
        vocabulary: words of a text that the network reads by cross-attention at its coarsest grid; 0 where it reads none.
        features: numbers in which each word is told, where that is not learned (:class:`~pipeline.diffusion.text.TextEncoder`).
        fields_read: whether each field is read beside the text, as a word of its own: of what a text says already, their sum alone is
            hardly learned. Where no text is read, the sum is.
        upsample: how the decoder doubles the grid: ``convolve`` (see :class:`Double`), or ``shuffle`` (see :class:`Expand`), which costs
            little, where the former is a quarter of a small network's work.
    """

    CLASS_TABLE = "condition.label.weight"

    def __init__(
        self,
        *,
        channels: int,
        classes: int | Sequence[int],
        size: int,
        widths: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        patch: int,
        dropout: float,
        dims: int = 2,
        checkpointing: bool = False,
        upsample: str = "convolve",
        vocabulary: int = 0,
        features: int = 0,
        fields_read: bool = False,
    ) -> None:
        super().__init__()
        self.dims, self.patch, self.blocks = dims, patch, blocks
        self.checkpointing = checkpointing
        self.multiple = patch * 2 ** (len(widths) - 1)
        hidden = 4 * widths[0]
        sizes = (classes,) if isinstance(classes, int) else classes
        self.condition = Embedding(hidden, sizes)
        self.stem = conv(dims, channels * patch**dims, widths[0], 3)
        attends = [side in attention for side in grid.sides(size, patch, len(widths))]
        reads = [bool(vocabulary) and level == len(widths) - 1 for level in range(len(widths))]
        rows = sum(size + 1 for size in sizes) if fields_read else 0
        self.text = TextEncoder(vocabulary, hidden, features, rows) if vocabulary else None
        dropouts = [dropout if level or len(widths) == 1 else 0.0 for level in range(len(widths))]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        for level, wide in enumerate(widths):
            for number in range(blocks):
                halve = level > 0 and number == 0
                self.down.append(Block(dims, width, wide, hidden, dropouts[level], attends[level], halve, reads[level]))
                width = wide
        self.middle = Block(dims, width, width, hidden, dropout, attends[-1], reads=reads[-1])
        for level, wide in reversed(list(enumerate(widths))):
            for number in range(blocks):
                inputs = width + wide if number == 0 else wide
                self.up.append(Block(dims, inputs, wide, hidden, dropouts[level], attends[level], reads=reads[level]))
                width = wide
            if level and upsample == "shuffle":
                self.up.append(Expand(dims, width, widths[level - 1]))
                width = widths[level - 1]
            elif level:
                self.up.append(Double(dims, width))
        self.norm = ChannelNorm(width)
        self.head = conv(dims, width, channels * patch**dims, 3)
        silence(self.head)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition, augmentation: Tensor | None = None) -> Tensor:
        """``[n, C, ...]`` to the same shape; ``c_noise [n]``, the conditions of as many images, ``augmentation [n, AUGMENTATIONS]``."""
        sides = x.shape[2:]
        x = pad(x, self.multiple)
        told = self.condition(c_noise, condition, augmentation)
        read: tuple[Tensor, Tensor] | None = None
        if self.text is not None and condition.text is not None:
            fields = None if self.text.fields is None else self.condition.of_fields(condition, self.text.fields)
            read = self.text(condition.text, fields)
            told = told + self.text.summary(*read)
        x = unshuffle(x, self.patch)
        x = self.stem(x.contiguous(memory_format=torch.channels_last if self.dims == 2 else torch.channels_last_3d))
        skips = []
        for number, block in enumerate(self.down, start=1):
            x = self._through(block, x, told, read)
            if number % self.blocks == 0:
                skips.append(x)
        x = self._through(self.middle, x, told, read)
        inside = 0
        for layer in self.up:
            if isinstance(layer, Double | Expand):
                x = layer(x)
                continue
            if inside % self.blocks == 0:
                x = torch.cat([x, skips.pop()], dim=1)
            x = self._through(layer, x, told, read)
            inside += 1
        return crop(shuffle(self.head(F.silu(self.norm(x))), self.patch), sides)

    def _through(self, block: nn.Module, x: Tensor, told: Tensor, read: tuple[Tensor, Tensor] | None) -> Tensor:
        read = None if block.reading is None else read
        again = self.checkpointing and self.training
        made: Tensor = checkpoint(block, x, told, read, use_reentrant=False) if again else block(x, told, read)
        return made


class Embedding(nn.Module):
    """Noise level, condition and augmentation to one vector ``[n, hidden]``.

    A field's codes are rows of one table; a continuous value is linear between the rows of the knots on either side of it (Gorishniy et
    al. 2022, arXiv:2203.05556, section 3.2). What the fields say is added up.
    """

    frequencies: Tensor
    first: Tensor

    def __init__(self, hidden: int, sizes: Sequence[int]) -> None:
        super().__init__()
        rows = [size + 1 for size in sizes]
        self.register_buffer("frequencies", torch.logspace(-1, 1.5, hidden // 4), persistent=False)
        self.register_buffer("first", torch.tensor([sum(rows[:field]) for field in range(len(rows))]), persistent=False)
        self.noise = nn.Linear(2 * (hidden // 4), hidden)
        self.label = nn.Embedding(sum(rows), hidden)
        self.augmentation = nn.Linear(AUGMENTATIONS, hidden, bias=False)
        self.out = nn.Linear(hidden, hidden)
        nn.init.normal_(self.label.weight, std=0.5 / math.sqrt(len(rows)))
        nn.init.normal_(self.augmentation.weight, std=0.5)

    def forward(self, c_noise: Tensor, condition: Condition, augmentation: Tensor | None) -> Tensor:
        """``[n]``, n conditions and ``[n, AUGMENTATIONS]`` to ``[n, hidden]``."""
        phase = c_noise.float()[:, None] * self.frequencies
        value = self.noise(torch.cat([phase.cos(), phase.sin()], dim=1)) + self._asked(condition)
        if augmentation is not None:
            value = value + self.augmentation(augmentation)
        return F.silu(self.out(F.silu(value)))

    def _asked(self, condition: Condition) -> Tensor:
        """``[n, hidden]``."""
        return self.of_fields(condition, self.label).sum(dim=1)

    def of_fields(self, condition: Condition, table: nn.Embedding) -> Tensor:
        """``[n, fields, hidden]``."""
        rows = condition.codes + self.first
        asked: Tensor = table(rows)
        if condition.between is not None:
            share = condition.between[..., None]
            asked = asked + share * (table(rows + (condition.between > 0)) - asked)
        return asked
