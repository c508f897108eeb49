"""Stored bits, padding, windows and the reasons of pixels that cannot be used: what real archives hold beside the ordinary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_folder import dataset, ramp, write
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from scipy.ndimage import gaussian_filter

from pipeline.ingest.readers import dicom
from pipeline.ingest.readers.decode import meant
from pipeline.ingest.readers.header import PixelFormat
from pipeline.ingest.readers.reading import Quarantined, Reading


def read(path: Path) -> Reading:
    [found] = dicom.read(path)
    assert isinstance(found, Reading), found
    return found


def reason(path: Path) -> str:
    [found] = dicom.read(path)
    assert isinstance(found, Quarantined), found
    return found.reason


def stored_in(path: Path, stored: NDArray[Any], syntax: UID, **attributes: Any) -> Path:
    """All 16 bits of the values, whatever Bits Stored says, in a transfer syntax."""
    found = dataset(ramp(), **attributes)
    if not syntax.is_encapsulated:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        found.file_meta.TransferSyntaxUID = syntax
        found.PixelData = stored.astype(f"{order}{stored.dtype.kind}2").tobytes()
        return write(path, found)
    whole = dataset(ramp(), BitsStored=16, HighBit=15, PixelRepresentation=attributes.get("PixelRepresentation", 0))
    whole.PixelData = stored.astype(f"<{stored.dtype.kind}2").tobytes()
    whole.compress(syntax, generate_instance_uid=False)
    found.file_meta.TransferSyntaxUID = syntax
    found.PixelData = whole.PixelData
    found["PixelData"].is_undefined_length = True
    found["PixelData"].VR = "OB"
    return write(path, found)


SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("plane", [0x1000, 0x8000, 0xF000])
def test_overlays_above_the_stored_bits_are_masked_after_every_decoder(tmp_path: Path, syntax: UID, plane: int) -> None:
    drawn = ramp()
    drawn[4:20, 8:12] |= plane
    np.testing.assert_array_equal(read(stored_in(tmp_path / "a", drawn, syntax)).pixels[0], ramp())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_overlays_above_signed_values_are_masked_too(tmp_path: Path, syntax: UID) -> None:
    values = ramp().astype(np.int16) - 2048
    drawn = values.copy()
    drawn[:8] ^= 0x4000
    np.testing.assert_array_equal(read(stored_in(tmp_path / "a", drawn, syntax, PixelRepresentation=1)).pixels[0], values)


@pytest.mark.parametrize("frames", [2, 3])
def test_overlays_in_every_frame_are_masked(tmp_path: Path, frames: int) -> None:
    drawn = np.stack([ramp() | 0x2000] * frames).astype("<u2")
    found = list(dicom.read(write(tmp_path / "a", dataset(ramp(), NumberOfFrames=frames, PixelData=drawn.tobytes()))))
    for one in found:
        assert isinstance(one, Reading)
        np.testing.assert_array_equal(one.pixels[0], ramp())


SMOOTH = (gaussian_filter(np.random.default_rng(0).normal(size=(32, 32)), 3) * 8000 + 2000).clip(0, 4095).astype(np.uint16)
NOISE = np.random.default_rng(0).integers(0, 4096, (32, 32)).astype(np.uint16)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("values", "bits"), [(ramp(), 10), (SMOOTH, 9), (SMOOTH, 10), (SMOOTH, 11), (NOISE, 10)])
def test_values_that_need_more_than_the_stored_bits_are_told(tmp_path: Path, values: NDArray[Any], bits: int, syntax: UID) -> None:
    said = reason(stored_in(tmp_path / "a", values, syntax, BitsStored=bits, HighBit=bits - 1))
    assert f"beyond its Bits Stored ({bits})" in said


@pytest.mark.parametrize("frames", [1, 2])
def test_signed_values_and_colours_that_need_more_bits_are_told(tmp_path: Path, frames: int) -> None:
    values = np.stack([SMOOTH.astype(np.int16) - 2048] * frames)
    attributes = {"BitsStored": 10, "HighBit": 9, "PixelRepresentation": 1, "NumberOfFrames": frames}
    [found] = dicom.read(stored_in(tmp_path / "a", values, ExplicitVRLittleEndian, **attributes))
    assert isinstance(found, Quarantined)
    assert "Bits Stored" in found.reason
    colour = {"BitsStored": 10, "HighBit": 9, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    path = stored_in(tmp_path / "b", np.repeat(SMOOTH[..., None], 3, axis=2), ExplicitVRLittleEndian, **colour)
    assert "Bits Stored" in reason(path)


def test_declared_overlays_are_masked_whatever_they_draw(tmp_path: Path) -> None:
    drawn = (SMOOTH >> 2) | (NOISE & 1) << 10 | (NOISE & 2) << 13
    attributes = {"BitsStored": 10, "HighBit": 9}
    assert "Bits Stored" in reason(stored_in(tmp_path / "a", drawn, ExplicitVRLittleEndian, **attributes))
    header = dataset(drawn, **attributes)
    for number, place in enumerate((10, 14)):
        header.add_new(0x60000100 + (number << 17), "US", 16)
        header.add_new(0x60000102 + (number << 17), "US", place)
    np.testing.assert_array_equal(read(write(tmp_path / "b", header)).pixels[0], SMOOTH >> 2)


@pytest.mark.parametrize("signed", [False, True])
def test_padding_beyond_the_stored_bits_is_padding_and_wraps_to_no_value(tmp_path: Path, signed: bool) -> None:
    stored = SMOOTH.astype(np.int64) - 2048 * signed
    stored[:, :9] = -2000 if not signed else -20_000
    header = dataset(stored.astype(np.int16).view(np.uint16), PixelRepresentation=int(signed))
    header.add_new("PixelPaddingValue", "SS" if signed else "US", -20_000 if signed else (1 << 16) - 2000)
    found = read(write(tmp_path / "a", header)).pixels[0]
    assert np.isnan(found[:, :9]).all()
    np.testing.assert_array_equal(found[:, 9:], stored[:, 9:])


def test_what_lossy_coding_adds_beyond_the_range_is_its_end(tmp_path: Path) -> None:
    values = np.where(ramp(64, 64, 9) > 4, 1023, 100) + np.random.default_rng(0).integers(-60, 60, (64, 64))
    attributes = {"BitsStored": 10, "HighBit": 9, "LossyImageCompression": "01"}
    found = read(write(tmp_path / "a", dataset(values.astype(np.uint16), **attributes)))
    np.testing.assert_array_equal(found.pixels[0], values.clip(0, 1023))
    attributes["LossyImageCompression"] = "00"
    assert "Bits Stored" in reason(write(tmp_path / "b", dataset(values.astype(np.uint16), **attributes)))


# How the values lie in 16 bits: as they are meant, with other bits around them.
HIGH: dict[str, tuple[NDArray[Any], NDArray[Any], dict[str, Any]]] = {
    "at the low end": (ramp(top=900), ramp(top=900), {}),
    "at the low end, all bits used": (ramp(), ramp(), {}),
    "shifted": (ramp() << 4, ramp(), {}),
    "shifted, with bits below": (ramp() << 4 | 5, ramp(), {}),
    "shifted, few greys": (ramp(top=7) << 4, ramp(top=7), {}),
    "high bit 13": (ramp() << 2, ramp(), {"HighBit": 13}),
    "signed at the low end": (ramp().astype(np.int16) - 2048, ramp().astype(np.int16) - 2048, {"PixelRepresentation": 1}),
    "signed, not extended": ((ramp().astype(np.int16) - 2048) & 0xFFF, ramp().astype(np.int16) - 2048, {"PixelRepresentation": 1}),
    "signed and shifted": ((ramp().astype(np.int16) - 2048) << 4, ramp().astype(np.int16) - 2048, {"PixelRepresentation": 1}),
    "flat": (np.full((32, 32), 3, np.uint16), np.full((32, 32), 3, np.uint16), {}),
}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("name", HIGH)
def test_a_high_bit_is_believed_where_the_values_ask_for_it(tmp_path: Path, name: str, syntax: UID) -> None:
    stored, values, attributes = HIGH[name]
    found = read(stored_in(tmp_path / "a", stored, syntax, **({"HighBit": 15} | attributes)))
    np.testing.assert_array_equal(found.pixels[0], values)


def test_values_without_bits_around_them_stay_as_they_are() -> None:
    values = np.array([[0, 4095]], np.uint16)
    assert meant(values, PixelFormat(stored=12, high=11)) is values
    assert meant(values.astype(np.float32), PixelFormat(stored=12, high=11)).dtype == np.float32
    np.testing.assert_array_equal(meant(np.array([[0, 1]], np.uint8), PixelFormat(stored=1, high=0)), [[0, 1]])
    np.testing.assert_array_equal(meant(np.array([[300]], np.uint16), PixelFormat(stored=8, high=3)), [[300 - 256]])


def disc(side: int = 128, radius: float = 0.48) -> NDArray[np.bool_]:
    at = (np.arange(side) - (side - 1) / 2) / side
    return np.hypot(*np.meshgrid(at, at)) < radius


def circle(nothing: int, blur: float = 0.0, side: int = 128) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A CT slice in HU, air with tissue in it and ``nothing`` around its circle, and where the circle is; as ``blur`` leaves it."""
    rng = np.random.default_rng(0)
    values = np.where(disc(side, 0.3), 40.0, -1000.0) + rng.normal(0, 10, (side, side))
    values = np.where(disc(side), values, nothing)
    if blur:
        values = gaussian_filter(values, blur) + rng.normal(0, 8, values.shape)
    return np.rint(values).clip(-32768, 32767), disc(side)


