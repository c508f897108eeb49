"""Volumes: series assembled by position, enhanced objects, and voxels that stay where the affine says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_folder import dataset, write
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage, generate_uid
from volumes import AXIAL, OBLIQUE, SAGITTAL, folder, found_in, header, one_slice, values_at

from pipeline.ingest.readers import dicom
from pipeline.ingest.readers import series as series_reader
from pipeline.ingest.readers.reading import Quarantined, Reading, Unusable
from pipeline.ingest.readers.series import read_series
from pipeline.ingest.standardize import Target, standardize_volume


@pytest.mark.parametrize("cosines", [AXIAL, SAGITTAL, OBLIQUE])
def test_slices_follow_each_other_by_position(tmp_path: Path, cosines: Any) -> None:
    names = folder(tmp_path, np.arange(9) * 2.5, cosines)
    [files], left = found_in(tmp_path, names)
    assert left == {}
    assert [int(name.split("-")[1]) for name in files] == list(range(9))
    [found] = read_series([tmp_path / name for name in files])
    assert isinstance(found, Reading)
    assert found.affine is not None
    assert found.pixels.shape == (1, 9, 24, 20)
    assert found.spacing == pytest.approx((2.5, 1.5, 2.0))
    np.testing.assert_allclose(found.pixels[0], values_at(found.affine, (9, 24, 20)), atol=0.07)


@pytest.mark.parametrize("size", [24, 40])
@pytest.mark.parametrize("cosines", [AXIAL, SAGITTAL, OBLIQUE])
def test_voxels_stay_in_their_place_after_resampling(tmp_path: Path, cosines: Any, size: int) -> None:
    names = folder(tmp_path, np.arange(9) * 2.5, cosines)
    [files], _ = found_in(tmp_path, names)
    [found] = read_series([tmp_path / name for name in files])
    assert isinstance(found, Reading)
    low, high = 1500.0, 2500.0
    image, spacing, affine = standardize_volume(found, low, high, Target(size, bits=16))
    assert image.shape == (1, size, size, size)
    # RAS: D up, H to the front, W to the right, cubes of one spacing.
    np.testing.assert_allclose(affine[:3, :3], np.eye(3)[::-1] * spacing, atol=1e-9)
    back = low + image[0] / 65535 * (high - low)
    # A linear function survives smoothing and linear interpolation exactly, away from the volume's faces.
    index = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1)
    points = np.concatenate([index, np.ones((*index.shape[:3], 1))], axis=-1) @ (np.linalg.inv(found.affine) @ affine).T
    margin = np.array([2, 4, 4])
    inside = ((points[..., :3] >= margin) & (points[..., :3] <= np.array([8, 23, 19]) - margin)).all(axis=-1)
    assert inside.sum() > 50
    np.testing.assert_allclose(back[inside], values_at(affine, (size, size, size))[inside], atol=0.2)
    outside = ((points[..., :3] < -0.51) | (points[..., :3] > np.array([8.51, 23.51, 19.51]))).any(axis=-1)
    assert image[0][outside].max() == 0


def test_a_spacing_in_millimetres_is_met_or_refused(tmp_path: Path) -> None:
    names = folder(tmp_path, np.arange(9) * 2.5)
    [files], _ = found_in(tmp_path, names)
    [found] = read_series([tmp_path / name for name in files])
    assert isinstance(found, Reading)
    _, spacing, affine = standardize_volume(found, 1500, 2500, Target(32, spacing=3.0))
    assert spacing == 3
    np.testing.assert_allclose(affine[:3, :3], np.eye(3)[::-1] * 3)
    with pytest.raises(Unusable, match=r"larger than ingest\.size"):
        standardize_volume(found, 1500, 2500, Target(32, spacing=1.0))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([0, 1, 2, 4, 5, 6], "missing"),
        ([0, 1, 2.2, 3, 4, 5], "irregular"),
        ([0, 1], "fewer than 3"),
    ],
)
def test_what_is_no_volume_says_why(tmp_path: Path, steps: list[float], expected: str) -> None:
    names = folder(tmp_path, steps)
    tasks, left = found_in(tmp_path, names)
    assert tasks == []
    assert set(left) == set(names)
    assert all(expected in reason for reason in left.values())


def test_echoes_scouts_and_other_sizes_are_told_apart(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", np.arange(4), EchoNumbers=1)
    second = folder(tmp_path / "b", np.arange(4), EchoNumbers=2)
    scout = folder(tmp_path / "c", [0], SAGITTAL)
    names = [f"a/{name}" for name in first] + [f"b/{name}" for name in second] + [f"c/{name}" for name in scout]
    tasks, left = found_in(tmp_path, names)
    assert [{name[0] for name in files} for files in tasks] == [{"a"}, {"b"}]
    assert list(left) == [f"c/{scout[0]}"]


def test_a_tilted_gantry_is_sheared_back(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / f"{number}", header([-10.0, 5.0 + 0.8 * number, 2.0 * number]))
    [files], left = found_in(tmp_path, [str(number) for number in range(8)])
    [found] = read_series([tmp_path / name for name in files])
    assert isinstance(found, Reading)
    assert found.affine is not None
    assert left == {}
    np.testing.assert_allclose(found.affine[:3, 0], [0, -0.8, 2])
    np.testing.assert_allclose(found.pixels[0], values_at(found.affine, (8, 24, 20)), atol=0.07)


def test_one_bad_slice_costs_its_volume(tmp_path: Path) -> None:
    names = folder(tmp_path, np.arange(5))
    (tmp_path / names[2]).write_bytes((tmp_path / names[2]).read_bytes()[:-300])
    [files], _ = found_in(tmp_path, names)
    [found] = read_series([tmp_path / name for name in files])
    assert isinstance(found, Quarantined)
    assert "a slice of its series cannot be used" in found.reason


def enhanced(count: int, **attributes: Any) -> Dataset:
    """An enhanced CT whose frames are stored from top to bottom, each with its own rescale."""
    frames = [header([-10, 5, 3.0 * (count - number)]) for number in range(count)]
    found = header([0, 0, 0], SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=count, **attributes)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(found, name)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationPatient = [1.5, 2.0], AXIAL
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    found.SharedFunctionalGroupsSequence = [shared]
    each = []
    for number, frame in enumerate(frames):
        groups, position, transform, window = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = frame.ImagePositionPatient
        transform.RescaleSlope, transform.RescaleIntercept = 0.125, number
        window.WindowCenter, window.WindowWidth = 2000, 401
        groups.PlanePositionSequence, groups.PixelValueTransformationSequence = [position], [transform]
        groups.FrameVOILUTSequence = [window]
        each.append(groups)
    found.PerFrameFunctionalGroupsSequence = each
    found.PixelData = b"".join(
        (np.frombuffer(frame.PixelData, "<u2") - 8 * number).astype("<u2").tobytes() for number, frame in enumerate(frames)
    )
    return found


def test_an_enhanced_object_is_a_volume_and_its_frames_are_images(tmp_path: Path) -> None:
    path = write(tmp_path / "a", enhanced(6))
    tasks, left = found_in(tmp_path, ["a"])
    assert (tasks, left) == ([("a",)], {})
    [found] = read_series([path])
    assert isinstance(found, Reading)
    assert found.affine is not None
    assert (found.low, found.high, found.frame) == (1799.5, 2199.5, None)
    assert found.affine[2, 0] == pytest.approx(3)
    np.testing.assert_allclose(found.pixels[0], values_at(found.affine, (6, 24, 20)), atol=0.07)
    frames = [one for one in dicom.read(path) if isinstance(one, Reading)]
    assert [one.kind for one in frames] == ["slice"] * 6
    np.testing.assert_array_equal(frames[0].pixels[0], found.pixels[0, -1])


def test_frames_without_a_place_are_no_volume(tmp_path: Path) -> None:
    cine = dataset(np.zeros((32, 32), np.uint16), NumberOfFrames=4, SOPInstanceUID=generate_uid())
    cine.PixelData = np.arange(4 * 1024, dtype="<u2").tobytes()
    [found] = read_series([write(tmp_path / "a", cine)])
    assert isinstance(found, Quarantined)
    assert "no position" in found.reason


@pytest.mark.parametrize("jitter", [1e-7, 1e-6, 1e-5, 1e-4, 5e-4])
def test_directions_that_differ_in_their_last_digits_are_one(tmp_path: Path, jitter: float) -> None:
    names = []
    for number in range(12):
        turned = 0.0005 + (-1) ** number * jitter  # on both sides of a rounding
        names.append(f"{number:02d}")
        write(tmp_path / names[-1], header([0.0, 0.0, 2.5 * number], [1, turned, 0, -turned, 1, 0]))
    tasks, left = found_in(tmp_path, names)
    assert (tasks, left) == ([tuple(names)], {})


@pytest.mark.parametrize("what", ["position", "spacing", "all"])
def test_positions_and_spacings_that_differ_in_their_last_digits_are_one(tmp_path: Path, what: str) -> None:
    rng, names = np.random.default_rng(0), []
    for number in range(12):
        place, spacing = np.array([0.0, 0.0, 2.5 * number]), np.array([1.5, 2.0])
        if what != "spacing":
            place = place + rng.normal(0, 1e-3, 3)
        if what != "position":
            spacing = spacing + rng.normal(0, 1e-5, 2)
        names.append(f"{number:02d}")
        write(tmp_path / names[-1], header(place.round(6), PixelSpacing=spacing.round(8).tolist()))
    assert found_in(tmp_path, names) == ([tuple(names)], {})


def test_the_order_of_the_files_does_not_tell_who_belongs_together() -> None:
    rng = np.random.default_rng(1)
    slices = [one_slice([0, 0, 2.0 * number], np.array(AXIAL) + rng.normal(0, 3e-4, 6)) for number in range(30)]
    expected, left = series_reader.arrange(slices)
    assert (len(expected), left) == (1, [])
    for _ in range(5):
        order = rng.permutation(30)
        [found], left = series_reader.arrange([slices[number] for number in order])
        assert ([order[number] for number in found], left) == (expected[0], [])


def test_slices_that_turn_by_and_by_are_no_volume() -> None:
    angles = np.linspace(0, 0.02, 30)  # each like its neighbours, the last unlike the first
    turned = [one_slice([0, 0, 2.0 * number], [1, 0, 0, 0, np.cos(a), np.sin(a)]) for number, a in enumerate(angles)]
    volumes, left = series_reader.arrange(turned)
    assert volumes == []
    assert {why for _, why in left} == {series_reader.TURNING}
