"""Pixel data to stored values: every frame, with only the bits that belong to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import iter_pixels, pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from pipeline.ingest.readers.header import PixelFormat
from pipeline.ingest.readers.reading import Unusable

if TYPE_CHECKING:
    from pydicom import Dataset

# Transfer syntaxes whose pixels lie in the data set as they are, little-endian.
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
PIXEL_DATA = Tag("PixelData")
JPEG = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)


def frames(dataset: Dataset, pixels: PixelFormat) -> Iterator[NDArray[Any]]:
    """Each frame as stored, ``[H, W]`` or RGB ``[H, W, 3]``. Raises what pydicom raises where the pixel data cannot be decoded, and
    Unusable where there are more of them than the header says."""
    if (plain := native(dataset, pixels)) is not None:
        yield plain
        return
    if dataset.file_meta.TransferSyntaxUID in JPEGTransferSyntaxes and ends_early(dataset, pixels):
        raise EOFError  # the decoder would fill in the rest
    if dataset.file_meta.TransferSyntaxUID in (JPEGBaseline8Bit, JPEGExtended12Bit):
        _mend(dataset, pixels.frames)
    declared = pixels.stored
    if declared and pixels.high is not None and declared <= pixels.high < (pixels.allocated or 0):
        dataset.BitsStored = pixels.high + 1  # all bits up to the highest: which of them make the value is decided below
    if pixels.frames == 1:
        stored = pixel_array(dataset, view_only=True)
        if stored.ndim > (2 if pixels.samples == 1 else 3):
            if len(stored) > 1:  # taken for one image, the frames would be its channels
                raise Unusable("holds more frames than its Number of Frames says: mend that, or export it again")
            stored = stored[0]
        yield meant(stored, pixels)
    else:
        for stored in iter_pixels(dataset, view_only=True):
            yield meant(stored, pixels)


def native(dataset: Dataset, pixels: PixelFormat) -> NDArray[Any] | None:
    """The single grey frame of an uncompressed file ``[H, W]``, without a copy: what pydicom gives, in a twentieth of its time.

    None where anything is out of the ordinary (colour, odd sizes, bits beside those stored, a wrong length): pydicom decides on those.
    """
    if dataset.file_meta.TransferSyntaxUID not in NATIVE or pixels.frames != 1 or pixels.samples != 1:
        return None
    allocated, bits, signed = pixels.allocated, pixels.stored, pixels.signed
    if pixels.photometric not in ("MONOCHROME1", "MONOCHROME2") or signed is None or allocated not in (8, 16) or bits is None:
        return None
    data = _bytes(dataset)
    length = pixels.rows * pixels.columns * allocated // 8
    if not 0 < bits <= allocated or not length or len(data) != length + length % 2:
        return None
    if pixels.high not in (None, bits - 1):
        return None
    values = np.frombuffer(data, f"<{'iu'[1 - signed]}{allocated // 8}", pixels.rows * pixels.columns).reshape(pixels.rows, pixels.columns)
    bound = 1 << (bits - signed)
    return values if bits == allocated or (values.max() < bound and (not signed or values.min() >= -bound)) else None


def _bytes(dataset: Dataset) -> bytes:
    """Pixel data as they are encoded; none where they are absent or of another kind."""
    found: Any = dataset.get_item(PIXEL_DATA)
    return found.value if found is not None and isinstance(found.value, bytes) else b""


def ends_early(dataset: Dataset, pixels: PixelFormat) -> bool:
    """Whether pixel data end before their image does."""
    data = _bytes(dataset)
    if not data:
        return False
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        values = pixels.frames * pixels.rows * pixels.columns * (2 if "422" in pixels.photometric else pixels.samples)
        return 8 * len(data) < values * (pixels.allocated or 0)
    try:
        images = list(generate_frames(data, number_of_frames=pixels.frames))
    except Exception:  # fragments that do not follow each other
        return False
    # All of these standards end an image with the same marker (EOI, EOC), which is in none of the coded data after the last scan's (SOS).
    ended = [image.rfind(b"\xff\xd9") > image.rfind(b"\xff\xda") for image in images]
    return len(images) < pixels.frames or (syntax in JPEG and not all(ended))


def meant(stored: NDArray[Any], pixels: PixelFormat) -> NDArray[Any]:
    """Decoded values without the bits that are no part of them (PS3.5 8.1.1): an overlay, or what a codec kept of one.

    A High Bit above Bits Stored - 1 says that the value lies higher, with bits below it. Many a file that says so has its values at the low
    end all the same: it is believed only where the values ask for it, by low bits that are all 0 or by values that need more bits.
    """
    bits, width = pixels.stored, 8 * stored.dtype.itemsize
    if stored.dtype.kind not in "iu" or bits is None or not 0 < bits <= width:
        return stored
    high = bits - 1 if pixels.high is None else min(pixels.high, width - 1)
    shift = high + 1 - bits
    if shift > 0 and _lies_high(stored, bits, shift):
        stored = stored >> shift
    signed = stored.dtype.kind == "i"
    bound = 1 << (bits - signed)
    if bits == width or (stored.max() < bound and (not signed or stored.min() >= -bound)):
        return stored
    kept = stored.astype(np.int64) & ((1 << bits) - 1)
    return np.asarray((kept ^ bound) - bound if signed else kept).astype(stored.dtype)


def _lies_high(stored: NDArray[Any], bits: int, shift: int) -> bool:
    """Whether values of ``bits`` bits have ``shift`` bits below them."""
    if not (stored & ((1 << shift) - 1)).any():
        return True
    lowest, highest = int(stored.min()), int(stored.max())
    half = 1 << (bits - 1)
    # At the low end are values of so many bits, extended by their sign or not.
    return not (lowest >= 0 and highest < 2 * half) and not (stored.dtype.kind == "i" and -half <= lowest and highest < half)


def _mend(dataset: Dataset, count: int) -> None:
    """Give sequential JPEG scans the spectral selection 0..63 that they must have (ITU-T T.81, table B.3): some old encoders wrote 0..0."""
    images = [bytearray(image) for image in generate_frames(dataset.PixelData, number_of_frames=count)]
    wrong = False
    for image in images:
        scan = image.find(b"\xff\xda")
        end = scan + 2 + int.from_bytes(image[scan + 2 : scan + 4], "big")
        if 0 < scan < end <= len(image) and image[end - 3 : end - 1] == b"\0\0":
            image[end - 2], wrong = 63, True
    if wrong:
        dataset.PixelData = encapsulate([bytes(image) for image in images])