def slice_of(values: NDArray[Any], **attributes: Any) -> Dataset:
    facts = {"Modality": "CT", "SOPClassUID": CTImageStorage, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1}
    facts |= {"RescaleSlope": 1, "RescaleIntercept": 0, "PixelData": values.astype("<i2").tobytes(), **attributes}
    return dataset(ramp(*values.shape), **{name: value for name, value in facts.items() if value is not None})


@pytest.mark.parametrize("nothing", [-3024, -2000, -1500, -10000, -32768])
@pytest.mark.parametrize("blur", [0.0, 0.8])
@pytest.mark.parametrize("tag", [None, -2000])
def test_what_lies_around_a_ct_circle_is_no_value(tmp_path: Path, nothing: int, blur: float, tag: int | None) -> None:
    values, inside = circle(nothing, blur)
    attributes = {} if tag is None else {"PixelPaddingValue": tag}
    found = read(write(tmp_path / "a", slice_of(values, LossyImageCompression="01" if blur else "00", **attributes)))
    outside = ~disc(radius=0.5)
    assert np.isnan(found.pixels[0][outside]).all()
    assert np.isfinite(found.pixels[0][disc(radius=0.29)]).all()
    assert found.low >= -1030
    assert found.high > 30
    assert np.isfinite(found.pixels[0][inside]).mean() > (0.6 if blur else 0.95)


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "MR"},
        {"Modality": "PT"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"RescaleType": "US"},
        {"RescaleSlope": None, "RescaleIntercept": None},
    ],
)
def test_low_values_are_values_where_they_are_no_hounsfield_units(tmp_path: Path, attributes: dict[str, Any]) -> None:
    values, _ = circle(-3024)
    found = read(write(tmp_path / "a", slice_of(values, **attributes)))
    np.testing.assert_array_equal(found.pixels[0], values)


