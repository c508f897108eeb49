"""Pixel data to stored values: every frame, with only the bits that belong to it."""

from __future__ import annotations

import dataclasses
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
from pipeline.ingest.readers.padding import declared
from pipeline.ingest.readers.reading import Unusable

if TYPE_CHECKING:
    from pydicom import Dataset

# Transfer syntaxes whose pixels lie in the data set as they are, little-endian.
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
PIXEL_DATA = Tag("PixelData")
JPEG = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
# Samples per Pixel of each Photometric Interpretation that becomes grey or RGB (PS3.3 C.7.6.3.1.2), and those that nothing here converts.
SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3}
UNCONVERTED = ("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")
BEYOND = (
    "holds values beyond its Bits Stored ({}), which would wrap around: set Bits Stored and High Bit to what they need, or export it again"
)
# An overlay has few edges, and the image goes on under them: their share of all pairs of neighbours, and the share of these that lie nearer
# to each other with the bits above than without.
DRAWN, NEARER = 1 / 3, 1 / 4
# Share of the range by which lossy coding may run over its end.
RINGING = 1 / 8


def mistaken(pixels: PixelFormat, syntax: str) -> str | None:
    """Why colours, or greys, cannot be what the header says that they are; None where they can."""
    name = pixels.photometric
    if name in UNCONVERTED:
        return f"its Photometric Interpretation is {name}, which is not read: export it again in RGB"
    if name and name not in SAMPLES:
        return "its Photometric Interpretation is none that DICOM knows: export it again in MONOCHROME2 or RGB"
    if name and pixels.samples != SAMPLES[name]:
        return f"its Photometric Interpretation ({name}) contradicts its Samples per Pixel ({pixels.samples}): export it again"
    if name in ("YBR_ICT", "YBR_RCT") and syntax not in JPEG2000TransferSyntaxes:
        return f"its Photometric Interpretation is {name}, which JPEG 2000 alone has, and its pixels are encoded otherwise: export it again"
    return None


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
    if pixels.photometric:
        dataset.PhotometricInterpretation = pixels.photometric  # in capitals, as pydicom knows it
    # All bits: which of them make the value is decided below.
    if pixels.frames == 1:
        stored = pixel_array(dataset, view_only=True, correct_unused_bits=False)
        if stored.ndim > (2 if pixels.samples == 1 else 3):
            if len(stored) > 1:  # taken for one image, the frames would be its channels
                raise Unusable("holds more frames than its Number of Frames says: mend that, or export it again")
            stored = stored[0]
        yield meant(stored, pixels)
    else:
        for stored in iter_pixels(dataset, view_only=True, correct_unused_bits=False):
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
    if shift <= 0 or not _lies_high(stored, bits, shift):
        shift = 0
    stored = stored >> shift if shift else stored
    signed = stored.dtype.kind == "i"
    bound = 1 << (bits - signed)
    if bits == width or (stored.max() < bound and (not signed or stored.min() >= -bound)):
        return stored
    return _within(stored, bits, dataclasses.replace(pixels, overlays=pixels.overlays >> shift))


def _within(stored: NDArray[Any], bits: int, pixels: PixelFormat) -> NDArray[Any]:
    """Values of which some need more than their bits: without what is above where that is no part of them; Unusable where it may be."""
    signed = stored.dtype.kind == "i"
    bound = 1 << (bits - signed)
    low, high = -bound * signed, bound - 1
    if pixels.lossy and max(low - int(stored.min()), int(stored.max()) - high) <= RINGING * (high - low):
        return stored.clip(low, high)
    padding = declared(pixels)
    if padding is not None and (((stored >= low) & (stored <= high)) | ((stored >= padding[0]) & (stored <= padding[1]))).all():
        return stored
    whole = stored.astype(np.int32 if stored.dtype.itemsize <= 2 else np.int64)
    kept = whole & ((1 << bits) - 1)
    if signed:
        kept = (kept ^ bound) - bound
    above = -(1 << bits) & ~pixels.overlays
    # Extended by their sign, but for an overlay; or not extended.
    if not _drawn((whole ^ kept) & above, whole, kept) and np.ptp(whole & above):
        raise Unusable(BEYOND.format(bits))
    return kept.astype(stored.dtype)


def _drawn(upper: NDArray[Any], whole: NDArray[Any], kept: NDArray[Any]) -> bool:
    """Whether bits above an image look drawn over it: values that need them jump at their edges without them."""
    pairs = edges = nearer = 0
    for axis in (0, 1):
        edge = np.diff(upper, axis=axis) != 0
        nearer += int((edge & (np.abs(np.diff(whole, axis=axis)) < np.abs(np.diff(kept, axis=axis)))).sum())
        pairs, edges = pairs + edge.size, edges + int(edge.sum())
    return edges <= DRAWN * pairs and nearer <= NEARER * edges


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
