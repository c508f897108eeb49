"""Other ways to look for copies, which the audit's search is measured against: each gives every query a reference and how near it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from privacy.alignment import smooth, warp, window
from privacy.views import GRID, describe, search_views

Images = NDArray[np.uint8]
Found = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Index of the nearest reference, and a statistic that is smaller where a copy is likelier, both ``[n]``."""
Method = Callable[[Images], Found]

CARLINI = 50
"""Neighbours whose mean distance an ℓ₂ is divided by (Carlini et al. 2023)."""


def pixel_methods(train: Images, device: str) -> dict[str, Method]:
    """Pixel ℓ₂, Carlini's ratio (ℓ₂ over half the mean ℓ₂ to the 50 nearest), and authenticity (Alaa et al. 2022).

    Authenticity asks whether a query is nearer to its nearest real image than that one is to its own nearest; the statistic is the quotient
    of the two.
    """
    flat = _flat(train).to(device)
    own = torch.cat([torch.cdist(part, flat).topk(2, largest=False).values[:, 1] for part in flat.split(512)])

    def nearest(queries: Images) -> tuple[Tensor, Tensor]:
        found = [torch.cdist(part.to(device), flat).topk(min(CARLINI, len(flat)), largest=False) for part in _flat(queries).split(512)]
        return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])

    def l2(queries: Images) -> Found:
        distance, index = nearest(queries)
        return _numpy(index[:, 0]), _numpy(distance[:, 0])

    def carlini(queries: Images) -> Found:
        distance, index = nearest(queries)
        return _numpy(index[:, 0]), _numpy(distance[:, 0] / (distance.mean(dim=1) / 2))

    def authenticity(queries: Images) -> Found:
        distance, index = nearest(queries)
        return _numpy(index[:, 0]), _numpy(distance[:, 0] / own[index[:, 0]].clamp(min=1e-6))

    return {"pixel l2": l2, "Carlini's ratio": carlini, "authenticity": authenticity}


class GlobalSearch:
    """The audit's search as it was until 2026-11-26: one NCC of the whole image after alignment on intensities, five candidates.

    Args:
        train: what is searched.
        everyone: train and audit, whose shared structure is projected out.
    """

    CANDIDATES, STEPS, SHARED = 5, 8, 4

    def __init__(self, train: Images, everyone: Images, device: str) -> None:
        self.device = device
        self.references = _unit(train).to(device)
        self.described = describe(F.adaptive_avg_pool2d(self.references, GRID))
        data = smooth(_unit(everyone))
        weight = window(*data.shape[2:]).expand_as(data[0]).flatten()
        data = (data.flatten(1) * weight)[:4000].to(device)
        mean = data.mean(dim=0)
        _, _, principal = torch.linalg.svd(data - mean, full_matrices=False)
        basis = torch.cat([weight[:, None].to(device), mean[:, None], principal[: self.SHARED].T], dim=1)
        self.shared = torch.linalg.qr(basis).Q.T.contiguous()

    @torch.no_grad()
    def __call__(self, queries: Images) -> Found:
        """Nearest references and 1 − aligned NCC."""
        parts = [self._nearest(part.to(self.device)) for part in _unit(queries).split(16)]
        index, distance = (torch.cat(column) for column in zip(*parts))
        return _numpy(index), _numpy(distance)

    def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        n, views, count = len(queries), search_views(self.device), min(self.CANDIDATES, len(self.references))
        small = F.adaptive_avg_pool2d(queries, GRID)
        seen = warp(small.repeat_interleave(len(views), dim=0), views.repeat(n, 1, 1))
        best, which = (describe(seen) @ self.described.T).reshape(n, len(views), -1).max(dim=1)
        chosen = best.topk(count, dim=1).indices
        start = views[which.gather(1, chosen)].flatten(0, 1)
        apart = self._aligned(queries.repeat_interleave(count, dim=0), self.references[chosen.flatten()], start).reshape(n, count)
        distance, place = apart.min(dim=1)
        return chosen.gather(1, place[:, None])[:, 0], distance

    def _aligned(self, query: Tensor, reference: Tensor, rows: Tensor) -> Tensor:
        """Lucas and Kanade's forward additive steps; the least residual distance on the way counts."""
        query, reference = smooth(query), smooth(reference)
        weight = window(*query.shape[2:], query.device)
        height, width = query.shape[2:]
        target, kept = _normalised(reference, weight)[0], self._residual(reference * weight)
        dy, dx = torch.gradient(query, dim=(2, 3))
        ys, xs = ((torch.arange(side, device=query.device) + 0.5) * 2 / side - 1 for side in (height, width))
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        basis = torch.stack([x, y, torch.ones_like(x)])
        best = torch.full((len(query),), 2.0, device=query.device)
        for step in itertools.count():
            moved = warp(query, rows)
            best = torch.minimum(best, 1 - (self._residual(moved * weight) * kept).sum(dim=1))
            if step == self.STEPS:
                return best.clamp(min=0)
            slopes = [warp(slope, rows)[:, :, None] * (side / 2) * basis for slope, side in ((dx, width), (dy, height))]
            seen, spread = _normalised(moved, weight)
            jacobian = (torch.cat(slopes, dim=2) * weight).transpose(1, 2).flatten(2) / spread.flatten(1)[:, :, None]
            difference = ((target - seen) * weight).flatten(1)
            normal = jacobian @ jacobian.transpose(1, 2)
            damping = 1e-3 * normal.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + 1e-6
            change = torch.linalg.solve(normal + damping * torch.eye(6, device=query.device), jacobian @ difference[:, :, None])
            rows = rows + change.reshape(-1, 2, 3).clamp(-0.1, 0.1)
        raise AssertionError

    def _residual(self, weighted: Tensor) -> Tensor:
        flat = weighted.flatten(1)
        return F.normalize(flat - (flat @ self.shared.T) @ self.shared, dim=1)


def _normalised(images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = (images * weight).mean(dim=(1, 2, 3), keepdim=True) / weight.mean()
    square = (images.square() * weight).mean(dim=(1, 2, 3), keepdim=True) / weight.mean()
    spread = (square - mean.square()).clamp(min=1e-8).sqrt()
    return (images - mean) / spread, spread


def _unit(images: Images) -> Tensor:
    return torch.from_numpy(np.array(images)).float().div(127.5).sub(1)


def _flat(images: Images) -> Tensor:
    return _unit(images).flatten(1)


def _numpy(values: Tensor) -> NDArray[np.generic]:
    return values.cpu().double().numpy() if values.is_floating_point() else values.cpu().numpy()