def test_low_values_within_a_slice_are_values(tmp_path: Path) -> None:
    values, _ = circle(-1000)
    values[60:64, 60:64] = -3024  # a dead detector, metal
    found = read(write(tmp_path / "a", slice_of(values)))
    np.testing.assert_array_equal(found.pixels[0], values)


@pytest.mark.parametrize(("padding", "other"), [(0, 1000), (4000, 1000), (0, 3), (63, 2000), (4095, 500)])
def test_declared_padding_that_coding_moved_is_no_value(tmp_path: Path, padding: int, other: int) -> None:
    rng = np.random.default_rng(1)
    values = np.where(
        np.arange(64) < 24, padding + rng.integers(-2, 3, (64, 64)), np.linspace(1000, 3000, 64) + rng.integers(0, 9, (64, 64))
    )
    stored = np.clip(values, 0, 4095).astype(np.uint16)
    facts = {"PixelPaddingValue": padding, "LossyImageCompression": "01"}
    found = read(write(tmp_path / "a", dataset(stored, **facts)))
    assert np.isnan(found.pixels[0, :, :24]).all()
    assert np.isfinite(found.pixels[0, :, 26:]).all()
    exact = read(write(tmp_path / "b", dataset(stored, PixelPaddingValue=padding)))
    assert np.isnan(exact.pixels[0]).sum() == (stored == padding).sum()


