"""Where an image shows nothing: the padding around a reconstruction's circle or a film, declared or not, blurred by lossy coding or not.

Padding that is taken for values stretches the range of an image's own percentiles, which then shows little else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.readers.header import Header, PixelFormat

# Below air (-1000 HU) and its noise; scanners fill the outside of their circle with -2000, -3024 or less.
NOTHING = -1200.0
# The least of a scale that begins with 0 at -1024.
AIR = -1024.0
# Share of the range of stored values by which lossy coding moves those of a padded surface.
BLURRED = 0.02


def outside(header: Header, stored: NDArray[Any], values: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Where an image ``[H, W]`` is padding, declared (PS3.3 C.7.5.1.1.2) or a CT's; None where nothing is, or everything would be.

    Args:
        header: of this image.
        stored: its values as stored.
        values: in the modality's units.
    """
    found = _declared(header, stored)
    if _hounsfield(header) and (beyond := _beyond_air(values)) is not None:
        found = beyond if found is None else found | beyond
    return found if found is not None and found.any() and not found.all() else None


def _declared(header: Header, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    bounds = declared(header.pixels)
    if bounds is None:
        return None
    if not header.pixels.lossy:
        return np.asarray((stored >= bounds[0]) & (stored <= bounds[1]))
    low, high = float(stored.min()), float(stored.max())
    near = max(2.0, BLURRED * (high - low))
    # Only at an end of the values: in their midst, the neighbours of padding are values too.
    if bounds[0] - near <= low:
        return np.asarray(stored <= bounds[1] + near)
    if bounds[1] + near >= high:
        return np.asarray(stored >= bounds[0] - near)
    return np.asarray((stored >= bounds[0]) & (stored <= bounds[1]))


def declared(pixels: PixelFormat) -> tuple[int, int] | None:
    """The lowest and the highest stored value of padding; their VR may have been written with the other signedness."""
    if pixels.padding is None:
        return None
    bits = pixels.allocated or 16
    first, last = (bound % (1 << bits) for bound in pixels.padding)
    if pixels.signed:
        first, last = (bound - (1 << bits) if bound >> (bits - 1) else bound for bound in (first, last))
    return min(first, last), max(first, last)


def _hounsfield(header: Header) -> bool:
    """Whether the values are Hounsfield units of a slice."""
    rescaled = header.transform.slope is not None and header.transform.intercept is not None and header.transform.modality_lut is None
    return (
        header.modality == "CT" and rescaled and header.transform.rescale_type in ("", "HU") and "LOCALIZER" not in header.origin.image_type
    )


def _beyond_air(values: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Where CT values are below any that a scanner measures; None where at least two corners are not, as around a circle's."""
    corners = values[[0, 0, -1, -1], [0, -1, 0, -1]]
    return values < AIR if (corners < NOTHING).sum() >= 2 else None
