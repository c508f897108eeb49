"""Siemens mosaics are split into their slices, or refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_folder import write
from pydicom import Dataset
from volumes import OBLIQUE, found_in, header, values_at

from pipeline.ingest.readers import dicom
from pipeline.ingest.readers.reading import Quarantined, Reading
from pipeline.ingest.readers.series import read_series


def mosaic(count: int = 7, private: bool = True, csa: bool = True, **attributes: Any) -> tuple[Dataset, list[Dataset]]:
    """A Siemens mosaic of ``count`` oblique slices, and the slices themselves."""
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    first, between, side = np.array([-10.0, 5.0, 30.0]), 3.5, int(np.ceil(np.sqrt(count)))
    single = [header(first + number * between * normal, OBLIQUE, Modality="MR") for number in range(count)]
    tiles = np.zeros((side * side, 24, 20), "<u2")
    tiles[:count] = [np.frombuffer(one.PixelData, "<u2").reshape(24, 20) for one in single]
    whole = tiles.reshape(side, side, 24, 20).swapaxes(1, 2).reshape(side * 24, side * 20)
    # As large as the mosaic, around the same centre (dicom_mosaic in nibabel's documentation of the format).
    corner = first - np.array(OBLIQUE[:3]) * (side - 1) * 20 / 2 * 2.0 - np.array(OBLIQUE[3:]) * (side - 1) * 24 / 2 * 1.5
    found = header(corner, OBLIQUE, Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], SpacingBetweenSlices=between)
    found.Rows, found.Columns, found.PixelData = *whole.shape, whole.tobytes()
    if private:
        found.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
        found.add_new(0x0019100A, "US", count)
    if csa:
        found.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
        found.add_new(
            0x00291010, "OB", csa_header(NumberOfImagesInMosaic=[str(count)], SliceNormalVector=[f"{part:.8f}" for part in normal])
        )
    for name, value in attributes.items():
        setattr(found, name, value)
    return found, single


def csa_header(**tags: list[str]) -> bytes:
    """A CSA header of the second version (SV10)."""
    data = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, values in tags.items():
        data += struct.pack("<64si4siii", name.encode(), len(values), b"FD", 3, len(values), 77)
        for value in values:
            data += struct.pack("<iiii", len(value), len(value), 77, len(value)) + value.encode() + bytes(-len(value) % 4)
    return data + bytes(8)


@pytest.mark.parametrize("count", [4, 7, 9, 13])
@pytest.mark.parametrize("where", ["both", "csa"])
def test_a_mosaic_is_split_into_its_slices(tmp_path: Path, count: int, where: str) -> None:
    whole, single = mosaic(count, private=where == "both")
    path = write(tmp_path / "mosaic", whole)
    images = [one for one in dicom.read(path) if isinstance(one, Reading)]
    assert [one.frame for one in images] == list(range(count))
    for number, (one, alone) in enumerate(zip(images, single)):
        [expected] = dicom.read(write(tmp_path / f"s{number}", alone))
        assert isinstance(expected, Reading)
        assert one.affine is not None
        assert expected.affine is not None
        np.testing.assert_array_equal(one.pixels, expected.pixels)
        np.testing.assert_allclose(one.affine, expected.affine, atol=1e-5)
    assert found_in(tmp_path, ["mosaic"]) == ([("mosaic",)], {})
    [volume] = read_series([path])
    assert isinstance(volume, Reading)
    assert volume.affine is not None
    np.testing.assert_allclose(volume.pixels[0], values_at(volume.affine, (count, 24, 20)), atol=0.07)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"private": False, "csa": False}, "mosaic"),
        ({"private": True, "csa": False}, None),  # slices whose direction is not told: images, no volume
        ({"SpacingBetweenSlices": None}, None),
        ({"Rows": 71}, "mosaic"),
    ],
)
def test_a_mosaic_that_cannot_be_split_rightly_is_refused_for_that(tmp_path: Path, changes: dict[str, Any], expected: str | None) -> None:
    path = write(tmp_path / "a", mosaic(**changes)[0])
    found = list(dicom.read(path))
    if expected:
        assert len(found) == 1
        assert isinstance(found[0], Quarantined)
        assert expected in found[0].reason
    else:
        assert [isinstance(one, Reading) and one.affine for one in found] == [None] * 7
    [volume] = read_series([path])
    assert isinstance(volume, Quarantined)
    assert (expected or "no position") in volume.reason
