"""The copy search: is a synthetic image a copy of a training image, whatever was done to it?

Two stages. Every query is compared in many *views* (the eight symmetries of the square, each shifted, zoomed and turned a
little) with every reference, at 16 × 16 pixels, as one matrix product. The best candidates are then *aligned* at full
resolution (an affine warp found by Gauss–Newton steps), and their distance is 1 − NCC of what remains of both images when
the structure that the whole cohort shares is projected out: two chests are alike because they are chests.

Nothing is trained, so nothing can favour train over audit; the shared structure is that of both together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Images = NDArray[np.uint8]
GRID = 16
CANDIDATES = 5
ALIGNMENT_STEPS = 8
SHIFTS = (-0.18, -0.09, 0.0, 0.09, 0.18)
"""Shifts tried before alignment, in half sides: 4.5 % of the side apart, within the alignment's reach."""
ZOOMS_AND_TURNS = ((1.07, 0.0), (1.0, -9.0), (1.0, 9.0))
"""Zooms and turns (degrees) tried besides none, each with the outer shifts halved in number."""
SHARED = 4
"""Principal components of the cohort that are projected out, besides the mean."""


@dataclass(frozen=True)
class Matches:
    """The nearest reference of every query.

    Attributes:
        index: into the references, ``int64 [n]``.
        distance: 1 − aligned NCC, ``float64 [n]``; 0 is the same image, larger is less alike.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]


def shared_structure(images: Images, components: int = SHARED) -> Tensor:
    """Orthonormal basis of what a cohort's images share: the constant, the mean, the first principal components.

    Args:
        images: ``uint8 [n, C, H, W]``, train and audit together.

    Returns:
        ``float32 [components + 2, C·H·W]``, under the :func:`window`.
    """
    data = smooth(_unit(images))
    weight = window(data.shape[2], data.shape[3]).expand_as(data[0]).flatten()
    data = data.flatten(1) * weight
    mean = data.mean(dim=0)
    _, _, principal = torch.linalg.svd(data[:4000] - mean, full_matrices=False)
    basis = torch.cat([weight[:, None], mean[:, None], principal[:components].T], dim=1)
    orthonormal: Tensor = torch.linalg.qr(basis).Q.T.contiguous()
    return orthonormal


class CopySearch:
    """Distances from any images to a fixed set of references.

    Args:
        references: ``uint8 [n, C, H, W]``; all of them are searched.
        shared: of :func:`shared_structure`.
    """

    def __init__(self, references: Images, shared: Tensor, device: str) -> None:
        self.device = device
        self.references = _unit(references)
        self.shared = shared.to(device)
        self.described = describe(F.adaptive_avg_pool2d(self.references, GRID).to(device))

    @torch.no_grad()
    def nearest(self, queries: Images, *among: NDArray[np.bool_]) -> list[Matches]:
        """The nearest reference of each query within each subset of the references, after alignment.

        Args:
            queries: ``uint8 [n, C, H, W]``.
            among: masks over the references, such as train and audit.

        Returns:
            One :class:`Matches` for each mask, with indices into all references.
        """
        subsets = [torch.from_numpy(np.flatnonzero(mask)) for mask in among]
        parts = [self._nearest(part.to(self.device), subsets) for part in torch.split(_unit(queries), 16)]
        columns = zip(*parts)
        return [Matches(np.concatenate([m.index for m in column]), np.concatenate([m.distance for m in column])) for column in columns]

    def _nearest(self, queries: Tensor, subsets: list[Tensor]) -> list[Matches]:
        n, views = len(queries), search_views(self.device)
        small = F.adaptive_avg_pool2d(queries, GRID)
        seen = warp(small.repeat_interleave(len(views), dim=0), views.repeat(n, 1, 1))
        similarity = (describe(seen) @ self.described.T).reshape(n, len(views), -1)
        best, which = similarity.max(dim=1)
        found = []
        for subset in subsets:
            count = min(CANDIDATES, len(subset))
            inside = subset.to(self.device)
            candidates = inside[best[:, inside].topk(count, dim=1).indices]
            start = views[which.gather(1, candidates)].flatten(0, 1)
            chosen = self.references[candidates.flatten().cpu()].to(self.device)
            apart = aligned_distance(queries.repeat_interleave(count, dim=0), chosen, start, self.shared).reshape(n, count)
            distance, position = apart.min(dim=1)
            index = candidates.gather(1, position[:, None]).squeeze(1)
            found.append(Matches(index.cpu().numpy(), distance.double().cpu().numpy()))
        return found


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


def describe(images: Tensor) -> Tensor:
    """Images ``[n, C, GRID, GRID]`` to unit vectors ``[n, C·GRID²]`` under the :func:`window`, mean removed."""
    weight = window(GRID, GRID, images.device)
    mean = (images * weight).sum(dim=(2, 3), keepdim=True) / weight.sum()
    return F.normalize(((images - mean) * weight).flatten(1), dim=1)


def window(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Weights ``[H, W]``: 1 in the central half, falling to 0 at 86 % of the way out.

    Beyond that, a shifted or cropped copy has lost its border.
    """

    def edge(count: int) -> Tensor:
        place = ((torch.arange(count, device=device) + 0.5) * 2 / count - 1).abs()
        return torch.cos(((place - 0.5) / 0.36).clamp(0, 1) * torch.pi / 2)

    return edge(height)[:, None] * edge(width)


