"""Single-frame DICOM images: pixel values as displayed, the header for de-identification, or the reason why a file is left out.

Pixels pass the modality LUT (PS3.3 C.11.1), then the VOI LUT or window (C.11.2), then the presentation (C.7.6.3.1.2 and
C.11.6): MONOCHROME1 is inverted. :class:`Labels` joins the files with the CSV that names their classes.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import MediaStorageDirectoryStorage

from pipeline.errors import InputError
from pipeline.ingest.deidentify import MODALITIES, text

MAX_BYTES = 512 << 20
MAX_PIXELS = 64 << 20
MIN_SIDE = 16
# Without a window the display range is the image's own, but for this share of its pixels at either end (dead pixels, markers).
TAIL = 0.005
# The only attributes that are parsed at all.
READ = (
    *("SpecificCharacterSet", "SOPInstanceUID", "Modality", "InstitutionName", "PatientID", "PatientSex", "PatientAge"),
    *("ViewPosition", "ImageLaterality", "Laterality", "BurnedInAnnotation", "RecognizableVisualFeatures", "DirectoryRecordSequence"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "ExtendedOffsetTable"),
    *("ExtendedOffsetTableLengths", "PixelData", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
)
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Read:
    """A readable image.

    Attributes:
        pixels: ``float32 [H, W]``, in the units of the modality LUT's output, or of the VOI LUT's where there is one.
        low: the value displayed black; above ``high`` when the display is inverted.
        high: the value displayed white.
        linear: whether ``pixels`` are still linear in the modality's units (no VOI LUT).
        spacing: row and column spacing in mm, at the detector where the patient's is not known; None where neither is.
        aspect: height of a pixel over its width.
        header: the other attributes of :data:`READ`, identities included: for :func:`pipeline.ingest.deidentify.keep` only.
    """

    pixels: NDArray[np.float32]
    low: float
    high: float
    linear: bool
    spacing: tuple[float, float] | None
    aspect: float
    header: Dataset = field(repr=False)


@dataclass(frozen=True)
class Quarantined:
    """Why a file is left out, in words that hold nothing of its content."""

    reason: str


class _Unusable(Exception):
    pass


def read(path: Path) -> Read | Quarantined:
    """Read one file; no file makes it raise.

    Left out are files that are not DICOM, damaged, too large (512 MiB, 64 Mpx) or too small (16 px), with several frames, of a kind that is
    not a planar image (reports, segmentations, directories), without Patient ID or SOP Instance UID, with declared burned-in
    annotation, or without contrast. Colour becomes luminance (ITU-R BT.601).
    """
    try:
        with quiet():
            return _read(path)
    except _Unusable as error:
        return Quarantined(str(error))
    except InvalidDicomError:
        return Quarantined("not a DICOM file")
    except OSError:
        return Quarantined("cannot be opened: mend its permissions")
    except MemoryError:
        return Quarantined("does not fit into memory")
    except Exception as error:
        # Only the kind of error: a parser's message may quote the patient's data.
        return Quarantined(f"damaged or not decodable ({type(error).__name__})")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from printing, wherever header values are looked at: its warnings quote them."""
    logger = logging.getLogger("pydicom")
    propagate = logger.propagate
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        logger.propagate = False
        try:
            yield
        finally:
            logger.propagate = propagate


def _read(path: Path) -> Read:
    if path.stat().st_size > MAX_BYTES:
        raise _Unusable(f"larger than {MAX_BYTES >> 20} MiB")
    header = pydicom.dcmread(path, specific_tags=list(READ))
    _check(header)
    try:
        stored = pixel_array(header)
    except Exception as error:
        raise _Unusable(f"the pixel data are damaged or in an unsupported encoding ({type(error).__name__})") from None
    if stored.ndim == 3 and stored.shape[-1] == 3:
        stored = stored.astype(np.float32) @ _LUMINANCE
    if stored.ndim != 2:
        raise _Unusable("the pixel data are not one grey-scale image")
    pixels, low, high, linear = _display(header, stored)
    inverse = text(header, "PhotometricInterpretation") == "MONOCHROME1" or text(header, "PresentationLUTShape") == "INVERSE"
    if inverse:
        low, high = high, low
    if not np.isfinite(pixels).all() or pixels.min() == pixels.max():
        raise _Unusable("the image has no contrast")
    spacing, aspect = _spacing(header)
    del header.PixelData
    return Read(pixels, low, high, linear, spacing, aspect, header)


def _check(header: Dataset) -> None:
    if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in header:
        raise _Unusable("a DICOMDIR index, not an image")
    modality = text(header, "Modality").upper()
    if modality not in MODALITIES:
        raise _Unusable("the Modality is missing or not that of a planar image (a report, a segmentation, a whole slide, ...)")
    if "PixelData" not in header:
        raise _Unusable("holds no integer pixel data")
    rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    frames = int(header.get("NumberOfFrames") or 1)
    samples = int(header.get("SamplesPerPixel") or 1)
    if frames > 1:
        raise _Unusable("several frames: only single-frame images are read")
    if rows * columns * samples > MAX_PIXELS:
        raise _Unusable(f"more than {MAX_PIXELS >> 20} million pixels")
    if min(rows, columns) < MIN_SIDE:
        raise _Unusable(f"smaller than {MIN_SIDE} pixels")
    if text(header, "PhotometricInterpretation") == "PALETTE COLOR":
        raise _Unusable("pseudo-colour (PALETTE COLOR): its values are not intensities")
    if not text(header, "PatientID"):
        raise _Unusable("no Patient ID: it could not be kept on the same side of the split as the patient's other images")
    if not text(header, "SOPInstanceUID"):
        raise _Unusable("no SOP Instance UID")
    if text(header, "BurnedInAnnotation").upper() == "YES" or text(header, "RecognizableVisualFeatures").upper() == "YES":
        raise _Unusable("the header declares burned-in annotation or recognisable features: clean the pixels and the flag")


