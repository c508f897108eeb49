"""Siemens mosaics: the slices of one volume side by side in one square image, as scanners before XA write functional and diffusion MR."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.reading import Quarantined, Reading, Unusable

UNTOLD = "a Siemens mosaic whose header does not tell its slices apart: export them as single slices, or as an enhanced object"


def split(
    header: Header, stored: NDArray[Any], reading: Callable[[Header, NDArray[Any], int | None], Reading]
) -> Iterator[Reading | Quarantined]:
    """The slices of a mosaic, row by row of its tiles, each with its own place in the patient.

    The header's position is that of a single image as large as the mosaic, around the same centre as the first slice.

    Args:
        header: of the mosaic.
        stored: the mosaic ``[H, W]``.
        reading: makes an image of a header, stored values and its number.

    Raises:
        Unusable: the number of slices is not told, or does not fit the image.
    """
    count = header.acquisition.mosaic
    side = math.ceil(math.sqrt(count)) if count else 0
    if not count or stored.ndim != 2 or stored.shape[0] % side or stored.shape[1] % side:
        raise Unusable(UNTOLD)
    rows, columns = stored.shape[0] // side, stored.shape[1] // side
    for number in range(count):
        down, across = divmod(number, side)
        tile = stored[down * rows : (down + 1) * rows, across * columns : (across + 1) * columns]
        own = dataclasses.replace(
            header,
            geometry=dataclasses.replace(header.geometry, position=_position(header, (rows, columns), number)),
            pixels=dataclasses.replace(header.pixels, rows=rows, columns=columns),
        )
        try:
            yield reading(own, np.ascontiguousarray(tile), number)
        except Unusable as error:
            yield Quarantined(str(error))


def _position(header: Header, tile: tuple[int, int], number: int) -> tuple[float, ...] | None:
    """Of a slice's first pixel, mm; None where its distance or direction from the first slice are not told."""
    geometry, normal = header.geometry, header.acquisition.mosaic_normal
    if geometry.position is None or geometry.cosines is None or geometry.spacing is None or not geometry.between or normal is None:
        return None
    along_row, along_column = np.array(geometry.cosines[:3]), np.array(geometry.cosines[3:])
    down, across = (header.pixels.rows - tile[0]) / 2 * geometry.spacing[0], (header.pixels.columns - tile[1]) / 2 * geometry.spacing[1]
    first = np.array(geometry.position) + along_row * across + along_column * down
    return tuple((first + number * geometry.between * np.array(normal)).tolist())
