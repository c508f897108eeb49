"""The networks of the field's libraries as F(x, c_noise, c, augmentation), so that one loop can train and time them all.

No peer is told of the augmentation, and each gets the noise level on the scale of its own 1000 time steps: c_noise = ln(sigma)/4 in −2..2
becomes 250 · c_noise + 500. Index ``classes`` is the null class everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.diffusion.conditioning import Condition


def time_step(c_noise: Tensor) -> Tensor:
    """The level on the scale of the libraries' time steps."""
    return 250 * c_noise + 500


class MonaiNetwork(nn.Module):
    """MONAI's DiffusionModelUNet.

    Args:
        channels: of the image.
        classes: number of classes.
        widths: channels at each resolution, finest first, each a multiple of ``groups``.
        attention: whether each resolution has attention.
        blocks: residual blocks at each resolution.
        head: channels of an attention head.
        groups: of the group normalisation.
        flash: use torch's fused attention (MONAI's ``use_flash_attention``) instead of MONAI's own.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        widths: Sequence[int] = (128, 256, 256),
        attention: Sequence[bool] = (False, True, True),
        blocks: int = 1,
        head: int = 64,
        groups: int = 32,
        flash: bool = False,
    ) -> None:
        super().__init__()
        from monai.networks.nets import DiffusionModelUNet

        self.classes = classes
        self.net = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=channels,
            out_channels=channels,
            channels=tuple(widths),
            attention_levels=tuple(attention),
            num_res_blocks=blocks,
            num_head_channels=head,
            norm_num_groups=groups,
            num_class_embeds=classes + 1,
            use_flash_attention=flash,
        )

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition, augmentation: Tensor | None = None) -> Tensor:
        """``[n, C, H, W]``, ``[n]`` and n conditions to ``[n, C, H, W]``."""
        result: Tensor = self.net(x, time_step(c_noise), class_labels=condition.classes)
        return result


class DiffusersNetwork(nn.Module):
    """diffusers' UNet2DModel; the arguments as those of :class:`MonaiNetwork`. Its attention is torch's fused one."""

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        widths: Sequence[int] = (128, 256, 256),
        attention: Sequence[bool] = (False, True, True),
        blocks: int = 1,
        head: int = 64,
        groups: int = 32,
    ) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.classes = classes
        self.net = UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(widths),
            down_block_types=tuple("AttnDownBlock2D" if on else "DownBlock2D" for on in attention),
            up_block_types=tuple("AttnUpBlock2D" if on else "UpBlock2D" for on in reversed(attention)),
            layers_per_block=blocks,
            attention_head_dim=head,
            norm_num_groups=groups,
            num_class_embeds=classes + 1,
        )

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition, augmentation: Tensor | None = None) -> Tensor:
        """``[n, C, H, W]``, ``[n]`` and n conditions to ``[n, C, H, W]``."""
        result: Tensor = self.net(x, time_step(c_noise), class_labels=condition.classes, return_dict=False)[0]
        return result


class LucidrainsNetwork(nn.Module):
    """lucidrains' Unet (denoising-diffusion-pytorch), which knows no classes: the conditions are ignored.

    Args:
        channels: of the image.
        classes: number of classes.
        width: channels at the finest resolution.
        factors: of the channels at each resolution.
        flash: use torch's fused attention at the coarsest resolution.
    """

    def __init__(self, channels: int, classes: int, *, width: int = 64, factors: Sequence[int] = (1, 2, 4, 8), flash: bool = False) -> None:
        super().__init__()
        from denoising_diffusion_pytorch import Unet

        self.classes = classes
        self.net = Unet(width, dim_mults=tuple(factors), channels=channels, flash_attn=flash)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition, augmentation: Tensor | None = None) -> Tensor:
        """``[n, C, H, W]`` and ``[n]`` to ``[n, C, H, W]``."""
        result: Tensor = self.net(x, time_step(c_noise))
        return result