@pytest.mark.parametrize(("centre", "width"), [(-5000, 100), (50_000, 100), (500_000, 1_000_000), (2e6, 4e6), (0, 1e9), (-3000, 400)])
def test_a_window_that_leaves_no_contrast_is_not_used(tmp_path: Path, centre: float, width: float) -> None:
    found = read(write(tmp_path / "a", dataset(ramp(), WindowCenter=centre, WindowWidth=width)))
    assert 0 <= found.low < 50
    assert 4095 >= found.high > 4045


@pytest.mark.parametrize(("centre", "width"), [(2048, 4096), (100, 100), (30_000, 60_000), (4000, 100)])
def test_a_window_that_shows_something_is_used(tmp_path: Path, centre: float, width: float) -> None:
    found = read(write(tmp_path / "a", dataset(ramp(), WindowCenter=centre, WindowWidth=width)))
    assert (found.low, found.high) == (centre - width / 2, centre + width / 2 - 1)


@pytest.mark.parametrize(("slope", "intercept"), [("0", "0"), ("0", "-1024"), ("1e-12", "1000"), ("-0.0", "7")])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 40, "WindowWidth": 400}])
def test_a_rescale_that_leaves_one_value_is_told(tmp_path: Path, slope: str, intercept: str, window: dict[str, int]) -> None:
    attributes = {"RescaleSlope": slope, "RescaleIntercept": intercept, **window}
    assert "every stored value the same" in reason(write(tmp_path / "a", dataset(ramp(), **attributes)))
    empty = read(write(tmp_path / "b", dataset(np.zeros((32, 32), np.uint16), **attributes)))  # a PET slice without counts
    assert np.ptp(empty.pixels) == 0


def test_a_modality_table_of_one_value_is_told(tmp_path: Path) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 12])
    item.add_new("LUTData", "US", [9] * 4096)
    assert "every stored value the same" in reason(write(tmp_path / "a", dataset(ramp(), ModalityLUTSequence=[item])))


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_a_damaged_rescale_is_told_and_not_passed_over(tmp_path: Path, keyword: str) -> None:
    path = write(tmp_path / "a", dataset(ramp(), **({"RescaleSlope": "1", "RescaleIntercept": "0"} | {keyword: "7777"})))
    path.write_bytes(path.read_bytes().replace(b"7777", b"7 HU"))
    assert "rescale" in reason(path)
    assert "7 HU" not in reason(path)


def photograph() -> NDArray[np.uint8]:
    return (gaussian_filter(np.random.default_rng(0).normal(size=(64, 64)), 3) * 400 + 128).clip(0, 255).astype(np.uint8)


