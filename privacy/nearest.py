"""The nearest synthetic image of each real one, in one plain space that was fixed beforehand.

No view, no alignment, nothing learned: a distance that an attack may use without knowing anybody's membership.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from evaluation.data import to_unit

SIDE = 16
"""Pixels of a thumbnail's side."""
CHUNK = 2048


def thumbnails(images: NDArray[np.uint8]) -> Tensor:
    """Images ``uint8 [n, C, H, W]`` to unit vectors ``float32 [n, C·SIDE²]``: averaged to SIDE × SIDE, each channel's mean removed.

    An image of one value becomes zero.
    """
    parts = []
    for start in range(0, len(images), CHUNK):
        small = F.adaptive_avg_pool2d(torch.from_numpy(to_unit(np.asarray(images[start : start + CHUNK]))), SIDE)
        parts.append(F.normalize((small - small.mean(dim=(2, 3), keepdim=True)).flatten(1), dim=1))
    return torch.cat(parts)


def nearest(images: NDArray[np.uint8], synthetic: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index of the nearest synthetic image ``int64 [n]``, and its distance ``float64 [n]``: 1 − correlation of the thumbnails, 0..2."""
    queries, references = thumbnails(images), thumbnails(synthetic)
    best = torch.full((len(queries),), -2.0)
    index = torch.zeros(len(queries), dtype=torch.int64)
    for start in range(0, len(references), CHUNK):
        for top in range(0, len(queries), CHUNK):
            rows = slice(top, top + CHUNK)
            found, place = (queries[rows] @ references[start : start + CHUNK].T).max(dim=1)
            closer = found > best[rows]
            best[rows] = torch.where(closer, found, best[rows])
            index[rows] = torch.where(closer, place + start, index[rows])
    return index.numpy(), 1 - best.double().numpy()
