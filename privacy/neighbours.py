"""How close a released set comes to real images: distances and densities around each of them, in several spaces.

The features of a membership attack that has nothing but the released images (GAN-Leaks: Chen et al. 2020, arXiv:1909.03935; Monte Carlo
attacks: Hilprecht et al. 2019, doi:10.2478/popets-2019-0067; densities: van Breugel et al. 2023, arXiv:2302.12580). By themselves they
tell ordinary images from odd ones; :mod:`privacy.lira` compares them with what other trainings release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from evaluation.data import to_unit

SIDE = 32
"""Largest side at which images are compared."""
POOLED = (1, 2, 4)
"""Sides of the blocks of pixels that are averaged: three levels of blur."""
COMPONENTS = (16, 64)
"""Numbers of principal components, each scaled to variance 1, in which images are compared."""
NEAREST = (1, 5, 20)
"""Distances are means over so many nearest released images."""
WIDTHS = (0.5, 1.0)
"""Bandwidths of the Gaussian kernel, in the real images' median distance to their nearest other."""
CHUNK = 1024
FLOOR = 1e-3
"""Share of that median below which distances are not told apart: it is that of rounding."""


@dataclass(frozen=True)
class Space:
    """A space in which images are compared.

    Attributes:
        project: images ``float32 [n, C, H, W]`` in −1..1 to points ``[n, d]``.
        real: points of the real images.
        width: their median distance to the nearest other one.
    """

    project: Callable[[Tensor], Tensor]
    real: Tensor
    width: float


class Neighbourhoods:
    """Real images, each with a neighbourhood that released sets are counted in.

    Args:
        real: ``uint8 [n, C, H, W]``, at least two.
        device: where distances are computed.
    """

    def __init__(self, real: NDArray[Any], device: str) -> None:
        self.device = device
        images = self._load(real)
        self.spaces = [_space(project, images) for project in _projections(images)]

    def features(self, released: NDArray[Any]) -> NDArray[np.float64]:
        """Log distances and log densities of a released set ``uint8 [m, C, H, W]`` around each real image: ``float64 [n, features]``."""
        images = self._load(released)
        return np.concatenate([self._around(space, space.project(images)) for space in self.spaces], axis=1)

    def _load(self, images: NDArray[Any]) -> Tensor:
        """Images on the device, at :data:`SIDE` at most."""
        side, parts = max(images.shape[-2:]), []
        for start in range(0, len(images), CHUNK):
            part = torch.from_numpy(to_unit(np.asarray(images[start : start + CHUNK])))
            if side > SIDE:
                part = interpolate(part, [max(1, round(length * SIDE / side)) for length in images.shape[-2:]], mode="area")
            parts.append(part)
        return torch.cat(parts).to(self.device)

    def _around(self, space: Space, released: Tensor) -> NDArray[np.float64]:
        rows = []
        for part in torch.split(space.real, CHUNK):
            distance = torch.cdist(part.double(), released.double()).clamp_min(FLOOR * space.width)
            nearest = distance.topk(min(max(NEAREST), len(released)), dim=1, largest=False, sorted=True).values
            columns = [nearest[:, :count].log().mean(dim=1) for count in NEAREST]
            columns += [torch.logsumexp(-(distance / (width * space.width)).square() / 2, dim=1) for width in WIDTHS]
            rows.append(torch.stack(columns, dim=1).cpu())
        return np.asarray(torch.cat(rows).numpy() - np.log(len(released)) * np.repeat([0, 1], [len(NEAREST), len(WIDTHS)]), np.float64)


def _space(project: Callable[[Tensor], Tensor], images: Tensor) -> Space:
    points = project(images)
    nearest = []
    for start in range(0, len(points), CHUNK):
        distance = torch.cdist(points[start : start + CHUNK], points)
        distance[torch.arange(len(distance)), torch.arange(start, start + len(distance))] = torch.inf
        nearest.append(distance.amin(dim=1))
    width = float(np.median(torch.cat(nearest).cpu().numpy()))
    return Space(project, points, max(width, float(torch.finfo(points.dtype).eps)))


def _projections(real: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """The spaces: pixels under blur, without brightness and contrast, and principal components."""

    def pooled(side: int) -> Callable[[Tensor], Tensor]:
        return lambda images: avg_pool2d(images, side, ceil_mode=True).flatten(1)

    def contrast_free(images: Tensor) -> Tensor:
        flat = images.flatten(1) - images.flatten(1).mean(dim=1, keepdim=True)
        unit: Tensor = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-3)
        return unit

    mean = real.flatten(1).mean(dim=0)
    scatter = (real.flatten(1) - mean).double()
    size = len(mean)
    first = max(0, size - max(COMPONENTS))
    values, vectors = eigh((scatter.T @ scatter / len(real)).cpu().numpy(), subset_by_index=[first, size - 1])
    deviations = np.sqrt(np.maximum(values, max(1e-6 * values[-1], 1e-12)))

    def principal(count: int) -> Callable[[Tensor], Tensor]:
        axes = torch.from_numpy(vectors[:, -count:] / deviations[-count:]).float().to(real.device)
        return lambda images: (images.flatten(1) - mean) @ axes

    sides = [side for side in POOLED if side < min(real.shape[-2:])]
    return [*map(pooled, sides), contrast_free, *map(principal, COMPONENTS)]