def _display(header: Dataset, stored: NDArray[np.generic]) -> tuple[NDArray[np.float32], float, float, bool]:
    """Values, the window's bounds (before any inversion), and whether the values are still those of the modality."""
    values = np.asarray(apply_modality_lut(stored, header))
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        looked_up = apply_voi(np.rint(values).astype(np.int32), header)
        return looked_up.astype(np.float32), 0.0, float(2 ** int(table.LUTDescriptor[2]) - 1), False
    bounds = _window(header)
    pixels = values.astype(np.float32)
    # A window beside the values shows one flat grey: it was written for other units.
    if bounds is None or bounds[1] <= pixels.min() or bounds[0] >= pixels.max():
        kept = pixels
        if (padding := header.get("PixelPaddingValue")) is not None:
            inside = stored != padding
            kept = pixels[inside] if inside.any() else pixels
        bounds = float(np.quantile(kept, TAIL)), float(np.quantile(kept, 1 - TAIL))
        if bounds[0] >= bounds[1]:
            bounds = float(kept.min()), float(kept.max())
        if bounds[0] >= bounds[1]:
            raise _Unusable("the image has no contrast")
    if text(header, "VOILUTFunction") == "SIGMOID":
        # C.11.2.1.3.1, with the centre and the width recovered from the bounds.
        centre, width = (bounds[0] + bounds[1]) / 2, bounds[1] - bounds[0]
        return (1 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32), 0.0, 1.0, False
    return pixels, *bounds, True


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


def _spacing(header: Dataset) -> tuple[tuple[float, float] | None, float]:
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        value = header.get(name)
        if value is not None and len(value) == 2 and all(math.isfinite(float(part)) and float(part) > 0 for part in value):
            row, column = float(value[0]), float(value[1])
            return (row, column), row / column
    ratio = header.get("PixelAspectRatio")
    if ratio is not None and len(ratio) == 2 and min(int(part) for part in ratio) > 0:
        return None, int(ratio[0]) / int(ratio[1])
    return None, 1.0


@dataclass(frozen=True)
class Labels:
    """Classes by file, SOP Instance UID or Patient ID.

    Attributes:
        column: ``file``, ``sop_instance_uid`` or ``patient_id``: what ``table`` is keyed by.
        table: class index of every key; -1 where the CSV gives one key several classes.
    """

    KEYS = ("file", "sop_instance_uid", "patient_id")
    column: str
    table: dict[str, int] = field(repr=False)

    @classmethod
    def load(cls, path: Path, classes: Sequence[str]) -> Labels:
        """Read the CSV: a column ``label``, and the first of :attr:`KEYS` that it has; rows without a label are passed over.

        Raises:
            InputError: it cannot be read, lacks a column, or holds labels that are no class.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
                rows = [dict(zip(columns, (value.strip() for value in row.values() if isinstance(value, str)))) for row in reader]
        except FileNotFoundError:
            raise InputError(f"no label table {path.name} in {path.parent}: put the CSV there, or name it in ingest.labels") from None
        except (UnicodeDecodeError, csv.Error, OSError):
            raise InputError(f"{path.name} cannot be read: save it as CSV with commas, in UTF-8") from None
        column = next((name for name in cls.KEYS if name in columns), None)
        if column is None or "label" not in columns:
            raise InputError(f"{path.name} needs a column 'label' and one of {', '.join(cls.KEYS)}, separated by commas")
        index = {name: number for number, name in enumerate(classes)}
        pairs = [(row.get(column, ""), row.get("label", "")) for row in rows]
        unknown = sorted({label for _, label in pairs if label and label not in index})
        if unknown:
            shown = ", ".join(repr(label[:40]) for label in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise InputError(
                f"{path.name}: {len(unknown)} label(s) match no class: {shown}; ingest.classes names {', '.join(classes)}: "
                f"add them there, or mend the table"
            )
        table: dict[str, int] = {}
        for key, label in pairs:
            if key and label:
                name = PurePosixPath(key.replace("\\", "/")).as_posix() if column == "file" else key
                table[name] = index[label] if table.get(name, index[label]) == index[label] else -1
        return cls(column, table)

    def find(self, file: str, header: Dataset) -> int | Quarantined:
        """Class index of an image, given its file's relative POSIX path and its header."""
        key = {"file": file, "sop_instance_uid": text(header, "SOPInstanceUID"), "patient_id": text(header, "PatientID")}[self.column]
        found = self.table.get(key)
        if found is None:
            return Quarantined(f"no label: its {self.column} is not in the label table")
        return found if found >= 0 else Quarantined(f"contradictory labels for its {self.column} in the label table")
