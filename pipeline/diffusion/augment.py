"""Non-leaking geometric augmentation (Karras et al. 2022, appendix F.2): drawn parameters, then a deterministic warp.

The network is given the parameters, and generates with all of them zero: what is drawn here never shows in what is generated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.diffusion.unet import AUGMENTATIONS

SHIFT = 0.08
"""Standard deviation of a shift, as a share of the side."""
ROTATION = 0.15
"""Standard deviation of a rotation, in radians."""
LOG_SCALE = 0.1
"""Standard deviation of the logarithm of a zoom."""


def draw(count: int, probability: float, generator: torch.Generator | None, device: str) -> Tensor:
    """Parameters ``float32 [count, 6]``: flip (0 or 1), shift x, shift y, cos − 1 and sin of the rotation, log zoom.

    Each of the four kinds is on with ``probability``.
    """
    on = torch.rand(count, 4, generator=generator, device=device) < probability
    normal = torch.randn(count, 4, generator=generator, device=device)
    angle = ROTATION * normal[:, 2] * on[:, 2]
    shift = SHIFT * normal[:, :2] * on[:, 1:2]
    columns = [on[:, 0].float(), shift[:, 0], shift[:, 1], angle.cos() - 1, angle.sin(), LOG_SCALE * normal[:, 3] * on[:, 3]]
    parameters = torch.stack(columns, dim=1)
    assert parameters.shape[1] == AUGMENTATIONS
    return parameters


def apply(images: Tensor, parameters: Tensor) -> Tensor:
    """Warp ``images [n, C, H, W]`` by ``parameters [n, 6]``, bilinear, edges repeated; zero parameters give the image itself.

    Volumes ``[n, C, D, H, W]`` are warped in the plane, every slice alike: slices are often thicker than their pixels are wide.
    """
    if images.ndim == 5:
        return apply(images.flatten(1, 2), parameters).reshape(images.shape)
    flip, zoom = 1 - 2 * parameters[:, 0], torch.exp(-parameters[:, 5])
    cos, sin = 1 + parameters[:, 3], parameters[:, 4]
    rows = torch.stack(
        [
            torch.stack([zoom * cos * flip, -zoom * sin, -2 * parameters[:, 1]], dim=1),
            torch.stack([zoom * sin * flip, zoom * cos, -2 * parameters[:, 2]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    touched = parameters.ne(0).any(dim=1)[:, None, None, None]
    return torch.where(touched, warped, images)
