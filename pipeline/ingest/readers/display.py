"""From stored DICOM values to the modality's units and the range that is displayed.

Values pass the modality LUT or rescale (PS3.3 C.11.1), then the VOI LUT or window (C.11.2), then the presentation (C.7.6.3.1.2 and C.11.6):
MONOCHROME1 is inverted, a palette becomes RGB (C.7.6.3.1.5).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.intensity import contrasts, percentiles
from pipeline.ingest.readers.header import Header, Table, Transform
from pipeline.ingest.readers.padding import outside
from pipeline.ingest.readers.reading import Unusable

Shown = tuple[NDArray[np.float32], float, float, bool]
FLAT = "its rescale or its modality look-up table gives every stored value the same: export it again"
INCOMPLETE = "a look-up table is incomplete: export the image again, or with its values applied"


def display(header: Header, stored: NDArray[Any]) -> Shown:
    """Values as displayed, the value shown black, the value shown white, and whether the values are still the modality's.

    Args:
        header: of this image; a frame's own facts merged in.
        stored: ``[H, W]`` or, in colour, ``[H, W, 3]`` (RGB), as stored.

    Returns:
        Values ``float32 [C, H, W]``, NaN at padding; black is above white when the display is inverted.

    Raises:
        Unusable: a table that is cut, a rescale that is damaged or leaves one value, or values that are not finite.
    """
    signed = bool(header.pixels.signed)
    if header.pixels.photometric == "PALETTE COLOR":
        tables = [entries(table, signed) for table in header.transform.palette or ()]
        # All three together: a colour may be dark by itself, a palette of no value above 255 of 65535 is one of 8 bits.
        top = 255 if all(table.max() <= 255 for _, table, _ in tables) else max(top for _, _, top in tables)
        return np.stack([look_up(stored, first, table) for first, table, _ in tables]).astype(np.float32), 0.0, float(top), False
    if stored.ndim == 3:
        # A colour's range is that of its bits: colour images have no window.
        top = float(2 ** (header.pixels.stored or 8 * stored.dtype.itemsize) - 1)
        return np.ascontiguousarray(stored.transpose(2, 0, 1), np.float32), 0.0, top, True
    values, low, high, linear = _grey(header, stored)
    if header.pixels.photometric == "MONOCHROME1" or header.transform.inverse:
        low, high = high, low
    return values[None], low, high, linear


def look_up(values: NDArray[Any], first: int, table: NDArray[Any]) -> NDArray[Any]:
    """``table[values - first]``; values beside the table get its first or last entry (PS3.3 C.11.1.1.1)."""
    return table[np.clip(values.astype(np.int64) - first, 0, len(table) - 1)]


def _grey(header: Header, stored: NDArray[Any]) -> Shown:
    transform, signed = header.transform, bool(header.pixels.signed)
    if header.damaged & {"RescaleSlope", "RescaleIntercept"}:
        raise Unusable("its rescale slope or intercept is no number: its values would have another unit; export it again")
    values = _modality(transform, signed, stored)
    lowest, highest = _ends(transform, signed, stored, values)
    nothing = outside(header, stored, values)
    if nothing is not None:
        values[nothing] = np.nan
    if transform.voi_lut is not None:
        first, table, top = entries(transform.voi_lut, signed)
        needed = int(table.max()).bit_length()
        if needed <= top.bit_length() - 2:  # some say 16 bits and fill in 12: no table is meant to stay below a quarter of white
            top = (1 << max(needed, 8)) - 1
        shown = look_up(np.rint(np.nan_to_num(values)), first, table).astype(np.float32)
        if nothing is not None:
            shown[nothing] = np.nan
        return shown, 0.0, float(top), False
    if nothing is not None:
        lowest, highest = np.nanmin(values), np.nanmax(values)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise Unusable("holds values that are not finite")
    bounds = _window(transform)
    if bounds is None or not contrasts(bounds, values, float(lowest), float(highest)):
        bounds = percentiles(values)
    if transform.voi_function == "SIGMOID":
        # C.11.2.1.3.1, with the centre and the width recovered from the bounds.
        centre, width = (bounds[0] + bounds[1]) / 2, bounds[1] - bounds[0]
        return (1 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32), 0.0, 1.0, False
    return values, *bounds, True


def _modality(transform: Transform, signed: bool, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Values in the modality's units."""
    if transform.modality_lut is not None:
        first, table, _ = entries(transform.modality_lut, signed)
        return look_up(stored, first, table).astype(np.float32)
    slope, intercept = transform.slope, transform.intercept
    if slope is None or intercept is None:
        return stored.astype(np.float32)
    # In double precision where 24 bits of mantissa do not hold the stored values.
    values: NDArray[Any] = stored.astype(np.float64 if stored.dtype.itemsize > 2 else np.float32)
    if slope != 1:
        values *= slope
    if intercept != 0:
        values += intercept
    return values.astype(np.float32, copy=False)


