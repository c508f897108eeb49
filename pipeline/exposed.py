"""The training images that a run exposes most, as a picture for local eyes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from evaluation.data import to_unit

MOST = 48
"""Images that are shown of each list."""
COLUMNS, MARGIN, CAPTION = 8, 8, 14
CHUNK = 256


def picture(images: NDArray[Any], lists: Mapping[str, NDArray[np.int64]], released: NDArray[Any]) -> Image.Image:
    """Images by list, the most exposed first, each beside the released image that is nearest in its pixels.

    Args:
        images: ``uint8 [n, C, H, W]``.
        lists: numbers of images, by the list's title.
        released: ``uint8 [m, C, H, W]``.
    """
    side = max(48, images.shape[-1])
    wide, high = 2 * side + MARGIN, side + CAPTION
    sizes = {title: -(-min(MOST, len(numbers)) // COLUMNS) for title, numbers in lists.items()}
    sheet = Image.new("RGB", (COLUMNS * (wide + MARGIN) + MARGIN, 24 + sum(24 + rows * high for rows in sizes.values())), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 6), "PATIENT DATA - for local eyes only. Training images (left), nearest released image (right).", fill="black")
    top = 24
    for title, numbers in lists.items():
        draw.text((MARGIN, top + 6), f"{title}: {min(MOST, len(numbers))} of {len(numbers)}", fill="black")
        nearest = _nearest(images[numbers[:MOST]], released)
        for place, number in enumerate(numbers[:MOST]):
            x, y = MARGIN + place % COLUMNS * (wide + MARGIN), top + 24 + place // COLUMNS * high
            for offset, one in ((0, images[number]), (side + MARGIN // 2, released[nearest[place]])):
                plane = Image.fromarray(one[0] if len(one) == 1 else one.transpose(1, 2, 0))
                sheet.paste(plane.resize((side, side), Image.Resampling.NEAREST).convert("RGB"), (x + offset, y))
        top += 24 + sizes[title] * high
    return sheet


def _nearest(images: NDArray[Any], released: NDArray[Any]) -> NDArray[np.intp]:
    """Number of the released image that is nearest to each image in its pixels."""
    flat = to_unit(images).reshape(len(images), -1)
    distances = []
    for start in range(0, len(released), CHUNK):
        part = to_unit(np.asarray(released[start : start + CHUNK])).reshape(-1, flat.shape[1])
        distances.append(np.square(part).sum(axis=1) - 2 * flat @ part.T)
    return np.asarray(np.concatenate(distances, axis=1).argmin(axis=1), np.intp)
