"""DICOM files: every image in one, in its own units with its place in the patient, or the reason why it is left out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.ingest.readers import attributes, decode, meta, mosaic
from pipeline.ingest.readers.attributes import FUNCTIONAL, OVERLAYS, PIXEL_GROUP, READ
from pipeline.ingest.readers.display import display
from pipeline.ingest.readers.geometry import place, upright
from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.makers import PRIVATE
from pipeline.ingest.readers.reading import Quarantined, Reading, Refuse, Unusable, nothing
from pipeline.ingest.readers.values import items, quiet

MAX_BYTES = 1 << 30
MAX_PIXELS = 64 << 20
MAX_VALUES = 512 << 20
# As numbers: pydicom's tags compare more slowly.
_TAGS: list[BaseTag | int] = [*(int(Tag(keyword)) for keyword in READ), *OVERLAYS, *PRIVATE]
UNDEFINED = 0xFFFFFFFF
# As tags: to look a keyword up takes pydicom ten times as long.
PIXELS = tuple(Tag(name) for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
GROUPED = tuple(Tag(name) for name in FUNCTIONAL)
NO_PIXELS = "holds no pixel data: a header without its image; export it again with its pixels"
CUT_SHORT = "cut short: the file ends before what it declares; copy or export it again"
UNOPENED = "cannot be opened: mend its permissions"
UNDESCRIBED = "has more frames than functional groups, which say what unit their values have: export it again"
DAMAGED = "damaged or not decodable ({}): export it again"
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


def read(path: Path, refuse: Refuse = nothing, also: tuple[str, ...] = ()) -> Iterator[Reading | Quarantined]:
    """The images of one file, one for each frame; no file makes it raise anything but MemoryError.

    Left out are files that are not DICOM, that are damaged, in an encoding that is not known, too large (1 GiB, 64 Mpx a frame), or of a
    kind that holds no image (reports, segmentations, documents, directories).

    Args:
        path: the file.
        refuse: asked with the header, before anything is decoded, why the image is not wanted.
        also: keywords to keep in the header beside those that it always has.
    """
    try:
        with quiet():
            yield from _images(path, refuse, also)
    except MemoryError:
        raise  # whether it fits depends on what else the process holds: `isolate` tries it again in a fresh one
    except Exception as error:
        yield Quarantined(_why(error))


def read_each(paths: Sequence[Path], refuse: Refuse = nothing, also: tuple[str, ...] = ()) -> Iterator[Reading | Quarantined]:
    """The images of several files, one after the other."""
    for path in paths:
        yield from read(path, refuse, also)


def read_header(path: Path) -> Header | Quarantined:
    """The header without the pixels; no file makes it raise."""
    try:
        with quiet():
            dataset, whole = _open(path, _TAGS, pixels=False)
            header = attributes.parsed(dataset)
            return header if whole else Quarantined(not_an_image(header) or CUT_SHORT)
    except Exception as error:
        return Quarantined(_why(error))


def _why(error: Exception) -> str:
    """Why a file is left out. Of an unknown error only its kind: a parser's message may quote the patient's data."""
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, InvalidDicomError):
        return "not a DICOM file"
    return CUT_SHORT if isinstance(error, EOFError) else DAMAGED.format(type(error).__name__)


def _images(path: Path, refuse: Refuse, also: tuple[str, ...]) -> Iterator[Reading | Quarantined]:
    dataset, whole = _open(path, [*_TAGS, *(int(Tag(keyword)) for keyword in also)])
    header = attributes.parsed(dataset, also)
    _check(header, dataset, path, whole)
    if (why := refuse(header)) is not None:
        raise Unusable(why)
    if header.acquisition.mosaic != 0:
        yield from mosaic.split(header, next(_decoded(dataset, header)), _reading)
        return
    several = header.pixels.frames > 1
    grouped = any(tag in dataset for tag in GROUPED)
    described = len(items(dataset, "PerFrameFunctionalGroupsSequence")) or header.pixels.frames
    for number, stored in enumerate(_decoded(dataset, header)):
        if number >= described:
            yield Quarantined(UNDESCRIBED)
            continue
        own = attributes.framed(dataset, number, also) if grouped else header
        try:
            yield _reading(own, stored, number if several else None)
        except Unusable as error:
            yield Quarantined(str(error))


def _decoded(dataset: Dataset, header: Header) -> Iterator[NDArray[Any]]:
    """The frames as stored. Raises Unusable where one cannot be decoded."""
    number = 0
    try:
        for number, stored in enumerate(decode.frames(dataset, header.pixels)):
            if header.pixels.frames == 1:  # what is decoded needs the encoded no more
                for tag in PIXELS:
                    if tag in dataset:
                        del dataset[tag]
            yield stored
            number += 1
    except (Unusable, MemoryError):
        raise
    except Exception as error:
        place = f" of frame {number + 1}" if header.pixels.frames > 1 else ""
        if decode.ends_early(dataset, header.pixels):
            raise Unusable(f"the pixel data{place} are cut short: copy or export it again") from None
        raise Unusable(
            f"the pixel data{place} are damaged or in an unsupported encoding ({type(error).__name__}): export it again"
        ) from None


def _open(path: Path, tags: list[BaseTag | int], pixels: bool = True) -> tuple[Dataset, bool]:
    """These attributes, and whether the file did not end within one. Raises InvalidDicomError where it is not DICOM."""
    try:
        size = path.stat().st_size
        file = path.open("rb")
    except OSError:
        raise Unusable(UNOPENED) from None
    if size > MAX_BYTES:
        file.close()
        raise Unusable(f"larger than {MAX_BYTES >> 20} MiB: split it into files with fewer frames")
    with file:
        try:
            until = None if pixels else _at_pixels
            found = meta.explicit(file, until, tags)
            dataset: Dataset = read_partial(file, until, specific_tags=tags) if found is None else found
        except InvalidDicomError:
            dataset = _without_meta(file, tags, pixels)
        except zlib.error as error:
            raise Unusable(CUT_SHORT if "incomplete" in str(error) else DAMAGED.format("deflate")) from None
        whole = file.tell() <= size and not _cut(dataset, size - file.tell())
    said = dataset.file_meta
    if not said.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        said.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset, whole


def _cut(dataset: Dataset, rest: int) -> bool:
    """Whether a file ended before a value did: pydicom then gives what there was of it, or nothing of the data set and leaves a rest."""
    last: Any = next(reversed(list(dataset.values())), None)
    if last is None:
        return rest > 0
    raw: Any = last if isinstance(last, tuple) else None
    return bool(raw and raw.length != UNDEFINED and raw.length > len(raw.value or b""))


def _ends_well(path: Path) -> bool:
    """Whether a file ends with a value, as far as can be told."""
    with path.open("rb") as file:
        last: Any = next(reversed(list(read_partial(file, force=True).values())), None)
    if last is None:
        return False
    raw: Any = last if isinstance(last, tuple) else None
    return not raw or raw.length == UNDEFINED or raw.value_tell + raw.length == path.stat().st_size


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag >= PIXEL_GROUP)


def _without_meta(file: BinaryIO, tags: list[BaseTag | int], pixels: bool) -> Dataset:
    """A data set without the preamble of PS3.10, as old archives hold: recognised by its first attribute, which is of group 0008."""
    file.seek(0)
    start = file.read(4)
    if start[:2] not in (b"\x08\x00", b"\x00\x08") or start[2:] == b"\x08\x00":
        raise InvalidDicomError
    file.seek(0)
    dataset: Dataset = read_partial(file, None if pixels else _at_pixels, force=True, specific_tags=tags)
    if "SOPClassUID" not in dataset:
        raise InvalidDicomError
    return dataset


def _check(header: Header, dataset: Dataset, path: Path, whole: bool) -> None:
    """Raises Unusable for an object that holds no image, is cut short, or is too large."""
    if (why := not_an_image(header)) is not None:
        raise Unusable(why)
    if not whole:
        raise Unusable(CUT_SHORT)
    pixels = header.pixels
    if not any(tag in dataset for tag in PIXELS) or not pixels.rows or not pixels.columns:
        raise Unusable(NO_PIXELS if _ends_well(path) else CUT_SHORT)
    needed = {"Bits Allocated": pixels.allocated, "Bits Stored": pixels.stored, "Pixel Representation": pixels.signed}
    missing = [name for name, value in {**needed, "Photometric Interpretation": pixels.photometric or None}.items() if value is None]
    if missing and "PixelData" in dataset:
        raise Unusable(f"its header does not say how its pixels are stored ({', '.join(missing)}): export it again")
    if (why := decode.mistaken(pixels, dataset.file_meta.TransferSyntaxUID)) is not None:
        raise Unusable(why)
    values = pixels.rows * pixels.columns * pixels.samples
    if values > MAX_PIXELS or pixels.frames * values > MAX_VALUES:
        raise Unusable(f"declares more than {MAX_PIXELS >> 20} million pixels a frame, or {MAX_VALUES >> 20} million in all")


def not_an_image(header: Header) -> str | None:
    """Why an object of this SOP class is no image; None for one that may be."""
    kind = f"{header.sop_class_uid.removeprefix('1.2.840.10008.')}."
    matching = [prefix for prefix in NOT_IMAGES if kind.startswith(f"{prefix}.")]
    return (NOT_IMAGES[max(matching, key=len)] or None) if matching else None


def _reading(header: Header, stored: NDArray[Any], frame: int | None) -> Reading:
    pixels, low, high, linear = display(header, stored)
    geometry = header.geometry
    affine = place(geometry)
    if affine is not None:
        return Reading(pixels, low, high, linear, geometry.spacing, geometry.aspect, affine, header, "slice", frame)
    turn = upright(header)
    spacing, aspect = geometry.spacing, geometry.aspect
    if turn.transposed:
        spacing, aspect = spacing and (spacing[1], spacing[0]), 1 / aspect
    return Reading(turn.applied(pixels), low, high, linear, spacing, aspect, None, header, "image", frame, turn.name)
