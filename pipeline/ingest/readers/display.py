"""From stored DICOM values to the modality's units and the range that is displayed.

Values pass the modality LUT or rescale (PS3.3 C.11.1), then the VOI LUT or window (C.11.2), then the presentation (C.7.6.3.1.2 and C.11.6):
MONOCHROME1 is inverted, a palette becomes RGB (C.7.6.3.1.5).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.intensity import percentiles
from pipeline.ingest.readers.header import text, value
from pipeline.ingest.readers.reading import Unusable

if TYPE_CHECKING:
    from pydicom import Dataset

Shown = tuple[NDArray[np.float32], float, float, bool]


def display(header: Dataset, stored: NDArray[Any]) -> Shown:
    """Values as displayed, the value shown black, the value shown white, and whether the values are still the modality's.

    Args:
        header: the attributes of this image; a frame's own ones merged in.
        stored: ``[H, W]`` or, in colour, ``[H, W, 3]`` (RGB), as stored.

    Returns:
        Values ``float32 [C, H, W]``, NaN at declared padding; black is above white when the display is inverted.

    Raises:
        Unusable: a table that is cut, or values that are not finite.
    """
    photometric = text(header, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
        tables = [_table(header, value(header, f"{name}Descriptor"), _palette(header, name)) for name in names]
        return np.stack([look_up(stored, *table[:2]) for table in tables]).astype(np.float32), 0.0, float(tables[0][2]), False
    if stored.ndim == 3:
        # A colour's range is that of its bits: colour images have no window.
        return np.ascontiguousarray(stored.transpose(2, 0, 1), np.float32), 0.0, float(2 ** int(header.BitsStored) - 1), True
    values, low, high, linear = _grey(header, stored)
    if photometric == "MONOCHROME1" or text(header, "PresentationLUTShape") == "INVERSE":
        low, high = high, low
    return values[None], low, high, linear


def look_up(values: NDArray[Any], first: int, table: NDArray[Any]) -> NDArray[Any]:
    """``table[values - first]``; values beside the table get its first or last entry (PS3.3 C.11.1.1.1)."""
    return table[np.clip(values.astype(np.int64) - first, 0, len(table) - 1)]


def _grey(header: Dataset, stored: NDArray[Any]) -> Shown:
    values = _modality(header, stored)
    outside = _padding(header, stored)
    if outside is not None:
        values[outside] = np.nan
    if value(header, "VOILUTSequence"):
        item = header.VOILUTSequence[0]
        first, table, top = _table(header, item.get("LUTDescriptor"), item.get("LUTData"))
        shown = look_up(np.rint(np.nan_to_num(values)), first, table).astype(np.float32)
        if outside is not None:
            shown[outside] = np.nan
        return shown, 0.0, float(top), False
    lowest, highest = _ends(header, stored, values) if outside is None else (np.nanmin(values), np.nanmax(values))
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise Unusable("holds values that are not finite")
    bounds = _window(header)
    # A window beside the values shows one flat grey: it was written for other units.
    if bounds is None or bounds[1] <= lowest or bounds[0] >= highest:
        bounds = percentiles(values)
    if text(header, "VOILUTFunction") == "SIGMOID":
        # C.11.2.1.3.1, with the centre and the width recovered from the bounds.
        centre, width = (bounds[0] + bounds[1]) / 2, bounds[1] - bounds[0]
        return (1 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32), 0.0, 1.0, False
    return values, *bounds, True


def _modality(header: Dataset, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Values in the modality's units."""
    if value(header, "ModalityLUTSequence"):
        item = header.ModalityLUTSequence[0]
        first, table, _ = _table(header, item.get("LUTDescriptor"), item.get("LUTData"))
        return look_up(stored, first, table).astype(np.float32)
    slope, intercept = text(header, "RescaleSlope"), text(header, "RescaleIntercept")
    if not slope or not intercept:
        return stored.astype(np.float32)
    # In double precision where 24 bits of mantissa do not hold the stored values.
    values: NDArray[Any] = stored.astype(np.float64 if stored.dtype.itemsize > 2 else np.float32)
    if float(slope) != 1:
        values *= float(slope)
    if float(intercept) != 0:
        values += float(intercept)
    return values.astype(np.float32, copy=False)


