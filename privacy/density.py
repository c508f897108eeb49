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
def nearest(points: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Each point's nearest others, one more than :data:`OWN`, so that one can be left out.

    Args:
        points: ``[n, d]``.
        among: which of them are neighbours of the others, ``bool [n]``.

    Returns:
        Numbers ``int64 [n, OWN + 1]`` and distances ``[n, OWN + 1]``, the nearest first; infinite where there are no more.
    """
    inside, found = torch.nonzero(among)[:, 0], []
    for rows in torch.split(torch.arange(len(points), device=points.device), BLOCK):
        distance, index = points.new_full((len(rows), OWN + 1), torch.inf), rows.new_full((len(rows), OWN + 1), -1)
        for columns in torch.split(inside, BLOCK):
            apart = torch.cdist(points[rows], points[columns]).masked_fill_(rows[:, None] == columns, torch.inf)
            both = torch.cat([distance, apart], dim=1), torch.cat([index, columns.expand(len(rows), -1)], dim=1)
            distance, place = both[0].topk(OWN + 1, dim=1, largest=False)
            index = both[1].gather(1, place)
        found.append((index, distance))
    indices, distances = zip(*found)
    return torch.cat(indices), torch.cat(distances)


def own_distance(index: Tensor, distance: Tensor, without: Tensor | None = None) -> Tensor:
    """Mean ln of the distances from the :data:`OWN` nearest neighbours, of those that :func:`nearest` gives.

    With one neighbour, distances over it are authenticity's ratio (Alaa et al. 2022).

    Args:
        index: ``[…, OWN + 1]``.
        distance: ``[…, OWN + 1]``.
        without: a point that does not count, ``[…]``.

    Returns:
        ``float32 […]``; each distance counts as :data:`FLOOR` at the least, and as 1 where there is no neighbour.
    """
    there = distance.isfinite() if without is None else distance.isfinite() & (index != without[..., None])
    there &= there.cumsum(dim=-1) <= OWN
    logs = torch.where(there, distance.clamp(min=FLOOR).log(), 0)
    return logs.sum(dim=-1) / there.sum(dim=-1).clamp(min=1)


def rms(images: Tensor) -> Tensor:
    """Images ``[n, C, H, W]`` as vectors ``[n, C·H·W]`` whose distance is the root mean square difference."""
    flat = images.flatten(1)
    scaled: Tensor = flat / flat.shape[1] ** 0.5
    return scaled
