"""Under which views a query is tried before anything is aligned, and as what both sides are compared then."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from privacy.alignment import window
from privacy.descriptors import FLOOR

GRID = 16
"""Side at which whole images are compared."""
LOCAL_GRID, PATCH = 24, 6
"""Side at which patches are compared, and theirs."""
SHIFTS = (-0.18, -0.09, 0.0, 0.09, 0.18)
"""Shifts tried before alignment, in half sides: 4.5 % of the side apart, within the alignment's reach."""
ZOOMS_AND_TURNS = ((1.07, 0.0), (1.0, -9.0), (1.0, 9.0))
"""Zooms and turns (degrees) tried besides none, each with the outer shifts halved in number."""


@functools.cache
def symmetries(device: str) -> Tensor:
    """The eight symmetries of the square as warps, ``[8, 2, 3]``."""
    turns = [(round(np.cos(angle)), round(np.sin(angle))) for angle in np.pi / 2 * np.arange(4)]
    rows = [[[cos * mirror, -sin, 0], [sin * mirror, cos, 0]] for cos, sin in turns for mirror in (1, -1)]
    return torch.tensor(rows, dtype=torch.float32, device=device)


@functools.cache
def search_views(device: str) -> Tensor:
    """The affine warps under which a query is tried, ``[views, 2, 3]``: eight symmetries × shifts, zooms and turns."""
    poses = [(1.0, 0.0, dx, dy) for dx, dy in itertools.product(SHIFTS, SHIFTS)]
    poses += [(*pose, dx, dy) for pose, dx, dy in itertools.product(ZOOMS_AND_TURNS, SHIFTS[::2], SHIFTS[::2])]
    warps = []
    for (zoom, degrees, dx, dy), mirror, quarter in itertools.product(poses, (1, -1), range(4)):
        angle = np.deg2rad(degrees + 90 * quarter)
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        warps.append([[cos * mirror, -sin, dx], [sin * mirror, cos, dy]])
    return torch.tensor(warps, dtype=torch.float32, device=device)


def coarse(images: Tensor) -> Tensor:
    """At :data:`GRID`: means of blocks, or, where those would differ in size and what moves would change, linear without aliasing."""
    if images.shape[2] % GRID == images.shape[3] % GRID == 0:
        return F.adaptive_avg_pool2d(images, GRID)
    return F.interpolate(images, (GRID, GRID), mode="bilinear", antialias=True)


def describe(images: Tensor) -> Tensor:
    """Images ``[n, C, GRID, GRID]`` to unit vectors ``[n, C·GRID²]`` under the window, mean removed."""
    weight = window(GRID, GRID, images.device)
    mean = (images * weight).sum(dim=(2, 3), keepdim=True) / weight.sum()
    return F.normalize(((images - mean) * weight).flatten(1), dim=1)


def local_contrast(images: Tensor) -> Tensor:
    """Each pixel's deviation from the mean of the 5 × 5 around it, over their standard deviation: no bias field, no contrast."""
    mean = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
    spread = F.avg_pool2d((images - mean).square(), 5, stride=1, padding=2, count_include_pad=False)
    return (images - mean) / (spread + FLOOR**2).sqrt()


def fine_contrast(images: Tensor) -> Tensor:
    """Local contrast at a finer grid, for patches: ``[n, C, LOCAL_GRID, LOCAL_GRID]``."""
    return local_contrast(F.adaptive_avg_pool2d(images, LOCAL_GRID))


def patches(images: Tensor) -> Tensor:
    """Square patches as unit vectors: ``[n, patches, C·PATCH²]``."""
    return F.normalize(F.unfold(images, PATCH, stride=PATCH).transpose(1, 2), dim=2)


def leading_axes(vectors: Tensor, count: int) -> Tensor:
    """The leading right singular vectors of unit vectors ``[n, d]``: ``[d, count]``."""
    _, axes = torch.linalg.eigh(vectors.T @ vectors)
    leading: Tensor = axes[:, -count:].contiguous()
    return leading
