"""MONAI's DiffusionModelUNet as F(x, c_noise, c): another backbone for the same training, sampling and audit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.diffusion import grid
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.layers import crop, pad, shuffle, unshuffle
from pipeline.diffusion.schedules import STEPS, level


class MonaiUNet(nn.Module):
    """MONAI's network; the arguments as those of :class:`pipeline.diffusion.unet.UNet`.

    It has no dropout in its residual blocks and cannot be told of an augmentation: both must be off. Its noise level is given as the
    time step 0–999 of ``noise_schedule``, so that weights trained with MONAI's schedulers mean the same here; EDM's levels, which have
    no time steps, become about 250 · c_noise + 500.
    """

    CLASS_TABLE = "net.class_embedding.weight"
    steps: Tensor

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: int,
        widths: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        patch: int,
        dropout: float = 0.0,
        dims: int = 2,
        noise_schedule: str = "edm",
    ) -> None:
        super().__init__()
        if dropout:
            raise ValueError("MONAI's DiffusionModelUNet has no dropout in its residual blocks: dropout must be 0")
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        self.patch, self.classes = patch, classes
        self.multiple = patch * 2 ** (len(widths) - 1)
        attends = [side in attention for side in grid.sides(size, patch, len(widths))]
        heads = math.gcd(64, *(wide for wide, on in zip(widths, attends) if on)) if any(attends) else widths[-1]
        self.net = DiffusionModelUNet(
            spatial_dims=dims,
            in_channels=channels * patch**dims,
            out_channels=channels * patch**dims,
            num_res_blocks=blocks,
            channels=tuple(widths),
            attention_levels=attends,
            num_head_channels=heads,
            norm_num_groups=math.gcd(32, *widths),
            num_class_embeds=classes + 1,
        )
        if noise_schedule == "edm":
            known = torch.linspace(-2.0, 2.0, 1000)
        else:
            known = torch.from_numpy(level(noise_schedule, [(step + 1) / STEPS for step in range(STEPS)])).log().float() / 4
            known = torch.nan_to_num(known, posinf=2.0)
        self.register_buffer("steps", known.contiguous(), persistent=False)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition, augmentation: Tensor | None = None) -> Tensor:
        """``[n, C, ...]`` to the same shape; ``c_noise [n]``, the conditions of as many images; ``augmentation`` is not heard."""
        sides = x.shape[2:]
        inside = unshuffle(pad(x, self.multiple), self.patch)
        made = self.net(inside, self._time_step(c_noise), class_labels=condition.classes)
        return crop(shuffle(made, self.patch), sides)

    def _time_step(self, c_noise: Tensor) -> Tensor:
        """The time step of a level, ``[n]``, linear between the known ones."""
        above = torch.searchsorted(self.steps, c_noise.float().contiguous()).clamp(1, len(self.steps) - 1)
        low, high = self.steps[above - 1], self.steps[above]
        share = ((c_noise - low) / (high - low)).clamp(0, 1)
        return above - 1 + share
