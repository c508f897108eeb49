"""The range of an image's values that is shown from black to white."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.readers.reading import Unusable

if TYPE_CHECKING:
    from pipeline.ingest.readers.reading import Reading

# Without a window the display range is the image's own, but for this share of its pixels at either end (dead pixels, markers).
TAIL = 0.005
# Of 256 grey levels, so many are no contrast.
GREYS = 3
Scaling = Literal["header", "percentile"] | tuple[float, float]


def percentiles(values: NDArray[np.float32], tail: float = TAIL) -> tuple[float, float]:
    """The range that holds all finite values but the share ``tail`` at either end; the whole range where that is one value.

    Where all values are the same, the range ends one above them.
    """
    kept = values[np.isfinite(values)]
    if not kept.size:
        raise Unusable("holds no finite value")
    low, high = (float(bound) for bound in np.quantile(kept, (tail, 1 - tail)))
    if low >= high:
        low, high = float(kept.min()), float(kept.max())
    return (low, high) if low < high else (low, low + 1)


def contrasts(bounds: tuple[float, float], values: NDArray[np.float32], lowest: float, highest: float) -> bool:
    """Whether values, from ``lowest`` to ``highest``, are more than one grey between two bounds: others were written for other units.

    A window beside the values shows one flat grey. So does one in which they are but a spot: of the values' percentiles,
    :data:`GREYS` of its 256 grey levels or fewer.
    """
    low, high = bounds
    if high <= lowest or low >= highest:
        return False
    if min(high, highest) - max(low, lowest) > (high - low) / 4:  # percentiles cost more than all else, and most windows fit
        return True
    first, last = percentiles(values)
    return min(high, last) - max(low, first) > (high - low) * GREYS / 256


def window(reading: Reading, modality: str, scaling: Mapping[str, Scaling]) -> tuple[float, float]:
    """The value that becomes black and the one that becomes white; the first is the greater one for an image that is displayed inverted.

    Raises:
        Unusable: a fixed window is asked for, and the values are not in the modality's units any more.
    """
    how = scaling.get(modality, "header")
    if how == "header":
        return reading.low, reading.high
    if how == "percentile":
        low, high = percentiles(reading.pixels)
    elif reading.linear:
        low, high = how
    else:
        raise Unusable("its VOI LUT has left the modality's units, in which ingest.scaling gives its window: use header or percentile")
    return (high, low) if reading.low > reading.high else (low, high)
