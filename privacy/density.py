"""How near a reference's own neighbours are: what is near in a sparse part of a cohort is far in a dense one."""

from __future__ import annotations

import torch
from torch import Tensor

OWN = 3
"""Nearest neighbours whose mean is taken: one twin among them does not say that all are near."""
FLOOR = 1 / 255
"""Differences below, of a range of 2, are half a grey level: rounding."""
BLOCK = 4096
"""Points compared at once with as many others: memory does not grow with their number."""


@torch.no_grad()
def own_distance(points: Tensor, among: Tensor) -> Tensor:
    """Mean ln of each point's distances from its :data:`OWN` nearest neighbours.

    With one neighbour, distances over it are authenticity's ratio (Alaa et al. 2022).

    Args:
        points: ``[n, d]``.
        among: which of them are neighbours of the others, ``bool [n]``.

    Returns:
        ``float32 [n]``; each distance counts as :data:`FLOOR` at the least, and as 1 where there is no neighbour.
    """
    index, found = torch.nonzero(among)[:, 0], []
    for rows in torch.split(torch.arange(len(points), device=points.device), BLOCK):
        nearest = points.new_zeros(len(rows), 0)
        for columns in torch.split(index, BLOCK):
            apart = torch.cdist(points[rows], points[columns]).masked_fill_(rows[:, None] == columns, torch.inf)
            both = torch.cat([nearest, apart], dim=1)
            nearest = both.topk(min(OWN, both.shape[1]), dim=1, largest=False).values
        there = nearest.isfinite()
        logs = torch.where(there, nearest.clamp(min=FLOOR).log(), 0)
        found.append(logs.sum(dim=1) / there.sum(dim=1).clamp(min=1))
    return torch.cat(found)


def rms(images: Tensor) -> Tensor:
    """Images ``[n, C, H, W]`` as vectors ``[n, C·H·W]`` whose distance is the root mean square difference."""
    flat = images.flatten(1)
    scaled: Tensor = flat / flat.shape[1] ** 0.5
    return scaled
