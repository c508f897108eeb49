"""What is done to a classifier's training images: shifts by whole pixels always, and classical augmentation where it is asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TURN, ZOOM, TONE = 10.0, 0.1, 0.15
"""Classical augmentation: degrees, share of the size, share of contrast and brightness. Never a flip: the side can be the finding."""


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Move every image by whole pixels, repeating its border.

    Args:
        images: ``[n, C, H, W]``.
        offsets: int64 ``[n, 2]``, down and right.
    """
    n, _, height, width = images.shape
    rows = (torch.arange(height, device=images.device) - offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - offsets[:, 1:]).clamp(0, width - 1)
    item = torch.arange(n, device=images.device)
    # Advanced indices around the slice put the channel axis last.
    return images[item[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def augmented(images: Tensor, moves: Tensor) -> Tensor:
    """Turn, zoom and shift every image, repeating its border, and change its contrast and brightness.

    Args:
        images: ``[n, C, H, W]`` in -1..1; so is what is returned.
        moves: ``[n, 6]``: angle in radians, change of size, shift right and down (1 is half the image), of contrast and of brightness.
    """
    angle, size, right, down, contrast, brightness = moves.unbind(1)
    cosine, sine, aspect = angle.cos() / (1 + size), angle.sin() / (1 + size), images.shape[2] / images.shape[3]
    theta = torch.stack([cosine, -sine * aspect, -right, sine / aspect, cosine, -down], dim=1).reshape(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    tone = moved * (1 + contrast)[:, None, None, None] + brightness[:, None, None, None]
    return tone.clamp(-1, 1)
