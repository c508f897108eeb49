"""From pixel values of any size to ``uint8 [C, size, size]``, without distortion."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def standardize(pixels: NDArray[np.float32], low: float, high: float, size: int, aspect: float = 1.0) -> tuple[NDArray[np.uint8], float]:
    """Window, resize and letterbox one image.

    The window is applied before the resize, so that saturated regions (markers, air) weigh no more than they do on a display. Reductions
    average over the exact area that a new pixel covers, which damps aliases and cannot ring; enlargements are bilinear. The longer
    physical side fills the square, and the rest is black.

    Args:
        pixels: ``[H, W]`` in any unit.
        low: the value that becomes 0; above ``high`` for an image that is displayed inverted.
        high: the value that becomes 255.
        size: side of the result.
        aspect: height of a pixel over its width.

    Returns:
        The image ``uint8 [1, size, size]``, and the number of source rows in one row of it.

    Raises:
        ValueError: ``low`` equals ``high``.
    """
    if low == high:
        raise ValueError("the window is empty")
    height, width = pixels.shape
    longest = max(height * aspect, width)
    rows = min(size, max(1, round(size * height * aspect / longest)))
    columns = min(size, max(1, round(size * width / longest)))
    shown = np.clip((pixels - np.float32(low)) * np.float32(255 / (high - low)), 0, 255).astype(np.float32)
    small = resize(shown, rows, columns)
    image = np.zeros((1, size, size), np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    image[0, top : top + rows, left : left + columns] = np.clip(np.rint(small), 0, 255)
    return image, height / rows


def resize(image: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """``[H, W]`` to ``[rows, columns]``: the mean over exactly the covered area along a shrinking axis, bilinear along a growing one.

    (Pillow's BOX weighs every pixel that it touches alike, which distorts at ratios near one; hence the two small matrices.)
    """
    height, width = image.shape
    small = np.asarray(_weights(height, min(rows, height)) @ image @ _weights(width, min(columns, width)).T, np.float32)
    if small.shape == (rows, columns):
        return small
    return np.asarray(Image.fromarray(small).resize((columns, rows), Image.Resampling.BILINEAR), np.float32)


@functools.lru_cache(maxsize=64)
def _weights(before: int, after: int) -> NDArray[np.float32]:
    """``[after, before]``: the share of each new pixel that each old one covers."""
    edges = np.linspace(0, before, after + 1)[:, None]
    overlap = np.minimum(edges[1:], np.arange(1, before + 1)) - np.maximum(edges[:-1], np.arange(before))
    return np.asarray(np.clip(overlap, 0, None) * after / before, np.float32)


def fit(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Square ready-made images ``[n, C, side, side]`` to ``[n, C, size, size]``.

    Images that are too small are padded, centred, by repeating their border (28 becomes 32): every pixel stays as published, a centred crop
    gives the original back, and no artificial frame appears, as black padding makes around bright images. Larger ones are area-averaged.
    """
    side = images.shape[-1]
    if side <= size:
        before = (size - side) // 2
        after = size - side - before
        return np.pad(images, ((0, 0), (0, 0), (before, after), (before, after)), mode="edge")
    planes = images.reshape(-1, side, side)
    fitted = np.empty((len(planes), size, size), np.uint8)
    for plane, target in zip(planes, fitted):
        target[:] = np.rint(resize(plane.astype(np.float32), size, size))
    return fitted.reshape(*images.shape[:2], size, size)