def _ends(transform: Transform, signed: bool, stored: NDArray[Any], values: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    """The lowest and the highest of the values, NaN where one of them is NaN. Raises Unusable where they are one and the stored are not."""
    if transform.modality_lut is None:  # they follow the stored ones, whose ends are found in half the time
        values = _modality(transform, signed, np.array([stored.min(), stored.max()]))
    lowest, highest = values.min(), values.max()
    if lowest == highest and stored.min() != stored.max():
        raise Unusable(FLAT)
    return lowest, highest


def _window(transform: Transform) -> tuple[float, float] | None:
    """Lower and upper bound of the first window (C.11.2.1.2), None where there is none that makes sense."""
    if transform.window is None:
        return None
    c, w = transform.window
    if transform.voi_function in ("", "LINEAR"):
        c, w = c - 0.5, w - 1
    return None if w <= 0 else (c - w / 2, c + w / 2)


def entries(stored: Table, signed: bool) -> tuple[int, NDArray[np.uint16], int]:
    """First value mapped, entries ``uint16 [n]`` and their greatest possible value (C.11.1.1). Raises Unusable where the table is cut."""
    descriptor, data = stored.descriptor, _expanded(stored) if stored.segmented else stored.data
    if descriptor is None or data is None:
        raise Unusable(INCOMPLETE)
    count, (first, bits) = descriptor[0] & 0xFFFF or 1 << 16, descriptor[1:]
    if signed and first > 0x7FFF:
        first -= 1 << 16
    found: NDArray[np.uint16]
    if not isinstance(data, bytes):
        found = np.atleast_1d(np.asarray(data)).astype(np.uint16)
    elif len(data) < 2 * count:  # one byte an entry, padded to an even length
        found = np.frombuffer(data, np.uint8).astype(np.uint16)
    else:
        found = np.frombuffer(data[: 2 * count], "<u2" if stored.little_endian else ">u2").astype(np.uint16)
    if len(found) < count or not 8 <= bits <= 16:
        raise Unusable(INCOMPLETE)
    # Some writers say 16 bits and fill in 8: taken at its word, such a table would be black.
    top = 255 if bits == 16 and isinstance(data, bytes) and len(data) < 2 * count else (1 << bits) - 1
    return first, found[:count], top


def _expanded(stored: Table) -> tuple[int, ...] | None:
    """A segmented palette, written out (C.7.9.2)."""
    from pydicom.pixels.processing import _expand_segmented_lut

    if stored.descriptor is None or not isinstance(stored.data, bytes):
        return None
    wide, order = stored.descriptor[2] > 8, "<" if stored.little_endian else ">"
    values = np.frombuffer(stored.data, f"{order}u2" if wide else np.uint8)
    return tuple(_expand_segmented_lut(tuple(values.tolist()), f"{order}{len(values)}{'H' if wide else 'B'}"))