def jpeg(grey: NDArray[np.uint8], keep: int | None = None) -> Dataset:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG")
    found = dataset(ramp(64, 64), BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=encapsulate([stream.getvalue()[:keep]]))
    found.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    found["PixelData"].is_undefined_length = True
    return found


def packed(syntax: UID, less: int = 0) -> Dataset:
    found = dataset(ramp())
    found.compress(syntax, generate_instance_uid=False)
    [image] = generate_frames(found.PixelData, number_of_frames=1)
    found.PixelData = encapsulate([image[: len(image) - less]])
    found["PixelData"].is_undefined_length = True
    return found


CUT: dict[str, Any] = {
    "stream of a JPEG": lambda: (jpeg(photograph(), 700), 0),
    "stream of a JPEG 2000": lambda: (packed(JPEG2000Lossless, 200), 0),
    "frames that are not there": lambda: (dataset(ramp(), NumberOfFrames=3), 0),
    "too few values": lambda: (dataset(ramp(), PixelData=ramp().tobytes()[:-100]), 0),
    "file, native": lambda: (dataset(ramp()), 900),
    "file, by one byte": lambda: (dataset(ramp()), 1),
    "file, RLE": lambda: (packed(RLELossless), 300),
    "file, JPEG 2000, its last delimiter": lambda: (packed(JPEG2000Lossless), 8),
    "file, deflated": lambda: (dataset(ramp()), -300),
    "file, in its header": lambda: (dataset(ramp(), SeriesDescription="x" * 60), 2105),
}


@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_short_is_said_to_be(tmp_path: Path, name: str) -> None:
    found, less = CUT[name]()
    if less < 0:
        found.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = write(tmp_path / "a", found)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - abs(less)])
    assert "cut short" in reason(path)
    assert "permissions" not in reason(path)


def test_only_what_cannot_be_opened_is_a_matter_of_permissions(tmp_path: Path) -> None:
    assert "permissions" in reason(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    assert "permissions" in reason(tmp_path / "folder")
    wrong = packed(JPEG2000Lossless)
    wrong.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(200) + b"\xff\xd9"])
    wrong["PixelData"].is_undefined_length = True
    broken = reason(write(tmp_path / "a", wrong))
    assert "permissions" not in broken
    assert "cut short" not in broken
    assert "damaged" in broken


@pytest.mark.parametrize("declared", [None, 0, 1])
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_frames_that_are_not_declared_are_no_channels(tmp_path: Path, frames: int, declared: int | None) -> None:
    found = dataset(ramp(), PixelData=np.concatenate([ramp()] * frames).astype("<u2").tobytes())
    if declared is not None:
        found.NumberOfFrames = declared
    assert "more frames than its Number of Frames" in reason(write(tmp_path / "a", found))


def test_a_frame_without_its_functional_group_has_no_unit(tmp_path: Path) -> None:
    found = dataset(ramp(), NumberOfFrames=3, PixelData=np.concatenate([ramp()] * 3).astype("<u2").tobytes())
    found.PerFrameFunctionalGroupsSequence = []
    for slope in (1, 2):
        groups, values = Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept = slope, 0
        groups.PixelValueTransformationSequence = [values]
        found.PerFrameFunctionalGroupsSequence.append(groups)
    first, second, third = dicom.read(write(tmp_path / "a", found))
    assert isinstance(first, Reading)
    assert isinstance(second, Reading)
    assert second.pixels.max() == 2 * first.pixels.max()
    assert isinstance(third, Quarantined)
    assert "functional groups" in third.reason


@pytest.mark.parametrize("keyword", ["BitsStored", "PixelRepresentation", "PhotometricInterpretation"])
def test_an_attribute_that_pixels_need_is_named(tmp_path: Path, keyword: str) -> None:
    said = reason(write(tmp_path / "a", dataset(ramp(), **{keyword: None})))
    assert keyword in said.replace(" ", "")
    assert "damaged" not in said
