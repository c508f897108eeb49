"""Small DICOM files written by the tests themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


def dataset(pixels: NDArray[np.uint16], **attributes: Any) -> Dataset:
    """A grey-scale DX image; ``attributes`` override or add, None removes."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = UID(DigitalXRayImageStorageForPresentation)
    header.Modality = "DX"
    header.PatientID = "MRN-1"
    header.SOPInstanceUID = generate_uid()
    header.Rows, header.Columns = pixels.shape[:2]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.PixelData = pixels.astype("<u2").tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    return header


def write(path: Path, header: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def ramp(rows: int = 32, columns: int = 32, top: int = 4095) -> NDArray[np.uint16]:
    """Values 0..top, row by row."""
    return np.linspace(0, top, rows * columns).astype(np.uint16).reshape(rows, columns)


def cohort(root: Path, patients: int, classes: tuple[str, ...] = ("normal", "effusion"), images: int = 2) -> Path:
    """``patients`` with ``images`` noise images each, classes in turn, and their ``labels.csv``."""
    rng = np.random.default_rng(7)
    lines = ["file,label"]
    for patient in range(patients):
        for number in range(images):
            name = f"p{patient:03d}/i{number}.dcm"
            pixels = rng.integers(0, 4096, (40, 32), dtype=np.uint16)
            uid = generate_uid(entropy_srcs=[name])
            write(root / name, dataset(pixels, PatientID=f"MRN-{patient}", SOPInstanceUID=uid, WindowCenter=2048, WindowWidth=4096))
            lines.append(f"{name},{classes[patient % len(classes)]}")
    (root / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def pydicom_pixels(path: Path) -> NDArray[np.uint16]:
    """The stored values of a file written here."""
    return pydicom.dcmread(path).pixel_array
