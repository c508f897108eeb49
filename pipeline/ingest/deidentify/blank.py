"""Blanking what a user knows to hold text: rectangles that lie at the same place in every image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rectangle = tuple[float, float, float, float]


def masked(pixels: NDArray[np.float32], rectangles: Sequence[Rectangle]) -> NDArray[np.float32]:
    """``pixels`` with the rectangles as padding (NaN, which becomes black): each pixel that one touches, in every plane and channel.

    Args:
        pixels: ``[C, H, W]`` or ``[C, D, H, W]``, rows and columns as the source stores them; not changed.
        rectangles: ``(left, top, right, bottom)``, each a share of the image's width or height, so that they fit images of any size.
    """
    if not rectangles:
        return pixels
    height, width = pixels.shape[-2:]
    result = pixels.copy()
    for left, top, right, bottom in rectangles:
        # A share such as .1 of 100 pixels must not reach the next one by a rounding error.
        first, last = int(np.floor(top * height + 1e-6)), int(np.ceil(bottom * height - 1e-6))
        result[..., first:last, int(np.floor(left * width + 1e-6)) : int(np.ceil(right * width - 1e-6))] = np.nan
    return result
