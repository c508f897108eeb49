"""Images of one set that repeat one another: a generator that makes one image many times has made it once.

Some sources hold the same picture again and again, acquired a moment later or cropped otherwise. What images repeat is therefore counted
among the cohort's sealed images too, and only what goes beyond (:func:`beyond_real`) speaks against a set.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""Pixels a side at which images are compared."""
SHARED = 4
"""Principal components of the set that are left out, besides its mean: what all its images have in common makes none a repeat."""
SAME = 0.98
"""Correlation of what remains from which two images are one."""
FLAT = 1.0
"""Standard deviation of every channel, of 255 levels, below which an image is constant."""
BLOCK = 2048


@dataclass(frozen=True)
class Repeats:
    """Which images of a set are new.

    Attributes:
        first: number of the first image that each one repeats, its own where it is new, ``int64 [n]``.
        constant: whether each image is constant, ``bool [n]``; all constant ones repeat the first of them.
        identical: whether each image has the pixels of an earlier one, ``bool [n]``.
    """

    first: NDArray[np.int64]
    constant: NDArray[np.bool_]
    identical: NDArray[np.bool_]

    @property
    def new(self) -> NDArray[np.bool_]:
        """Whether each image is the first of its kind."""
        return np.asarray(self.first == np.arange(len(self.first)))

    @property
    def count(self) -> int:
        """How many images repeat an earlier one."""
        return int((~self.new).sum())


@torch.no_grad()
def find_repeats(images: NDArray[np.uint8], reference: NDArray[np.uint8], device: str) -> Repeats:
    """Find images that repeat another one of the set, as it is or under a symmetry of the square; closed transitively.

    Args:
        images: ``uint8 [n, C, H, W]``.
        reference: real images of the same cohort, whose mean and principal components are what images share; not searched.
    """
    if not len(images):
        return Repeats(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, bool))
    blocks = range(0, len(images), BLOCK)
    # Each channel by itself: one colour all over shows as little as one grey.
    spreads = [part.reshape(*part.shape[:2], -1).std(axis=2).max(axis=1) for part in (images[start : start + BLOCK] for start in blocks)]
    constant = np.concatenate(spreads) < FLAT
    small = torch.cat([_small(images[start : start + BLOCK], device) for start in blocks])
    shared = _shared(_small(np.asarray(reference[:: -(-len(reference) // 1000)]), device))
    residual = F.normalize(_left(small, shared), dim=1)
    flat = np.flatnonzero(constant)
    pairs = [np.stack([flat, np.full_like(flat, flat[0] if len(flat) else 0)])]
    square = small.reshape(len(small), -1, SIDE, SIDE)
    for turned in _symmetries(square):
        other = F.normalize(_left(turned.flatten(1), shared), dim=1)
        for left in blocks:
            for right in range(left, len(images), BLOCK):
                alike = torch.nonzero(residual[left : left + BLOCK] @ other[right : right + BLOCK].T > SAME).cpu().numpy().T
                pairs.append(alike + np.array([[left], [right]]))
    rows, columns = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(images), len(images)))
    member = connected_components(graph, directed=False)[1]
    first = np.unique(member, return_index=True)[1]
    return Repeats(np.asarray(first[member], np.int64), constant, _identical(images))


def beyond_real(found: Repeats, real_repeated: int, real: int) -> int:
    """How many images of a set repeat another one beyond what real images do; those of one value are counted elsewhere.

    Were the set drawn as the real images were, it would be expected to hold e = n · real_repeated / real repeats of its own, and the
    difference to have a variance of e + e · n / real (both counts Poisson): e and two standard deviations are set aside. Where no real
    image repeats another, nothing is; what has the very pixels of another image always counts.

    Args:
        found: of the n images of the set.
        real_repeated: how many of the real images repeat an earlier one.
        real: how many real images were looked at.
    """
    counted = ~found.constant
    expected = len(counted) * real_repeated / max(real, 1)
    explained = math.floor(expected + 2 * math.sqrt(expected * (1 + len(counted) / max(real, 1))))
    return max(int((found.identical & counted).sum()), int((~found.new & counted).sum()) - explained)


def _identical(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    digests = [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest() for image in images]
    again = np.ones(len(images), bool)
    again[np.unique(np.array(digests), return_index=True)[1]] = False
    return again


def _symmetries(square: Tensor) -> Iterator[Tensor]:
    for quarter in range(4):
        turned = torch.rot90(square, quarter, dims=(2, 3))
        yield turned
        yield turned.flip(3)


def _small(images: NDArray[np.uint8], device: str) -> Tensor:
    return F.adaptive_avg_pool2d(torch.from_numpy(np.array(images)).to(device).float().div(127.5).sub(1), SIDE).flatten(1)


def _shared(vectors: Tensor) -> Tensor:
    """Orthonormal rows: the constant, the mean and the leading principal components of ``[n, d]``."""
    mean = vectors.mean(dim=0, keepdim=True)
    centred = vectors - mean
    _, axes = torch.linalg.eigh(centred @ centred.T)
    principal = F.normalize(axes[:, -min(SHARED, len(vectors)) :].T @ centred, dim=1)
    rows = torch.cat([torch.ones_like(mean), mean, principal])
    orthonormal: Tensor = torch.linalg.qr(rows.T).Q.T
    return orthonormal


def _left(vectors: Tensor, shared: Tensor) -> Tensor:
    return vectors - (vectors @ shared.T) @ shared
