"""Ultrasound: only the calibrated two-dimensional region is kept of a screen, with its own spacing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from pipeline.ingest.deidentify import text_guard
from pipeline.ingest.readers.attributes import parsed
from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.reading import Reading
from pipeline.ingest.readers.ultrasound import cropped


def item(box: tuple[int, int, int, int] = (40, 30, 199, 149), **attributes: Any) -> Dataset:
    """A region with the corners ``(x0, y0, x1, y1)``, both of which belong to it."""
    found = Dataset()
    left, top, right, bottom = box
    given = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionLocationMinX0": left,
        "RegionLocationMinY0": top,
        "RegionLocationMaxX1": right,
        "RegionLocationMaxY1": bottom,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": 0.03,
    } | attributes
    for name, value in given.items():
        if value is not None:
            setattr(found, name, value)
    return found


def screen(*items: Dataset, **attributes: Any) -> Header:
    header = Dataset()
    for name, value in {"Modality": "US", "Rows": 200, "Columns": 300, **attributes}.items():
        setattr(header, name, value)
    if items:
        header.SequenceOfUltrasoundRegions = Sequence(items)
    return parsed(header)


def reading(header: Header, channels: int = 1) -> Reading:
    pixels = np.arange(channels * 200 * 300, dtype=np.float32).reshape(channels, 200, 300)
    return Reading(pixels, 0.0, 255.0, True, (9.0, 9.0), 1.0, None, header)


@pytest.mark.parametrize("channels", [1, 3])
def test_only_the_region_is_kept_with_its_spacing_in_mm(channels: int) -> None:
    whole = reading(screen(item()), channels)
    kept = cropped(whole)
    np.testing.assert_array_equal(kept.pixels, whole.pixels[:, 30:150, 40:200])
    assert kept.pixels.base is None or kept.pixels.base.size == kept.pixels.size  # nothing outside is held on to
    assert kept.spacing == pytest.approx((0.3, 0.2))
    assert kept.aspect == pytest.approx(1.5)


def test_the_place_in_the_patient_moves_with_the_corner() -> None:
    affine = np.eye(4)
    affine[:3, 1], affine[:3, 2] = (0, 0.5, 0), (0.25, 0, 0)
    whole = Reading(np.zeros((1, 200, 300), np.float32), 0, 1, True, (0.5, 0.25), 2.0, affine, screen(item()), "slice")
    kept = cropped(whole)
    assert kept.affine is not None
    np.testing.assert_allclose(kept.affine @ (0, 0, 0, 1), affine @ (0, 30, 40, 1))
    assert kept.spacing == (0.5, 0.25)


def test_a_frame_of_a_loop_and_a_volume_are_cropped_alike() -> None:
    whole = Reading(np.zeros((1, 5, 200, 300), np.float32), 0, 1, True, None, 1.0, None, screen(item()), "volume")
    assert cropped(whole).pixels.shape == (1, 5, 120, 160)


@pytest.mark.parametrize(
    ("items", "box"),
    [
        ([item((0, 0, 79, 79)), item((100, 50, 259, 169))], (50, 100, 170, 260)),  # the larger of two views
        ([item((10, 10, 89, 89)), item((110, 10, 189, 89))], (10, 10, 90, 90)),  # the first of equal ones
        ([item((60, 60, 99, 99), RegionDataType=2), item((40, 30, 199, 149))], (30, 40, 150, 200)),  # a colour box in the tissue
        ([item((0, 100, 299, 199), RegionSpatialFormat=3), item((90, 0, 209, 89))], (0, 90, 90, 210)),  # a larger Doppler spectrum
        ([item((0, 0, 299, 99), RegionSpatialFormat=2), item((0, 100, 99, 199))], (100, 0, 200, 100)),  # M-mode
        ([item((40, 30, 300, 200))], (30, 40, 200, 300)),  # one pixel too far: a common slip
        ([item((40, 30, 9999, 9999)), item((5, 5, 44, 44))], (5, 5, 45, 45)),  # corners of another picture
        ([item((80, 30, 40, 149)), item((5, 5, 44, 44))], (5, 5, 45, 45)),  # left of itself
        ([item((5, 5, 8, 8)), item((5, 5, 44, 44))], (5, 5, 45, 45)),  # too small to be a scan
    ],
)
def test_of_several_regions_the_largest_that_is_possible_counts(items: list[Dataset], box: tuple[int, ...]) -> None:
    found = (screen(*items)).origin.scan
    assert found is not None
    assert (found.top, found.left, found.bottom, found.right) == box


@pytest.mark.parametrize(
    "items",
    [
        [],
        [item(RegionSpatialFormat=None)],
        [item(RegionLocationMaxX1=None)],
        [item((0, 0, 299, 199))],  # the whole screen, banners and all
        [item((1, 1, 298, 198))],
        [item((0, 0, 400, 100))],
        [item((4_000_000_000, 0, 4_000_000_100, 100))],
        [item(RegionSpatialFormat=5)],
    ],
)
def test_without_a_usable_region_the_screen_is_refused_as_a_kind_that_has_text(items: list[Dataset]) -> None:
    header = screen(*items)
    assert (header).origin.scan is None
    assert cropped(whole := reading(header)) is whole
    assert (text_guard.refuse_header(header) or "").startswith("ultrasound")


def test_with_a_region_the_pixels_decide_but_what_is_declared_or_captured_is_refused() -> None:
    assert text_guard.refuse_header(screen(item())) is None
    assert text_guard.refuse_header(screen(item(), BurnedInAnnotation="YES")) is not None
    assert (text_guard.refuse_header(screen(item(), ConversionType="DV")) or "").startswith("digitised video")
    assert (text_guard.refuse_header(screen(item(), Manufacturer="PACSGEAR")) or "").startswith("a digitised film")


@pytest.mark.parametrize(
    "attributes",
    [
        {"PhysicalUnitsXDirection": 4},  # seconds
        {"PhysicalUnitsYDirection": 0},
        {"PhysicalDeltaX": 0.0},
        {"PhysicalDeltaX": math.inf},
        {"PhysicalDeltaY": math.nan},
        {"PhysicalDeltaY": 40.0},
        {"PhysicalDeltaX": None},
    ],
)
def test_a_calibration_that_cannot_be_leaves_the_files_own_spacing(attributes: dict[str, Any]) -> None:
    kept = cropped(reading(screen(item(**attributes))))
    assert kept.pixels.shape == (1, 120, 160)
    assert kept.spacing == (9.0, 9.0)


def test_a_negative_step_is_a_length_all_the_same() -> None:
    kept = cropped(reading(screen(item(PhysicalDeltaY=-0.03))))
    assert kept.spacing == pytest.approx((0.3, 0.2))


@pytest.mark.parametrize("modality", ["IVUS", "US", "us"])
def test_of_other_modalities_nothing_is_cut(modality: str) -> None:
    assert screen(item(), Modality=modality).origin.scan is not None
    assert screen(item(), Modality="MR").origin.scan is None
    assert screen(item(), Modality="").origin.scan is None


def test_a_damaged_sequence_is_taken_as_absent() -> None:
    header = Dataset()
    header.Modality, header.Rows, header.Columns = "US", 200, 300
    header.add_new(0x00186011, "LO", "no sequence")
    assert (parsed(header)).origin.scan is None
