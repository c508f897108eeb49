"""Aligning two images: the affine warp under which one is most like the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

COARSE_STEPS = 5
"""Gauss–Newton steps at half the resolution, where there is enough of it."""
FINE_STEPS = 3
"""Steps at full resolution after them; images below :data:`COARSE_SIDE` take all their steps so."""
COARSE_SIDE = 64
BAND = (1 / 64, 1 / 16)
"""Blur levels, as shares of the side, between which the images are compared."""
CLIP = 0.3
"""Difference, in standard deviations of an image, beyond which a pixel pulls no harder, and counts as no worse."""
NEGLIGIBLE = 1e-20
"""Weight of a blur, of a largest one of 1, below which it changes no sum of grey levels in single precision."""
REACH = 0.1
"""Largest change of any coefficient in one step, in half sides."""


def window(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Weights ``[H, W]``: 1 in the central half, falling to 0 at 86 % of the way out.

    Beyond that, a shifted or cropped copy has lost its border.
    """

    def edge(count: int) -> Tensor:
        place = ((torch.arange(count, device=device) + 0.5) * 2 / count - 1).abs()
        return torch.cos(((place - 0.5) / 0.36).clamp(0, 1) * torch.pi / 2)

    return edge(height)[:, None] * edge(width)


def warp(images: Tensor, rows: Tensor) -> Tensor:
    """``images [n, C, H, W]`` under affine ``rows [n, 2, 3]`` in half sides (``torch.nn.functional.affine_grid``'s convention)."""
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def turned(images: Tensor, views: Tensor) -> Tensor:
    """Every image ``[n, C, H, W]`` under every view ``[v, 2, 3]``: ``[n · v, C, H, W]``, the views of an image in turn.

    Where each view takes its pixels from is worked out once for all images.
    """
    n, channels, height, width = images.shape
    grid = F.affine_grid(views, [len(views), 1, height, width], align_corners=False).reshape(1, -1, width, 2)
    seen = F.grid_sample(images.reshape(1, -1, height, width), grid, padding_mode="border", align_corners=False)
    return seen.reshape(n, channels, len(views), height, width).transpose(1, 2).reshape(-1, channels, height, width)


def smooth(images: Tensor) -> Tensor:
    """A 3 × 3 binomial filter on ``[n, C, H, W]``: noise and compression count less than structure."""
    kernel = torch.tensor([0.25, 0.5, 0.25], device=images.device)
    weight = (kernel[:, None] * kernel)[None, None].repeat(images.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), weight, groups=images.shape[1])


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``[n, C, H, W]``, standard deviation in pixels, borders renormalised."""
    return _gaussian(images.shape[2], sigma, images.device) @ images @ _gaussian(images.shape[3], sigma, images.device).T


def _gaussian(count: int, sigma: float, device: torch.device) -> Tensor:
    place = torch.arange(count, device=device, dtype=torch.float32)
    weight = torch.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    # What is lost in rounding is 0: subnormal numbers take a processor up to 40 times as long.
    weight = torch.where(weight < NEGLIGIBLE, 0.0, weight)
    return weight / weight.sum(dim=1, keepdim=True)


def aligned(query: Tensor, reference: Tensor, start: Tensor) -> Tensor:
    """The affine warps of ``query`` that make it most like ``reference``, pair by pair: ``float32 [n, 2, 3]``.

    Gauss–Newton steps from ``start [n, 2, 3]`` on the difference of both images' :data:`BAND`, normalised and clipped (Huber 1964), so that
    neither a bias field nor what covers a part of the image pulls at it; the step with the least squares counts. The slopes are the
    reference's, so that they are taken once and from the image that is not noisy, and each step is inverted and composed (Baker & Matthews
    2004, inverse compositional). Large images take their first steps at half the resolution.
    """
    fine, coarse = (max(0.5, level * min(query.shape[2:])) for level in BAND)
    query, reference = (blur(one, fine) - blur(one, coarse) for one in (query, reference))
    if min(query.shape[2:]) >= COARSE_SIDE:
        rows = _steps(F.avg_pool2d(query, 2), F.avg_pool2d(reference, 2), start, COARSE_STEPS)
        return _steps(query, reference, rows, FINE_STEPS)
    return _steps(query, reference, start, COARSE_STEPS + FINE_STEPS)


def _steps(query: Tensor, reference: Tensor, start: Tensor, steps: int) -> Tensor:
    weight = window(query.shape[2], query.shape[3], query.device)
    target = normalised(reference, weight)
    dy, dx = _slopes(target)
    basis = _basis(query)
    jacobian = (torch.cat([dx[:, :, None] * basis, dy[:, :, None] * basis], dim=2) * weight).transpose(1, 2).flatten(2)
    normal = jacobian @ jacobian.transpose(1, 2)
    damping = 1e-3 * normal.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + 1e-6
    # No check of what is invertible by its damping: it would wait for the device.
    solve = torch.linalg.inv_ex(normal + damping * torch.eye(6, device=query.device)).inverse @ jacobian
    identity = torch.eye(3, device=query.device).expand(len(query), 3, 3)
    rows, best, least = start, start, torch.full((len(query),), torch.inf, device=query.device)
    for step in range(steps + 1):
        difference = normalised(warp(query, rows), weight) - target
        clipped = difference.clamp(-CLIP, CLIP)
        left = (clipped.square() * weight).mean(dim=(1, 2, 3))
        best = torch.where((left < least)[:, None, None], rows, best)
        least = torch.minimum(left, least)
        if step == steps:
            break
        change = (solve @ (clipped * weight).flatten(1)[:, :, None]).reshape(-1, 2, 3).clamp(-REACH, REACH)
        moved = identity.clone()
        moved[:, :2] += change
        rows = rows @ torch.linalg.inv_ex(moved).inverse
    return best


def _basis(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    ys = (torch.arange(height, device=images.device) + 0.5) * 2 / height - 1
    xs = (torch.arange(width, device=images.device) + 0.5) * 2 / width - 1
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)])


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    dy, dx = torch.gradient(images, dim=(2, 3))
    return dy * (images.shape[2] / 2), dx * (images.shape[3] / 2)


def normalised(images: Tensor, weight: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 under ``weight [H, W]``, image by image."""
    total = weight.sum() * images.shape[1]
    mean = (images * weight).sum(dim=(1, 2, 3), keepdim=True) / total
    centred = images - mean
    spread = ((centred.square() * weight).sum(dim=(1, 2, 3), keepdim=True) / total).clamp(min=1e-8).sqrt()
    return centred / spread
