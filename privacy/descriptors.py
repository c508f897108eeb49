"""What of two aligned images is compared: at several scales, patch by patch as well as over the whole, with and without contrast.

Each image becomes *maps*: bands between blur levels; the finer bands divided by their local contrast, which a bias field or histogram
equalisation leaves alone; and the orientation of gradients (its double angle, which inversion leaves alone too). From every map the
structure that the whole cohort shares is projected out, and what remains is correlated: over the whole, and in patches, whose median and
upper quantile an occlusion or a splice does not reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from privacy.alignment import blur, smooth, window

LEVELS = (1.0, 2.0, 4.0, 8.0)
"""Blur levels: standard deviations in sixty-fourths of the side, half a pixel at the least."""
PATCHES = 6
"""Patches a side."""
QUANTILES = (0.5, 0.85)
"""Of the patches' correlations."""
SHARED = 4
"""Principal components of the cohort that are projected out of every map, besides the mean."""
SAMPLE = 500
"""Images at the most that the shared structure is taken from, evenly spread over the cohort."""
FLOOR = 0.02
"""Local contrast (of a range of 2) below which a band counts as flat."""


def maps(images: Tensor) -> list[Tensor]:
    """The maps of ``float32 [n, C, H, W]`` in −1..1, each ``[n, c, H, W]`` under the :func:`~privacy.alignment.window`.

    First the smoothed image itself, which today's distance is of; then four bands, two bands without contrast, two orientations.
    """
    scale = min(images.shape[2:]) / 64
    sigmas = [max(0.5, level * scale) for level in LEVELS]
    blurred = [blur(images, sigma) for sigma in sigmas]
    bands = [fine - coarse for fine, coarse in zip([images, *blurred], blurred)]
    flat = [band / (blur(band.square(), 2 * sigma) + FLOOR**2).sqrt() for band, sigma in zip(bands[1:3], sigmas[1:3])]
    turned = [_orientation(level) for level in blurred[:2]]
    weight = window(images.shape[2], images.shape[3], images.device)
    return [one * weight for one in (smooth(images), *bands, *flat, *turned)]


def _orientation(images: Tensor) -> Tensor:
    """Double angle of the gradient, ``[n, 2 C, H, W]``: length 1 where the slope is steep for its image, 0 where it is flat."""
    dy, dx = torch.gradient(images, dim=(2, 3))
    steep = dx.square() + dy.square()
    floor = steep.mean(dim=(1, 2, 3), keepdim=True) / 4 + 1e-8
    return torch.cat([(dx.square() - dy.square()) / (steep + floor), 2 * dx * dy / (steep + floor)], dim=1)


@dataclass(frozen=True)
class Structure:
    """What a cohort's images share: for each of the :func:`maps`, orthonormal rows ``float32 [k, c·H·W]``."""

    bases: tuple[Tensor, ...]

    def to(self, device: str) -> Structure:
        """On another device."""
        return Structure(tuple(basis.to(device) for basis in self.bases))


def structure(images: Tensor) -> Structure:
    """The constant, the mean and the first principal components of each map over a cohort.

    Args:
        images: ``float32 [n, C, H, W]`` in −1..1; an even sample of at most :data:`SAMPLE` of them is looked at.
    """
    sample = images[:: math.ceil(len(images) / SAMPLE)]
    weight = window(images.shape[2], images.shape[3], images.device)
    bases = []
    for one in maps(sample):
        constant = weight.expand(one.shape[1:]).reshape(1, -1)
        flat = one.flatten(1)
        mean = flat.mean(dim=0, keepdim=True)
        centred = flat - mean
        # Through the Gram matrix: there are fewer images than pixels.
        _, vectors = torch.linalg.eigh(centred @ centred.T)
        principal = vectors[:, -min(SHARED, len(flat)) :].T @ centred
        rows = F.normalize(torch.cat([constant, mean, principal]), dim=1)
        bases.append(torch.linalg.qr(rows.T).Q.T.contiguous())
    return Structure(tuple(bases))


def similarities(query: list[Tensor], reference: list[Tensor], shared: Structure) -> Tensor:
    """How alike the maps of n pairs are, ``float32 [n, maps, 1 + len(QUANTILES)]``, each a correlation in −1..1.

    For each map: of the whole, then quantiles over the patches.
    """
    found = []
    levels = torch.tensor(QUANTILES, device=query[0].device)
    for one, other, basis in zip(query, reference, shared.bases):
        a, b = (_residual(part, basis) for part in (one, other))
        cross, left, right = (F.adaptive_avg_pool2d(part.sum(dim=1), PATCHES).flatten(1) for part in (a * b, a * a, b * b))
        whole = F.cosine_similarity(a.flatten(1), b.flatten(1), dim=1)
        patches = cross / (left * right).sqrt().clamp(min=1e-12)
        found.append(torch.cat([whole[:, None], torch.quantile(patches, levels, dim=1).T], dim=1))
    return torch.stack(found, dim=1)


def _residual(images: Tensor, basis: Tensor) -> Tensor:
    flat = images.flatten(1)
    return (flat - (flat @ basis.T) @ basis).reshape(images.shape)