def _ends(header: Dataset, stored: NDArray[Any], values: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    """The lowest and the highest of the values, NaN where one of them is NaN."""
    if not value(header, "ModalityLUTSequence"):  # they follow the stored ones, whose ends are found in half the time
        values = _modality(header, np.array([stored.min(), stored.max()]))
    return values.min(), values.max()


def _padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where the stored values are padding (C.7.5.1.1.2); None where nothing is, or everything would be."""
    padding = value(header, "PixelPaddingValue")
    if padding is None:
        return None
    other = value(header, "PixelPaddingRangeLimit")
    bounds = [_stored(header, bound) for bound in (padding, padding if other is None else other)]
    outside: NDArray[np.bool_] = (stored >= min(bounds)) & (stored <= max(bounds))
    return outside if outside.any() and not outside.all() else None


def _stored(header: Dataset, bound: Any) -> int:
    """A stored value whose VR may have been written with the other signedness."""
    if isinstance(bound, bytes):
        bound = int.from_bytes(bound[:2], "little")
    bits = int(header.BitsAllocated)
    number = int(bound) % (1 << bits)
    return number - (1 << bits) if int(value(header, "PixelRepresentation") or 0) and number >> (bits - 1) else number


def _window(header: Dataset) -> tuple[float, float] | None:
    """Lower and upper bound of the first window (C.11.2.1.2), None where there is none that makes sense."""
    centre, width = text(header, "WindowCenter"), text(header, "WindowWidth")
    if not centre or not width:
        return None
    c, w = float(centre), float(width)
    if text(header, "VOILUTFunction") in ("", "LINEAR"):
        c, w = c - 0.5, w - 1
    if not math.isfinite(c) or not math.isfinite(w) or w <= 0:
        return None
    return c - w / 2, c + w / 2


def _table(header: Dataset, descriptor: Any, data: Any) -> tuple[int, NDArray[np.uint16], int]:
    """First value mapped, entries ``uint16 [n]`` and their greatest possible value (C.11.1.1)."""
    if descriptor is None or data is None or len(descriptor) != 3:
        raise Unusable("a look-up table is incomplete: export the image again, or with its values applied")
    count = int(descriptor[0]) & 0xFFFF or 1 << 16
    first, bits = int(descriptor[1]), int(descriptor[2])
    if int(value(header, "PixelRepresentation") or 0) and first > 0x7FFF:
        first -= 1 << 16
    entries: NDArray[np.uint16]
    if not isinstance(data, bytes):
        entries = np.atleast_1d(np.asarray(data)).astype(np.uint16)
    elif len(data) < 2 * count:  # one byte an entry, padded to an even length
        entries = np.frombuffer(data, np.uint8).astype(np.uint16)
    else:
        entries = np.frombuffer(data[: 2 * count], "<u2" if header.original_encoding[1] is not False else ">u2").astype(np.uint16)
    if len(entries) < count or not 8 <= bits <= 16:
        raise Unusable("a look-up table is incomplete: export the image again, or with its values applied")
    entries = entries[:count]
    # Some writers say 16 bits and fill in 8: taken at its word, such a table would be black.
    top = 255 if bits == 16 and isinstance(data, bytes) and len(data) < 2 * count else (1 << bits) - 1
    return first, entries, top


def _palette(header: Dataset, name: str) -> Any:
    if (plain := value(header, f"{name}Data")) is not None:
        return plain
    segmented = value(header, f"Segmented{name}Data")
    return None if segmented is None else _expanded(header, name, segmented)


def _expanded(header: Dataset, name: str, segmented: bytes) -> list[int]:
    """A segmented palette, written out (C.7.9.2)."""
    from pydicom.pixels.processing import _expand_segmented_lut

    wide = int(value(header, f"{name}Descriptor")[2]) > 8
    order = "<" if header.original_encoding[1] is not False else ">"
    values = np.frombuffer(segmented, f"{order}u2" if wide else np.uint8)
    return list(_expand_segmented_lut(tuple(values.tolist()), f"{order}{len(values)}{'H' if wide else 'B'}"))
