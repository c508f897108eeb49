"""The grid that a U-Net works on: its sides level by level, which are known before anything is made."""

from __future__ import annotations

import math

COARSEST = 8
"""Side, in the network's own grid, down to which levels are added: there an image's outline is a few pixels, and attention is cheap."""


def levels(size: int, patch: int) -> int:
    """How many levels a network has that is fitted to images of ``size`` pixels a side: two at the least."""
    return 1 + max(1, math.ceil(math.log2(max(size / patch, 1) / COARSEST)))


def sides(size: int, patch: int, depth: int) -> tuple[int, ...]:
    """Sides of the grids of ``depth`` levels, finest first, for images of ``size`` pixels a side, which are padded to a whole number of
    the coarsest grid's places."""
    finest = math.ceil(size / (patch * 2 ** (depth - 1))) * 2 ** (depth - 1)
    return tuple(finest // 2**level for level in range(depth))
