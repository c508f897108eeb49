"""Volumes: series assembled by position, enhanced objects, and voxels that stay where the affine says."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_folder import dataset, write
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, RLELossless, generate_uid

from pipeline.ingest.readers import attributes, dicom, geometry
from pipeline.ingest.readers import series as series_reader
from pipeline.ingest.readers.header import Acquisition, Geometry, Header
from pipeline.ingest.readers.reading import Quarantined, Reading, Unusable
from pipeline.ingest.readers.series import read_series
from pipeline.ingest.standardize import Target, standardize_volume
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


def repeated(root: Path, which: list[int], like: dict[str, Any], count: int = 8) -> list[str]:
    """A series of which some slices are there twice, the second time with another UID; ``like`` changes the second ones."""
    names = [f"{number:02d}" for number in range(count)] + [f"{number:02d}-again" for number in which]
    for name in names:
        changes = like if "again" in name else {}
        write(root / name, header([0, 0, 2.0 * int(name[:2])], SOPInstanceUID=generate_uid(), **changes))
    return names


@pytest.mark.parametrize("which", [[3], [0], [7], [2, 5], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_a_slice_exported_twice_is_left_out_and_the_volume_is_read(tmp_path: Path, which: list[int]) -> None:
    names = repeated(tmp_path, which, {})
    tasks, left = found_in(tmp_path, names)
    assert tasks == [tuple(names[:8])]
    assert left == {name: series_reader.REPEATED for name in names[8:]}
    [found] = read_series([tmp_path / name for name in tasks[0]])
    assert isinstance(found, Reading)
    assert found.pixels.shape[1] == 8


def test_a_slice_exported_twice_in_another_encoding_is_the_same(tmp_path: Path) -> None:
    names = repeated(tmp_path, [4], {})
    again = pydicom.dcmread(tmp_path / names[-1])
    again.compress(RLELossless, generate_instance_uid=False)
    again.save_as(tmp_path / names[-1])
    assert found_in(tmp_path, names) == ([tuple(names[:8])], {names[-1]: series_reader.REPEATED})


@pytest.mark.parametrize("which", [[3], [2, 5]])
def test_another_slice_at_the_same_place_is_no_repeat(tmp_path: Path, which: list[int]) -> None:
    names = repeated(tmp_path, which, {"RescaleIntercept": 7})
    tasks, left = found_in(tmp_path, names)
    assert tasks == []
    assert set(left.values()) == {series_reader.AT_ONE_PLACE}


PHASES: dict[str, Any] = {
    "trigger time": lambda place, phase: {"trigger_time": 40.0 * phase + 1.7 * place},
    "trigger time, equal": lambda place, phase: {"TriggerTime": str(40 * phase), "trigger_time": 40.0 * phase},
    "time, a phase after the other": lambda place, phase: {"time": 1000.0 * phase + place},
    "time, a place after the other": lambda place, phase: {"time": 1000.0 * place + phase},
    "b-value": lambda place, phase: {"DiffusionBValue": str((0, 500, 1000)[phase])},
    "b-value, times that tell nothing": lambda place, phase: {"DiffusionBValue": str((0, 500, 1000)[phase]), "time": 5.0},
    "echo time": lambda place, phase: {"EchoTime": str(3 + phase)},
    "temporal position": lambda place, phase: {"TemporalPositionIdentifier": str(phase)},
    "image type": lambda place, phase: {"ImageType": ("M", "P", "R")[phase]},
    "cardiac delay": lambda place, phase: {"NominalCardiacTriggerDelayTime": str(phase)},
    "times, all different, and a temporal position": lambda place, phase: {
        "time": 7.0 * place + 90 * phase,
        "AcquisitionNumber": str(phase),
    },
}


@pytest.mark.parametrize("name", PHASES)
def test_phases_are_told_apart(name: str) -> None:
    places = [(place, phase) for place in range(6) for phase in range(3)]
    slices = [one_slice([0, 0, 2.0 * place], **PHASES[name](place, phase)) for place, phase in places]
    volumes, left = series_reader.arrange(slices)
    assert left == []
    assert sorted([places[number] for number in volume] for volume in volumes) == sorted(
        [[(p, phase) for p in range(6)] for phase in range(3)]
    )


def test_two_attributes_together_tell_phases_apart() -> None:
    facts = [(place, b, kind) for place in range(5) for b in ("0", "800") for kind in ("M", "P")]
    slices = [one_slice([0, 0, 3.0 * place], DiffusionBValue=b, ImageType=kind) for place, b, kind in facts]
    volumes, left = series_reader.arrange(slices)
    assert (len(volumes), left) == (4, [])
    assert all(len({facts[number][1:] for number in volume}) == 1 and len(volume) == 5 for volume in volumes)


@pytest.mark.parametrize(
    "facts",
    [
        lambda place, visit: {},
        lambda place, visit: {"time": 10.0 * place},
        lambda place, visit: {"trigger_time": None if place == 3 else float(visit)},
        lambda place, visit: {"EchoTime": str(place)},
        lambda place, visit: {"time": float(visit)} if visit or place != 2 else {"time": 1.0},
    ],
)
def test_phases_that_nothing_tells_apart_are_refused(facts: Any) -> None:
    slices = [one_slice([0, 0, 2.0 * place], **facts(place, visit)) for place in range(6) for visit in range(2)]
    volumes, left = series_reader.arrange(slices)
    assert volumes == []
    assert {why for _, why in left} == {series_reader.AT_ONE_PLACE}


@pytest.mark.parametrize(
    ("maker", "tags"),
    [
        ("SIEMENS MR HEADER", lambda b: {0x0019100C: ("IS", str(b))}),
        ("GEMS_PARM_01", lambda b: {0x00431039: ("IS", [str(1_000_000_000 + b), "8", "0", "0"])}),
        ("Philips Imaging DD 001", lambda b: {0x20011003: ("FL", float(b))}),
        ("", lambda b: {0x00189087: ("FD", float(b))}),
    ],
)
def test_b_values_are_found_where_makers_keep_them(tmp_path: Path, maker: str, tags: Any) -> None:
    names = []
    for number in range(5):
        for b in (0, 1000):
            found = header([0, 0, 2.0 * number], Modality="MR")
            for tag, (vr, value) in tags(b).items():
                if maker:
                    found.add_new(tag >> 16 << 16 | 0x10, "LO", maker)
                found.add_new(tag, vr, value)
            names.append(f"{number}-{b}")
            write(tmp_path / names[-1], found)
    tasks, left = found_in(tmp_path, names)
    assert left == {}
    assert sorted(tasks) == [tuple(f"{number}-{b}" for number in range(5)) for b in (0, 1000)]


@pytest.mark.parametrize(
    ("facts", "step", "why"),
    [
        ({"between": 2.0}, 4.0, series_reader.THINNED),
        ({"between": 2.5}, 7.5, series_reader.THINNED),
        ({"between": -1.25}, 5.0, series_reader.THINNED),
        ({"slices": 9}, 2.0, series_reader.SHORT),
        ({"images": 20, "number": "1"}, 2.0, series_reader.SHORT),
        ({"images": 9, "slices": 8, "number": "1"}, 2.0, series_reader.SHORT),
        ({"between": 2.0, "slices": 8, "images": 8, "number": "1"}, 2.0, None),
        ({"between": 3.0}, 2.0, None),  # overlapping
        ({"between": 2.0}, 3.1, None),  # a gap between slices, as some scanners mean it
        ({"between": 0.0, "slices": 0, "images": 0}, 2.0, None),
        ({"images": 4, "slices": 3, "number": "1"}, 2.0, None),
    ],
)
def test_what_was_left_out_of_a_series_where_its_header_tells(facts: dict[str, Any], step: float, why: str | None) -> None:
    volumes, left = series_reader.arrange([one_slice([0, 0, step * number], **facts) for number in range(8)])
    assert {reason for _, reason in left} == ({why} if why else set())
    assert volumes == ([] if why else [list(range(8))])


def test_images_of_one_acquisition_may_be_in_several_series() -> None:
    facts = {"images": 12, "number": "4"}
    slices = [one_slice([0, 0, 2.0 * number], **facts) for number in range(6)]
    slices += [dataclasses.replace(one, series="1.2.4") for one in slices]
    volumes, left = series_reader.arrange(slices)
    assert (len(volumes), left) == (2, [])
    assert {why for _, why in series_reader.arrange(slices[:6])[1]} == {series_reader.SHORT}


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