@torch.no_grad()
def aligned_distance(query: Tensor, reference: Tensor, start: Tensor, shared: Tensor) -> Tensor:
    """1 − NCC of each pair, under the affine warp of ``query`` that makes it most like ``reference``: ``float32 [n]``.

    The warp starts at ``start [n, 2, 3]`` and moves by Gauss–Newton steps on the difference of the normalised images (Lucas &
    Kanade 1981, forward additive); the best step counts. ``shared`` is projected out of both images before the NCC.
    """
    query, reference = smooth(query), smooth(reference)
    weight = window(query.shape[2], query.shape[3], query.device)
    rows = start.clone()
    target = _normalise(reference, weight)
    residual_reference = _residual(reference * weight, shared)
    dy, dx = _slopes(query)
    best = torch.full((len(query),), 2.0, device=query.device)
    basis = _basis(query)
    eye = torch.eye(6, device=query.device)
    for step in range(ALIGNMENT_STEPS + 1):
        moved = warp(query, rows)
        best = torch.minimum(best, 1 - (_residual(moved * weight, shared) * residual_reference).sum(dim=1))
        if step == ALIGNMENT_STEPS:
            break
        # The warp acts on the query's own coordinates, so its slope is taken there.
        slope = torch.cat([warp(dx, rows)[:, :, None] * basis, warp(dy, rows)[:, :, None] * basis], dim=2) * weight
        jacobian = slope.transpose(1, 2).flatten(2) / _spread(moved, weight)[:, None, None]
        difference = ((target - _normalise(moved, weight)) * weight).flatten(1)
        normal = jacobian @ jacobian.transpose(1, 2)
        damping = 1e-3 * normal.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + 1e-6
        change = torch.linalg.solve(normal + damping * eye, jacobian @ difference[:, :, None]).reshape(-1, 2, 3)
        rows = rows + change.clamp(-0.1, 0.1)
    return best.clamp(min=0)


def smooth(images: Tensor) -> Tensor:
    """A 3 × 3 binomial filter on ``[n, C, H, W]``: noise and compression count less than structure."""
    kernel = torch.tensor([0.25, 0.5, 0.25], device=images.device)
    weight = (kernel[:, None] * kernel)[None, None].repeat(images.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), weight, groups=images.shape[1])


def warp(images: Tensor, rows: Tensor) -> Tensor:
    """``images [n, C, H, W]`` under affine ``rows [n, 2, 3]`` in half sides (``torch.nn.functional.affine_grid``'s convention)."""
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _unit(images: Images) -> Tensor:
    return torch.from_numpy(np.array(images)).float().div(127.5).sub(1)


def _basis(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    ys = (torch.arange(height, device=images.device) + 0.5) * 2 / height - 1
    xs = (torch.arange(width, device=images.device) + 0.5) * 2 / width - 1
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)])


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    dy, dx = torch.gradient(images, dim=(2, 3))
    return dy * (images.shape[2] / 2), dx * (images.shape[3] / 2)


def _mean(images: Tensor, weight: Tensor) -> Tensor:
    return (images * weight).mean(dim=(1, 2, 3)) / weight.mean()


def _spread(images: Tensor, weight: Tensor) -> Tensor:
    mean = _mean(images, weight)
    return (_mean(images.square(), weight) - mean.square()).clamp(min=1e-8).sqrt()


def _normalise(images: Tensor, weight: Tensor) -> Tensor:
    return (images - _mean(images, weight)[:, None, None, None]) / _spread(images, weight)[:, None, None, None]


def _residual(weighted: Tensor, shared: Tensor) -> Tensor:
    flat = weighted.flatten(1)
    return F.normalize(flat - (flat @ shared.T) @ shared, dim=1)
