"""NIfTI volumes: the real folder, every orientation and unit, and voxels in their place after resampling."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from numpy.typing import NDArray

from pipeline.ingest.readers import nifti
from pipeline.ingest.readers.reading import Quarantined, Reading
from pipeline.ingest.standardize import Target, _sampled, standardize_volume

# Every volume of the real folder: its number of time points, and its size as (D, H, W).
MUST = {
    "MONAI_anatomical.nii": (1, (25, 41, 33)),  # big-endian
    "MONAI_anatomical_label.nii.gz": (1, (25, 41, 33)),
    "MONAI_reoriented_anat_moved.nii": (1, (22, 26, 21)),
    "MONAI_reoriented_anat_moved_label.nii.gz": (1, (22, 26, 21)),
    "nibabel_example4d.nii.gz": (2, (24, 96, 128)),  # oblique
    "nibabel_example_nifti2.nii.gz": (2, (12, 20, 32)),  # NIfTI-2
    "nibabel_functional.nii": (20, (3, 21, 17)),
    "nibabel_standard.nii.gz": (1, (7, 5, 4)),
    "nnUNet_example_ct_sm.nii.gz": (1, (30, 101, 122)),
    "nnUNet_example_ct_sm_T300_output.nii.gz": (1, (30, 101, 122)),
}
NOT_NIFTI = ("MANIFEST.csv", "PROVENANCE.txt")


def read(path: Path, **options: Any) -> list[Reading]:
    found = list(nifti.read([path], **options))
    assert all(isinstance(one, Reading) for one in found), found
    return found  # type: ignore[return-value]


def reason(path: Path) -> str:
    [found] = nifti.read([path])
    assert isinstance(found, Quarantined)
    return found.reason


def test_every_real_file_is_read_or_left_out_for_its_reason(real_data: Path) -> None:
    paths = {path.name: path for path in (real_data / "nifti_small").iterdir()}
    assert paths.keys() == {*MUST, *NOT_NIFTI}
    for name, (count, shape) in MUST.items():
        found = read(paths[name])
        assert [one.frame for one in found] == ([None] if count == 1 else list(range(count)))
        data = np.asanyarray(nibabel.load(paths[name]).dataobj)
        for number, one in enumerate(found):
            assert one.pixels.shape == (1, *shape)
            volume = data[..., number] if data.ndim == 4 else data
            np.testing.assert_array_equal(one.pixels[0], volume.transpose(2, 1, 0).astype(np.float32))
    for name in NOT_NIFTI:
        assert "not a NIfTI file" in reason(paths[name])


@pytest.mark.parametrize("name", MUST)
def test_real_voxels_lie_where_nibabel_resamples_them(real_data: Path, name: str) -> None:
    path = real_data / "nifti_small" / name
    found = read(path)[0]
    assert found.spacing is not None
    # Voxels no larger than the source's: nothing is smoothed, so both are the same linear interpolation.
    low, high = float(found.pixels.min()), float(found.pixels.max())
    finest = min(found.spacing)
    size = int(1.5 * np.linalg.norm(np.multiply(found.spacing, found.pixels.shape[1:])) / finest)
    image, spacing, affine = standardize_volume(found, low, high, Target(min(size, 160), bits=16, spacing=finest))
    assert spacing == finest
    source = nibabel.load(path)
    volume = np.asanyarray(source.dataobj).astype(np.float32)
    first = nibabel.Nifti1Image(volume[..., 0] if volume.ndim == 4 else volume, source.affine)
    expected = resample_from_to(first, (image.shape[:0:-1], affine[:, [2, 1, 0, 3]]), order=1, mode="constant", cval=np.nan)
    wanted = np.asarray(expected.dataobj).transpose(2, 1, 0)
    inside = np.isfinite(wanted)
    assert inside.mean() > 0.005
    back = low + image[0] / 65535 * (high - low)
    np.testing.assert_allclose(back[inside], wanted[inside], atol=(high - low) * 3e-4)


@pytest.mark.slow
def test_resampling_agrees_with_monai(real_data: Path) -> None:
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    [found, *_] = read(real_data / "nifti_small" / "nibabel_example4d.nii.gz")
    assert found.affine is not None
    tensor = MetaTensor(found.pixels.transpose(0, 3, 2, 1).copy(), affine=found.affine[:, [2, 1, 0, 3]])
    resample = Spacing(pixdim=(2.0, 2.0, 2.0), diagonal=True, mode="bilinear", padding_mode="border", align_corners=True)
    theirs = resample(tensor)
    wanted = np.asarray(theirs)[0].transpose(2, 1, 0)
    affine = np.asarray(theirs.affine)[:, [2, 1, 0, 3]]
    matrix = np.linalg.inv(found.affine) @ affine
    ours = _sampled(found.pixels * np.float32(40), matrix, Target(max(wanted.shape), bits=16))[0] / 40
    ours = ours[tuple(map(slice, wanted.shape))]
    inside = ours > 0  # beyond the volume MONAI repeats its border
    assert inside.mean() > 0.2
    assert np.quantile(np.abs(ours - wanted)[inside], 0.99) <= 1


def linear(path: Path, affine: NDArray[np.float64], shape: tuple[int, int, int] = (21, 18, 24), unit: str = "mm", version: int = 1) -> Path:
    """A volume whose values are ``x + 2 y + 3 z + 500`` of their place in mm."""
    scale = {"mm": 1, "meter": 1000, "micron": 0.001}[unit]
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], axis=-1)
    values = (index @ affine.T)[..., :3] @ [1, 2, 3] + 500
    stored = affine.copy()
    stored[:3] /= scale
    image = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version](values.astype(np.float32), stored)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def rotation(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    (a, b, c), eye = angles, np.eye(3)
    turns = []
    for angle, (i, j) in zip((a, b, c), ((0, 1), (0, 2), (1, 2))):
        turn = eye.copy()
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        turns.append(turn)
    return np.asarray(turns[0] @ turns[1] @ turns[2])


ORIENTATIONS = [(axes, signs) for axes in itertools.permutations(range(3)) for signs in ((1, 1, 1), (-1, 1, -1), (-1, -1, 1))]


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.1)])
def test_every_orientation_becomes_ras(tmp_path: Path, axes: Any, signs: Any, angles: Any) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (rotation(angles) @ np.eye(3)[:, axes]) * np.multiply(signs, [2.0, 2.5, 1.5])
    affine[:3, 3] = [7, -20, 31]
    [found] = read(linear(tmp_path / "a.nii.gz", affine))
    image, spacing, grid = standardize_volume(found, 0, 1000, Target(24, bits=16))
    np.testing.assert_allclose(grid[:3, :3], np.eye(3)[::-1] * spacing, atol=1e-9)
    index = np.stack([*np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), np.ones((24, 24, 24))], axis=-1)
    assert found.affine is not None
    points = (index @ (np.linalg.inv(found.affine) @ grid).T)[..., :3]
    last = np.array(found.pixels.shape[1:]) - 1
    inside = ((points >= 5) & (points <= last - 5)).all(axis=-1)
    assert inside.sum() > 100
    wanted = (index @ grid.T)[..., :3] @ [1, 2, 3] + 500
    np.testing.assert_allclose(image[0][inside] / 65.535, wanted[inside], atol=0.2)


@pytest.mark.parametrize("unit", ["mm", "meter", "micron"])
@pytest.mark.parametrize("version", [1, 2])
def test_units_and_versions_give_the_same_volume(tmp_path: Path, unit: str, version: int) -> None:
    affine = np.diag([2.0, 2.5, 1.5, 1])
    [found] = read(linear(tmp_path / "a.nii", affine, unit=unit, version=version))
    assert found.spacing == pytest.approx((1.5, 2.5, 2.0), rel=1e-6)


def test_big_endian_scaled_integers(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    values = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    image = nibabel.Nifti1Image(values.astype(">i2"), np.eye(4), header)
    image.header.set_slope_inter(0.5, -10)
    image.header["cal_min"], image.header["cal_max"] = 3, 40
    nibabel.save(image, tmp_path / "a.nii")
    raw = nibabel.load(tmp_path / "a.nii")
    assert raw.header.endianness == ">"
    [found] = read(tmp_path / "a.nii")
    np.testing.assert_allclose(found.pixels[0], values.transpose(2, 1, 0) * 0.5 - 10)
    assert (found.low, found.high) == (3, 40)


def test_colour_and_missing_values(tmp_path: Path) -> None:
    colour = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["G"][1, 2, 3] = 200
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "a.nii")
    [found] = read(tmp_path / "a.nii")
    assert found.pixels.shape == (3, 6, 5, 4)
    assert found.pixels[1, 3, 2, 1] == 200
    holes = np.ones((20, 20, 20), np.float32)
    holes[:10], holes[10:15] = np.nan, 0
    nibabel.save(nibabel.Nifti1Image(holes, np.eye(4)), tmp_path / "b.nii")
    [found] = read(tmp_path / "b.nii")
    image, _, _ = standardize_volume(found, 0, 1, Target(20))
    assert image[0, :, :, :9].max() == 0  # missing values are black
    assert image[0, :, :, 16:].min() == 255


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    def save(name: str, values: NDArray[Any], affine: Any = None) -> Path:
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), tmp_path / name)
        return tmp_path / name

    assert "single slice" in reason(save("slice.nii", np.zeros((9, 9, 1), np.int16)))
    assert "neither three" in reason(save("vector.nii", np.zeros((4, 4, 4, 1, 3), np.float32)))
    assert "complex" in reason(save("complex.nii", np.zeros((4, 4, 4), np.complex64)))
    assert "not finite" in reason(save("infinite.nii", np.full((4, 4, 4), np.inf, np.float32)))
    whole = save("whole.nii", np.zeros((9, 9, 9), np.int16)).read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:-100])
    assert "cut short" in reason(tmp_path / "cut.nii")
    (tmp_path / "head.nii").write_bytes(whole[:200])
    assert "cut short" in reason(tmp_path / "head.nii")
    (tmp_path / "text.nii").write_text("hello")
    assert reason(tmp_path / "text.nii") == "not a NIfTI volume"
    huge = bytearray(whole)
    huge[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(huge)
    assert "million voxels" in reason(tmp_path / "huge.nii")
    singular = bytearray(whole)
    singular[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    (tmp_path / "singular.nii").write_bytes(singular)
    assert "singular" in reason(tmp_path / "singular.nii")
    assert "permissions" in reason(tmp_path / "absent.nii")


def test_the_path_takes_the_place_of_a_uid(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    [found] = read(linear(tmp_path / "sub" / "a.nii", np.eye(4)), modality="ct", root=tmp_path)
    assert (found.header.sop_instance_uid, found.header.modality, found.header.patient_id) == ("sub/a.nii", "CT", "")


def volume(**changes: Any) -> nibabel.Nifti1Image:
    """A small volume in scanner space; ``changes`` set fields of its header."""
    values = np.random.default_rng(0).integers(0, 1000, (10, 11, 12)).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.diag([2.0, 2.5, 3.0, 1.0]))
    for name, value in changes.items():
        image.header[name] = value
    return image


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)
    return path


@pytest.mark.parametrize("window", [(1e5, 2e5), (-500, -100), (0, 1e6), (-1e9, 1e9), (999, 1e5), (5, 5), (9, 3), (np.nan, 100)])
def test_a_display_range_beside_the_values_is_not_used(tmp_path: Path, window: tuple[float, float]) -> None:
    [found] = read(saved(tmp_path / "a.nii", volume(cal_min=window[0], cal_max=window[1]).to_bytes()))
    assert 0 <= found.low < 50
    assert 950 < found.high <= 1000


@pytest.mark.parametrize("window", [(0, 1000), (100, 300), (-1000, 2000), (990, 1000)])
def test_a_display_range_that_shows_something_is_used(tmp_path: Path, window: tuple[float, float]) -> None:
    [found] = read(saved(tmp_path / "a.nii", volume(cal_min=window[0], cal_max=window[1]).to_bytes()))
    assert (found.low, found.high) == window


def spoiled(data: bytes, place: int, change: int = 0x20) -> bytes:
    return data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]


@pytest.mark.parametrize("place", [-1, -5, -8, 0.3, 0.5, 0.9])
def test_compressed_files_with_a_flipped_bit_are_damaged(tmp_path: Path, place: float) -> None:
    data = gzip.compress(volume().to_bytes())
    at = int(place) % len(data) if place < 0 else int(place * len(data))
    (tmp_path / "a.nii.gz").write_bytes(spoiled(data, at))
    assert reason(tmp_path / "a.nii.gz").startswith(("damaged", "its length does not fit"))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_cut_files_are_said_to_be(tmp_path: Path, name: str, keep: float) -> None:
    data = saved(tmp_path / name, volume().to_bytes()).read_bytes()
    (tmp_path / name).write_bytes(data[: int(keep * len(data))])
    assert "cut short" in reason(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("offset", [0.0, 348.0, 351.0, 352.5, 336.0, 368.0, 1e9, -16.0, np.nan])
def test_a_wrong_vox_offset_is_told(tmp_path: Path, name: str, offset: float) -> None:
    data = bytearray(volume().to_bytes())
    data[108:112] = np.float32(offset).tobytes()
    found = reason(saved(tmp_path / name, bytes(data)))
    assert "vox_offset" in found
    assert "permissions" not in found


def test_what_lies_between_header_and_voxels_is_passed_over(tmp_path: Path) -> None:
    image = volume()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"made by a test"))
    [found] = read(saved(tmp_path / "a.nii", image.to_bytes()))
    np.testing.assert_array_equal(found.pixels[0], np.asarray(image.dataobj).transpose(2, 1, 0))
    data = bytearray(image.to_bytes())
    data[108:112] = np.float32(352).tobytes()  # as if there were no extension
    assert "vox_offset" in reason(saved(tmp_path / "b.nii", bytes(data)))


def test_more_bytes_than_voxels_are_told(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        assert "length" in reason(saved(tmp_path / name, volume().to_bytes() + bytes(64)))


def oriented(first: Any = None, codes: tuple[int, int] = (0, 0), second: Any = None) -> bytes:
    image = volume()
    image.set_sform(np.diag([2.0, 2.5, 3.0, 1.0]) if first is None else first, codes[0])
    image.set_qform(np.diag([2.0, 2.5, 3.0, 1.0]) if second is None else second, codes[1])
    return bytes(image.to_bytes())


TURNED = np.array([[0, -2.5, 0, 0], [2.0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
MIRRORED = np.diag([-2.0, 2.5, 3.0, 1.0])
MOVED = np.array([[2.0, 0, 0, 30], [0, 2.5, 0, -4], [0, 0, 3, 9], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (oriented(codes=(0, 0)), "neither sform nor qform"),
        (oriented(codes=(0, 1)), None),
        (oriented(codes=(1, 0)), None),
        (oriented(codes=(1, 1)), None),
        (oriented(MOVED, (1, 1)), None),  # another origin: the volume is centred anyway
        (oriented(MIRRORED, (1, 1)), "contradict"),
        (oriented(MIRRORED, (4, 1)), "contradict"),  # no alignment to a template mirrors
        (oriented(TURNED, (1, 1)), "contradict"),
        (oriented(TURNED, (2, 1)), None),  # an alignment may turn
        (oriented(np.diag([1.0, 1.0, 1.0, 1.0]), (1, 1)), "contradict"),
        (oriented(np.diag([1.9, 2.4, 2.8, 1.0]), (4, 1)), None),  # and stretch
        (oriented(second=MIRRORED, codes=(2, 2)), "contradict"),
    ],
)
def test_an_orientation_is_needed_and_two_must_agree(tmp_path: Path, data: bytes, expected: str | None) -> None:
    path = saved(tmp_path / "a.nii", data)
    if expected:
        assert expected in reason(path)
    else:
        assert read(path)[0].affine is not None


def sized(sizes: list[float], codes: tuple[int, int]) -> bytes:
    data = bytearray(oriented(codes=codes))
    data[80:92] = np.array(sizes, "<f4").tobytes()  # pixdim[1] to [3]
    return bytes(data)


@pytest.mark.parametrize("sizes", [[0, 0, 0], [2, 2.5, 0], [0, 2.5, 3], [2, np.nan, 3], [2, 2.5, -3]])
def test_a_qform_without_the_size_of_its_voxels_says_nothing(tmp_path: Path, sizes: list[float]) -> None:
    assert "size of its voxels" in reason(saved(tmp_path / "a.nii", sized(sizes, (0, 1))))
    for codes in ((1, 0), (1, 1), (4, 1)):  # the sform knows them by itself
        [found] = read(saved(tmp_path / "b.nii", sized(sizes, codes)))
        assert found.spacing == (3, 2.5, 2)


@pytest.mark.parametrize("name", ["a.NII", "a.Nii", "a.NII.GZ", "a.nii.GZ"])
def test_endings_in_capitals_are_read(tmp_path: Path, name: str) -> None:
    [found] = read(saved(tmp_path / name, volume().to_bytes()))
    assert found.pixels.shape == (1, 12, 11, 10)


def test_the_content_tells_whether_it_is_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(gzip.compress(volume().to_bytes()))
    (tmp_path / "b.nii.gz").write_bytes(volume().to_bytes())
    for name in ("a.nii", "b.nii.gz"):
        assert len(read(tmp_path / name)) == 1


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (1, 20, 30), (20, 1, 30), (20, 30, 1, 4)])
def test_files_of_one_slice_are_told(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4))
    assert "a single slice" in reason(saved(tmp_path / "a.nii", image.to_bytes()))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("names", [("a.hdr", "a.img"), ("A.HDR", "A.IMG"), ("a.hdr.gz", "a.img.gz"), ("a.hdr", "a.img.gz")])
def test_pairs_are_one_volume(tmp_path: Path, names: tuple[str, str], version: int) -> None:
    kind = {1: nibabel.Nifti1Pair, 2: nibabel.Nifti2Pair}[version]
    source = volume()
    image = kind(np.asarray(source.dataobj), source.affine)
    nibabel.save(image, tmp_path / "plain.img")
    paths = [saved(tmp_path / name, (tmp_path / f"plain.{kind}").read_bytes()) for name, kind in zip(names, ("hdr", "img"))]
    found = list(nifti.read(paths))
    assert isinstance(found[0], Reading), found
    np.testing.assert_array_equal(found[0].pixels[0], np.asarray(source.dataobj).transpose(2, 1, 0))
    assert nifti.paired(["b.nii", *names, "c.hdr", "d.img"]) == [("b.nii",), names, ("c.hdr",), ("d.img",)]


def test_half_a_pair_and_an_old_header_say_what_is_missing(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.img")
    for name in ("a.hdr", "a.img"):
        assert "one file of a pair" in reason(tmp_path / name)
    header = bytearray((tmp_path / "a.hdr").read_bytes())
    header[344:348] = bytes(4)  # as Analyze 7.5, which has no magic
    (tmp_path / "a.hdr").write_bytes(header)
    [found] = nifti.read([tmp_path / "a.hdr", tmp_path / "a.img"])
    assert isinstance(found, Quarantined)
    assert "Analyze" in found.reason
    data = bytearray(volume().to_bytes())
    data[344:348] = b"ni1\0"
    assert "another file" in reason(saved(tmp_path / "b.nii", bytes(data)))


@pytest.mark.parametrize("name", ["a.dscalar.nii", "a.dtseries.nii", "a.DLABEL.nii", "a.dconn.nii.gz", "a.ptseries.nii", "a.pscalar.nii"])
def test_cifti_is_no_image(tmp_path: Path, name: str) -> None:
    assert "CIFTI" in reason(saved(tmp_path / name, volume().to_bytes()))
    assert "CIFTI" in reason(saved(tmp_path / "b.nii", volume(intent_code=3006).to_bytes()))


def test_parse_errors_are_not_a_matter_of_permissions(tmp_path: Path) -> None:
    for place in (40, 70, 72, 76, 252, 254, 280, 344):
        path = saved(tmp_path / "a.nii", volume().to_bytes()[:place] + b"\xff\x7f" * 4 + volume().to_bytes()[place + 8 :])
        [found] = nifti.read([path]) if not isinstance(next(iter(nifti.read([path]))), Reading) else [Quarantined("")]
        assert isinstance(found, Quarantined)
        assert "permissions" not in found.reason
