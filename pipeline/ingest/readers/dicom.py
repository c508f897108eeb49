"""DICOM files: every image in one, in its own units with its place in the patient, or the reason why it is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.pixels.utils import iter_pixels, pixel_array
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from pipeline.ingest.readers.display import display
from pipeline.ingest.readers.header import quiet, text, value
from pipeline.ingest.readers.reading import Quarantined, Reading, Refuse, Unusable, nothing

MAX_BYTES = 1 << 30
MAX_PIXELS = 64 << 20
MAX_VALUES = 512 << 20
# The only attributes that are parsed at all.
READ = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "InstitutionName"),
    *("PatientID", "IssuerOfPatientID", "PatientSex", "PatientAge"),
    *("PresentationIntentType", "ViewPosition", "ImageLaterality", "Laterality", "BodyPartExamined"),
    *("BurnedInAnnotation", "RecognizableVisualFeatures", "Manufacturer", "ManufacturerModelName", "ImageType", "ConversionType"),
    "SecondaryCaptureDeviceManufacturer",
    *("AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "InstanceNumber", "DiffusionBValue", "DirectoryRecordSequence"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "PresentationLUTShape"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)
# As numbers: pydicom's tags compare more slowly.
_TAGS: list[BaseTag | int] = [int(Tag(keyword)) for keyword in READ]
PIXEL_GROUP = 0x7FE00000
NO_PIXELS = "holds no pixel data: a header without its image; export it again with its pixels"
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# SOP classes that hold no image of the patient (PS3.4 B.5), by the beginning of their UID below 1.2.840.10008.
NOT_IMAGES = {
    "1.3.10": "a DICOMDIR index, not an image: the files that it lists are read by themselves",
    "5.1.4.1.1.88": "a structured report (SR) or key object selection, not an image",
    "5.1.4.1.1.66.4": "a segmentation (SEG): it holds labels, not an image",
    "5.1.4.1.1.66.7": "a segmentation (SEG): it holds labels, not an image",
    "5.1.4.1.1.66": "a registration, surface, tractography or raw-data object, not an image",
    "5.1.4.1.1.67": "a real-world value mapping, not an image",
    "5.1.4.1.1.91": "annotations of a microscopy image, not an image",
    "5.1.4.1.1.104": "an encapsulated document (PDF, CDA, STL, OBJ), not an image",
    "5.1.4.1.1.9": "a waveform (ECG, audio, ...), not an image",
    "5.1.4.1.1.11": "a presentation state, not an image",
    "5.1.4.1.1.481.2": "a radiotherapy dose map, not an image of the patient",
    "5.1.4.1.1.481.1": "",  # RT Image: a radiograph
    "5.1.4.1.1.481": "a radiotherapy plan, structure set or record, not an image",
}
# Transfer syntaxes whose pixels lie in the data set as they are, little-endian.
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
GROUPS = (
    *("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "FrameVOILUTSequence"),
    *("PixelValueTransformationSequence", "MRDiffusionSequence", "MREchoSequence"),
)


def read(path: Path, refuse: Refuse = nothing, also: tuple[str, ...] = ()) -> Iterator[Reading | Quarantined]:
    """The images of one file, one for each frame; no file makes it raise anything but MemoryError.

    Left out are files that are not DICOM, that are damaged, in an encoding that is not known, too large (1 GiB, 64 Mpx a frame), or of a
    kind that holds no image (reports, segmentations, documents, directories).

    Args:
        path: the file.
        refuse: asked with the header, before anything is decoded, why the image is not wanted.
        also: keywords to keep in the header beside :data:`READ`.
    """
    try:
        with quiet():
            yield from _images(path, refuse, also)
    except Unusable as error:
        yield Quarantined(str(error))
    except InvalidDicomError:
        yield Quarantined("not a DICOM file")
    except OSError:
        yield Quarantined("cannot be opened: mend its permissions")
    except MemoryError:
        raise  # whether it fits depends on what else the process holds: `isolate` tries it again in a fresh one
    except Exception as error:
        # Only the kind of error: a parser's message may quote the patient's data.
        yield Quarantined(f"damaged or not decodable ({type(error).__name__}): export it again")


def read_each(paths: Sequence[Path], refuse: Refuse = nothing, also: tuple[str, ...] = ()) -> Iterator[Reading | Quarantined]:
    """The images of several files, one after the other."""
    for path in paths:
        yield from read(path, refuse, also)


def read_header(path: Path) -> Dataset | Quarantined:
    """The attributes of :data:`READ` but for the pixels; no file makes it raise."""
    try:
        with quiet():
            return _open(path, _TAGS, pixels=False)
    except Unusable as error:
        return Quarantined(str(error))
    except InvalidDicomError:
        return Quarantined("not a DICOM file")
    except OSError:
        return Quarantined("cannot be opened: mend its permissions")
    except Exception as error:
        return Quarantined(f"damaged or not decodable ({type(error).__name__}): export it again")


def _images(path: Path, refuse: Refuse, also: tuple[str, ...]) -> Iterator[Reading | Quarantined]:
    header = _open(path, [*_TAGS, *(int(Tag(keyword)) for keyword in also)])
    frames = _check(header)
    if (why := refuse(header)) is not None:
        raise Unusable(why)
    shift = _unused_low_bits(header)
    bare = header[:PIXEL_GROUP] if frames > 1 else header
    number = 0
    try:
        for number, stored in enumerate(_decoded(header, frames)):
            if bare is header:  # cheaper than a copy of all else, which the headers of several frames share
                for name in PIXELS:
                    if name in header:
                        del header[name]
            try:
                yield _reading(flattened(bare, number), stored >> shift if shift else stored, number if frames > 1 else None)
            except Unusable as error:
                yield Quarantined(str(error))
    except (Unusable, OSError, MemoryError):
        raise
    except Exception as error:
        place = f" of frame {number + 1}" if frames > 1 else ""
        raise Unusable(
            f"the pixel data{place} are damaged, cut short or in an unsupported encoding ({type(error).__name__}): export it again"
        ) from None


def _open(path: Path, tags: list[BaseTag | int], pixels: bool = True) -> Dataset:
    """These attributes. Raises InvalidDicomError where the file is not DICOM, OSError where it cannot be opened."""
    if path.stat().st_size > MAX_BYTES:
        raise Unusable(f"larger than {MAX_BYTES >> 20} MiB: split it into files with fewer frames")
    with path.open("rb") as file:
        try:
            header: Dataset = read_partial(file, None if pixels else _at_pixels, specific_tags=tags)
        except InvalidDicomError:
            header = _without_meta(file, tags, pixels)
    meta = header.file_meta
    if not meta.get("TransferSyntaxUID"):
        implicit, little = header.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return header


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag >= PIXEL_GROUP)


def _without_meta(file: BinaryIO, tags: list[BaseTag | int], pixels: bool) -> Dataset:
    """A data set without the preamble of PS3.10, as old archives hold: recognised by its first attribute, which is of group 0008."""
    file.seek(0)
    start = file.read(4)
    if start[:2] not in (b"\x08\x00", b"\x00\x08") or start[2:] == b"\x08\x00":
        raise InvalidDicomError
    file.seek(0)
    header: Dataset = read_partial(file, None if pixels else _at_pixels, force=True, specific_tags=tags)
    if "SOPClassUID" not in header:
        raise InvalidDicomError
    return header


def _check(header: Dataset) -> int:
    """The number of frames, at least 1, of a file that holds an image."""
    if (why := not_an_image(header)) is not None:
        raise Unusable(why)
    rows, columns = int(value(header, "Rows") or 0), int(value(header, "Columns") or 0)
    if not any(name in header for name in PIXELS) or not rows or not columns:
        raise Unusable(NO_PIXELS)
    values = rows * columns * int(value(header, "SamplesPerPixel") or 1)
    frames = int(value(header, "NumberOfFrames") or 1)
    if values > MAX_PIXELS or frames * values > MAX_VALUES:
        raise Unusable(f"declares more than {MAX_PIXELS >> 20} million pixels a frame, or {MAX_VALUES >> 20} million in all")
    return max(frames, 1)


def not_an_image(header: Dataset) -> str | None:
    """Why an object of this SOP class is no image; None for one that may be."""
    if "DirectoryRecordSequence" in header:
        return NOT_IMAGES["1.3.10"]
    uid = text(header, "SOPClassUID") or str(header.file_meta.get("MediaStorageSOPClassUID") or "")
    kind = f"{uid.removeprefix('1.2.840.10008.')}."
    matching = [prefix for prefix in NOT_IMAGES if kind.startswith(f"{prefix}.")]
    return (NOT_IMAGES[max(matching, key=len)] or None) if matching else None


def _unused_low_bits(header: Dataset) -> int:
    """Bits below the value where High Bit says that it is not at the low end (retired, PS3.5 8.1.1); the header is corrected for them."""
    stored, high = int(value(header, "BitsStored") or 0), value(header, "HighBit")
    if high is None or not stored or int(high) + 1 <= stored or header.file_meta.TransferSyntaxUID.is_encapsulated:
        return 0
    header.BitsStored = int(high) + 1
    return int(high) + 1 - stored


def _decoded(header: Dataset, frames: int) -> Iterator[NDArray[Any]]:
    """Each frame as stored, ``[H, W]`` or RGB ``[H, W, 3]``."""
    if header.file_meta.TransferSyntaxUID in (JPEGBaseline8Bit, JPEGExtended12Bit):
        _mend(header, frames)
    if (plain := _native(header)) is not None:
        yield plain
    elif frames == 1:
        stored = pixel_array(header, view_only=True)
        yield stored[0] if int(value(header, "NumberOfFrames") or 1) == 1 and stored.ndim == 4 else stored
    else:
        yield from iter_pixels(header, view_only=True)


def _native(header: Dataset) -> NDArray[Any] | None:
    """The single grey frame of an uncompressed file ``[H, W]``, without a copy: what pydicom gives, in a twentieth of its time.

    None where anything is out of the ordinary (colour, odd sizes, bits above those stored, a wrong length): pydicom decides on those.
    """
    if header.file_meta.TransferSyntaxUID not in NATIVE or value(header, "NumberOfFrames") not in (None, 1):
        return None
    if value(header, "SamplesPerPixel") != 1 or value(header, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        return None
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    rows, columns, allocated, bits, signed = found = [value(header, name) for name in names]
    data = value(header, "PixelData")
    if not isinstance(data, bytes) or not all(type(one) is int for one in found):
        return None
    length = rows * columns * allocated // 8
    if allocated not in (8, 16) or not 0 < bits <= allocated or signed not in (0, 1) or not length or len(data) != length + length % 2:
        return None
    values = np.frombuffer(data, f"<{'iu'[1 - signed]}{allocated // 8}", rows * columns).reshape(rows, columns)
    bound = 1 << (bits - signed)
    return values if bits == allocated or (values.max() < bound and (not signed or values.min() >= -bound)) else None


def _mend(header: Dataset, frames: int) -> None:
    """Give sequential JPEG scans the spectral selection 0..63 that they must have (ITU-T T.81, table B.3): some old encoders wrote 0..0."""
    images = [bytearray(image) for image in generate_frames(header.PixelData, number_of_frames=frames)]
    wrong = False
    for image in images:
        scan = image.find(b"\xff\xda")
        end = scan + 2 + int.from_bytes(image[scan + 2 : scan + 4], "big")
        if 0 < scan < end <= len(image) and image[end - 3 : end - 1] == b"\0\0":
            image[end - 2], wrong = 63, True
    if wrong:
        header.PixelData = encapsulate([bytes(image) for image in images])


def flattened(header: Dataset, frame: int) -> Dataset:
    """The header of one frame: what the functional groups of an enhanced object say of it (PS3.3 C.7.6.16), at the top."""
    shared, each = value(header, "SharedFunctionalGroupsSequence"), value(header, "PerFrameFunctionalGroupsSequence")
    if not shared and not each:
        return header
    flat = header[:PIXEL_GROUP]
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if name in flat:
            del flat[name]
    for groups in (shared[0] if shared else None, each[frame] if each and frame < len(each) else None):
        for name in GROUPS:
            item = groups.get(name) if groups is not None else None
            if item:
                flat.update(item[0])
    return flat


def _reading(header: Dataset, stored: NDArray[Any], frame: int | None) -> Reading:
    pixels, low, high, linear = display(header, stored)
    mm, aspect = spacing(header)
    affine = place(header, mm)
    return Reading(pixels, low, high, linear, mm, aspect, affine, header, "image" if affine is None else "slice", frame)


def spacing(header: Dataset) -> tuple[tuple[float, float] | None, float]:
    """Mm between rows and between columns, None where it is not known; and the height of a pixel over its width."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        mm = _numbers(header, name, 2)
        if mm is not None and min(mm) > 0:
            return (mm[0], mm[1]), mm[0] / mm[1]
    ratio = _numbers(header, "PixelAspectRatio", 2)
    return None, ratio[0] / ratio[1] if ratio is not None and min(ratio) > 0 else 1.0


def place(header: Dataset, mm: tuple[float, ...] | None) -> NDArray[np.float64] | None:
    """Affine from indices (slice, row, column, 1) to RAS+ mm (PS3.3 C.7.6.2.1.1); None where position or orientation say nothing."""
    position, cosines = _numbers(header, "ImagePositionPatient", 3), _numbers(header, "ImageOrientationPatient", 6)
    if position is None or cosines is None or mm is None:
        return None
    along_row, along_column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(along_row @ along_column) > 0.01:
        return None
    affine = np.eye(4)
    affine[:3, 0] = np.cross(along_row, along_column)
    affine[:3, 1], affine[:3, 2] = along_column * mm[0], along_row * mm[1]
    affine[:3, 3] = position
    affine[:2] *= -1  # DICOM's axes point to the left and to the back
    return affine


def _numbers(header: Dataset, keyword: str, count: int) -> list[float] | None:
    try:
        values = [float(part) for part in value(header, keyword)]
    except Exception:  # absent, or not numbers
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None
