"""Groups of images as numbers: what is connected, and how groups are numbered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def components(n: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group of each of ``n`` items that pairs ``left``, ``right`` connect, ``int64 [n]``."""
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def groups_of_several(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups numbered as by :func:`renumber`, -1 for those of a single member."""
    known = groups >= 0
    sizes = np.bincount(groups[known], minlength=1)
    return renumber(np.where(known & (sizes[np.where(known, groups, 0)] > 1), groups, -1))


def renumber(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number groups from 0 in order of first appearance; -1 stays."""
    values, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    known = values >= 0
    rank = np.full(len(values), -1, np.int64)
    rank[known] = np.argsort(np.argsort(first[known]))
    return rank[inverse]
