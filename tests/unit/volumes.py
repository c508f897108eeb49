"""Slices for the tests of volumes: a linear function of their place, as DICOM files and as what the survey notes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from dicom_folder import dataset, write
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from pipeline.ingest.readers import attributes, geometry
from pipeline.ingest.readers import series as series_reader
from pipeline.ingest.readers.header import Acquisition, Geometry, Header
from pipeline.ingest.tasks import series

AXIAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]
OBLIQUE = [np.cos(0.3), np.sin(0.3), 0, -np.sin(0.3) * np.cos(0.2), np.cos(0.3) * np.cos(0.2), np.sin(0.2)]


def header(position: Any, cosines: Any = AXIAL, **attributes: Any) -> Dataset:
    """A slice whose values are ``2 x + 3 y + 5 z + 2000`` of their place in RAS mm."""
    rows, columns, spacing = 24, 20, (1.5, 2.0)
    x, y = np.array(cosines[:3]), np.array(cosines[3:])
    place = np.array(position) + np.arange(rows)[:, None, None] * spacing[0] * y + np.arange(columns)[None, :, None] * spacing[1] * x
    values = place @ [-2, -3, 5] + 2000
    fields = {"ImagePositionPatient": list(map(float, position)), "ImageOrientationPatient": list(map(float, cosines))}
    fields |= {"PixelSpacing": list(spacing), "SeriesInstanceUID": "1.2.3", "Modality": "CT", "SOPClassUID": CTImageStorage}
    fields |= {"RescaleSlope": 0.125, "RescaleIntercept": 0}
    found = dataset(np.zeros((rows, columns), np.uint16), **(fields | attributes))
    found.PixelData = np.rint(values * 8).astype("<u2").tobytes()
    found.BitsStored, found.HighBit = 16, 15
    return found


def folder(root: Path, steps: Any, cosines: Any = AXIAL, **attributes: Any) -> list[str]:
    """A series with slices at these distances along the normal, named in an order that is not theirs."""
    normal = np.cross(cosines[:3], cosines[3:])
    names = []
    for number, distance in enumerate(steps):
        names.append(f"{(number * 7) % 11:02d}-{number}")
        write(root / names[-1], header(np.array([-10.0, 5.0, 30.0]) + distance * normal, cosines, **attributes))
    return sorted(names)


def found_in(root: Path, names: list[str]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    tasks, left = series(root, names, 1, lambda _: None)
    return [task.files for task in tasks], dict(left)


def values_at(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The linear function of :func:`header` at every voxel."""
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], axis=-1)
    return (index @ affine.T)[..., :3] @ [2, 3, 5] + 2000


def one_slice(position: Any, cosines: Any = AXIAL, **facts: Any) -> series_reader.Slice:
    affine = geometry.place(Geometry(tuple(position), tuple(cosines), (1.0, 1.0)))
    assert affine is not None
    acquisition = {name: facts.pop(name) for name in ("trigger_time", "time", "number", "slices", "images") if name in facts}
    phase = tuple(facts.pop(name, "") for name in attributes.PHASES)
    found = Header(
        series_instance_uid="1.2.3",
        study_instance_uid="1.2",
        geometry=Geometry(**facts),
        acquisition=Acquisition(phase=phase, **acquisition),
    )
    return series_reader.place(found, affine, (20, 20))
