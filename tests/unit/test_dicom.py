"""Reading DICOM: display values by the standard's formulas, stored values of every width, a reason for every file left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dicom_folder
import numpy as np
import pydicom
import pytest
from dicom_folder import dataset, ramp, write
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from pipeline.ingest.readers import decode, dicom
from pipeline.ingest.readers.attributes import parsed
from pipeline.ingest.readers.reading import Quarantined, Reading
from pipeline.ingest.standardize import Target, standardize


def read(path: Path) -> Reading | Quarantined:
    """The only image of a file."""
    [found] = dicom.read(path)
    return found


def displayed(found: Reading | Quarantined) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert isinstance(found, Reading), found
    return np.clip((found.pixels.astype(np.float64)[0] - found.low) / (found.high - found.low), 0, 1)


def reason(path: Path) -> str:
    found = read(path)
    assert isinstance(found, Quarantined)
    return found.reason


def test_linear_window_follows_the_formula_of_the_standard(tmp_path: Path) -> None:
    pixels, c, w = ramp(), 1000.0, 601.0
    path = write(tmp_path / "a", dataset(pixels, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=c, WindowWidth=w))
    x = pixels * 2.0 - 1024
    expected = np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1 with y from 0 to 1
    np.testing.assert_allclose(displayed(read(path)), expected, atol=1e-6)


def test_linear_exact_and_sigmoid_windows(tmp_path: Path) -> None:
    pixels, c, w = ramp(), 2000.0, 1000.0
    window = {"WindowCenter": c, "WindowWidth": w}
    exact = write(tmp_path / "exact", dataset(pixels, VOILUTFunction="LINEAR_EXACT", **window))
    np.testing.assert_allclose(displayed(read(exact)), np.clip((pixels - c) / w + 0.5, 0, 1), atol=1e-6)
    found = read(write(tmp_path / "sigmoid", dataset(pixels, VOILUTFunction="SIGMOID", **window)))
    np.testing.assert_allclose(displayed(found), 1 / (1 + np.exp(-4 * (pixels - c) / w)), atol=1e-6)
    assert isinstance(found, Reading)
    assert not found.linear


def test_the_first_of_several_windows_counts_and_a_senseless_one_does_not(tmp_path: Path) -> None:
    several = read(write(tmp_path / "a", dataset(ramp(), WindowCenter=[1000, 5], WindowWidth=[201, 5])))
    assert isinstance(several, Reading)
    assert (several.low, several.high) == (899.5, 1099.5)
    for centre, width in ((1000, 0), (-5000, 100)):
        senseless = read(write(tmp_path / "b", dataset(ramp(), WindowCenter=centre, WindowWidth=width)))
        assert isinstance(senseless, Reading)
        assert 0 <= senseless.low < 50
        assert 4095 >= senseless.high > 4045


def test_without_a_window_the_range_is_the_images_own_without_padding(tmp_path: Path) -> None:
    pixels = (ramp() // 4 + 1000).astype(np.uint16)
    pixels[:4] = 0
    found = read(write(tmp_path / "a", dataset(pixels, PixelPaddingValue=0)))
    assert isinstance(found, Reading)
    assert found.low >= 1000


@pytest.mark.parametrize("attributes", [{"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}])
def test_inverted_presentations_are_shown_upright(tmp_path: Path, attributes: dict[str, str]) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    upright = displayed(read(write(tmp_path / "a", dataset(ramp(), **window))))
    both = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    for extra in (attributes, both):
        np.testing.assert_allclose(displayed(read(write(tmp_path / "b", dataset(ramp(), **window, **extra)))), 1 - upright, atol=1e-6)


def test_voi_lut_is_applied(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.add_new("LUTData", "US", [int(value) for value in (np.arange(4096) / 4095) ** 2 * 4095])
    found = read(write(tmp_path / "a", dataset(ramp(), VOILUTSequence=[table], RescaleSlope=1, RescaleIntercept=0)))
    np.testing.assert_allclose(displayed(found), (ramp() / 4095.0) ** 2, atol=1e-3)


def test_spacing_and_aspect(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a", dataset(ramp(), ImagerPixelSpacing=[0.3, 0.15])))
    assert isinstance(found, Reading)
    assert found.spacing == (0.3, 0.15)
    assert found.aspect == pytest.approx(2)
    ratio = read(write(tmp_path / "b", dataset(ramp(), PixelAspectRatio=[1, 2])))
    assert isinstance(ratio, Reading)
    assert (ratio.spacing, ratio.aspect) == (None, 0.5)


def test_colour_stays_colour_and_becomes_luminance_where_grey_is_wanted(tmp_path: Path) -> None:
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[:16, :, 0], colour[16:, :, 1] = 200, 100
    header = dataset(ramp(), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, Modality="US")
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelData = 8, 8, 7, colour.tobytes()
    found = read(write(tmp_path / "a", header))
    assert isinstance(found, Reading)
    np.testing.assert_array_equal(found.pixels, colour.transpose(2, 0, 1))
    assert (found.low, found.high) == (0, 255)
    grey, _ = standardize(found.pixels, 0, 255, Target(32))
    assert (grey[0, 0, 0], grey[0, -1, 0]) == (60, 59)  # 0.299 x 200 and 0.587 x 100
    three, _ = standardize(found.pixels, 0, 255, Target(32, channels=3))
    np.testing.assert_array_equal(three, colour.transpose(2, 0, 1))


def test_a_palette_becomes_rgb(tmp_path: Path) -> None:
    header = dataset(ramp(top=9), PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8, HighBit=7)
    header.PixelData = ramp(top=9).astype(np.uint8).tobytes()
    tables = {"Red": [0, 10, 20, 30], "Green": [3, 2, 1, 0], "Blue": [0, 0, 65535, 7]}
    for name, table in tables.items():
        header.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [4, 2, 16])
        header.add_new(f"{name}PaletteColorLookupTableData", "OW", np.array(table, "<u2").tobytes())
    found = read(write(tmp_path / "a", header))
    assert isinstance(found, Reading)
    entry = np.clip(ramp(top=9).astype(int) - 2, 0, 3)  # values below and above the table get its ends (C.7.6.3.1.5)
    np.testing.assert_array_equal(found.pixels, np.stack([np.array(tables[name])[entry] for name in tables]))
    assert (found.high, found.linear) == (65535, False)


@pytest.mark.parametrize(("said", "top"), [(16, 255), (8, 255), (16, 65535)])
def test_a_palette_of_8_bits_is_as_bright_whatever_its_descriptor_says(tmp_path: Path, said: int, top: int) -> None:
    header = dataset(ramp(top=255), PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8, HighBit=7)
    header.PixelData = ramp(top=255).astype(np.uint8).tobytes()
    for name, brightest in (("Red", top), ("Green", 40), ("Blue", 0)):  # a colour may be dark by itself
        header.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, said])
        header.add_new(f"{name}PaletteColorLookupTableData", "OW", np.linspace(0, brightest, 256).astype("<u2").tobytes())
    found = read(write(tmp_path / "a", header))
    assert isinstance(found, Reading)
    assert (found.low, found.high) == (0, top)
    assert found.pixels.max(axis=(1, 2)).tolist() == [top, 40, 0]


@pytest.mark.parametrize(("said", "filled"), [(16, 12), (16, 8), (12, 10), (12, 12), (16, 15), (8, 3)])
def test_a_voi_lut_is_as_bright_whatever_its_descriptor_says(tmp_path: Path, said: int, filled: int) -> None:
    table, top = Dataset(), (1 << filled) - 1
    table.LUTDescriptor = [4096, 0, said]
    table.add_new("LUTData", "US", [int(value) for value in np.arange(4096) / 4095 * top])
    found = displayed(read(write(tmp_path / "a", dataset(ramp(), VOILUTSequence=[table]))))
    assert found.max() == {15: top / 65535, 3: top / 255}.get(filled, 1)  # 15 of 16 are half of white, and 8 bits the least there are


@pytest.mark.parametrize("said", ["HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "cmyk"])
@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_colours_that_nothing_converts_are_refused_by_name(tmp_path: Path, said: str, samples: int, syntax: UID) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (32, 32, samples), dtype=np.uint8)
    header = dataset(ramp(), SamplesPerPixel=samples, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelData = 8, 8, 7, colour.tobytes()
    if syntax == RLELossless and samples == 3:
        header.compress(syntax, generate_instance_uid=False)
    with disable_value_validation():
        header.PhotometricInterpretation = said
        assert f"Photometric Interpretation is {said.upper()}," in reason(write(tmp_path / "a", header))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PhotometricInterpretation": "MRN-4711"}, "none that DICOM knows"),
        ({"PhotometricInterpretation": "RGB"}, "(RGB) contradicts its Samples per Pixel (1)"),
        ({"SamplesPerPixel": 3, "PlanarConfiguration": 0, "Rows": 8}, "(MONOCHROME2) contradicts its Samples per Pixel (3)"),
        ({"PhotometricInterpretation": "YBR_RCT", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "Rows": 8}, "JPEG 2000 alone"),
    ],
)
def test_pixels_that_cannot_be_what_the_header_says_are_told(tmp_path: Path, attributes: dict[str, Any], expected: str) -> None:
    said = reason(write(tmp_path / "a", dataset(ramp(), **attributes)))
    assert expected in said
    assert "4711" not in said


@pytest.mark.parametrize("said", ["monochrome2", "Monochrome1", "palette color"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_a_photometric_interpretation_in_small_letters_is_understood(tmp_path: Path, said: str, syntax: UID) -> None:
    def header(name: str) -> Dataset:
        made = dataset(ramp(), WindowCenter=2048, WindowWidth=4096, PhotometricInterpretation=name.upper())
        for colour in ("Red", "Green", "Blue") if name.upper() == "PALETTE COLOR" else ():
            made.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4096, 0, 16])
            made.add_new(f"{colour}PaletteColorLookupTableData", "OW", (ramp(64, 64) * 16).astype("<u2").tobytes())
        if syntax == RLELossless:
            made.compress(syntax, generate_instance_uid=False)
        elif syntax == ExplicitVRBigEndian:
            made.file_meta.TransferSyntaxUID, made.PixelData = syntax, ramp().astype(">u2").tobytes()
        made.PhotometricInterpretation = name
        return made

    with disable_value_validation():
        small, capitals = (displayed(read(write(tmp_path / "a", header(name)))) for name in (said, said.upper()))
    np.testing.assert_array_equal(small, capitals)


@pytest.mark.parametrize("bits", [8, 12, 16, 32])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_stored_values_of_every_width_and_sign(tmp_path: Path, bits: int, signed: bool, order: str) -> None:
    width = 8 if bits == 8 else 16 if bits <= 16 else 32
    lowest, top = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = np.linspace(lowest, top, 1024).round().astype(np.int64).reshape(32, 32)
    stored = values & (2**bits - 1)
    if bits == 12:
        stored = stored | 0xA000  # what lies above Bits Stored is no part of the value (an overlay, say)
    header = dataset(ramp(), BitsAllocated=width, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(signed))
    header["PixelData"].VR = "OB" if width == 8 else "OW"
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if order == "<" else ExplicitVRBigEndian
    header.PixelData = stored.astype(f"{order}u{width // 8}").tobytes()
    found = read(write(tmp_path / "a", header))
    assert isinstance(found, Reading)
    np.testing.assert_array_equal(found.pixels[0], values.astype(np.float32))


@pytest.mark.parametrize(("allocated", "bits"), [(8, 8), (8, 6), (16, 8), (16, 12), (16, 16)])
@pytest.mark.parametrize("signed", [0, 1])
def test_uncompressed_pixels_are_those_of_pydicoms_decoder(tmp_path: Path, allocated: int, bits: int, signed: int) -> None:
    lowest, top = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = np.random.default_rng(bits).integers(lowest, top + 1, (17, 19))
    data = values.astype(f"<{'ui'[signed]}{allocated // 8}").tobytes()
    header = dataset(ramp(17, 19), BitsAllocated=allocated, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=signed)
    header.PixelData = data + bytes(len(data) % 2)
    header["PixelData"].VR = "OB" if allocated == 8 else "OW"
    written = pydicom.dcmread(write(tmp_path / "a", header))
    found = decode.native(written, parsed(written).pixels)
    assert found is not None
    assert found.dtype == written.pixel_array.dtype
    np.testing.assert_array_equal(found, written.pixel_array)


@pytest.mark.parametrize(
    "attributes",
    [
        {"BitsStored": 11, "HighBit": 10},  # values above Bits Stored
        {"PixelData": ramp().tobytes() + bytes(2)},
        {"PixelData": ramp().tobytes()[:-2]},
        {"NumberOfFrames": 2},
        {"BitsAllocated": 32},
        {"PhotometricInterpretation": "RGB"},
        {"PixelRepresentation": None},
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_pydicom(attributes: dict[str, Any]) -> None:
    odd = dataset(ramp(), **attributes)
    assert decode.native(odd, parsed(odd).pixels) is None


def test_a_value_above_unused_low_bits(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a", dataset((ramp() << 4 | 5).astype(np.uint16), HighBit=15)))
    assert isinstance(found, Reading)
    np.testing.assert_array_equal(found.pixels[0], ramp())


def test_a_modality_lut_replaces_the_rescale(tmp_path: Path) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [1000, 100, 12])
    item.add_new("LUTData", "US", [int(value) for value in np.arange(1000)[::-1] * 4])
    found = read(write(tmp_path / "a", dataset(ramp(), ModalityLUTSequence=[item])))
    assert isinstance(found, Reading)
    expected = (999 - np.clip(ramp().astype(int) - 100, 0, 999)) * 4
    np.testing.assert_array_equal(found.pixels[0], expected)


def test_padding_is_no_value(tmp_path: Path) -> None:
    pixels = ramp()
    pixels[:3], pixels[3] = 0, 63
    found = read(write(tmp_path / "a", dataset(pixels, PixelPaddingValue=0, PixelPaddingRangeLimit=63)))
    assert isinstance(found, Reading)
    assert np.isnan(found.pixels[0, :4]).all()
    assert np.isfinite(found.pixels[0, 4:]).all()
    image, _ = standardize(found.pixels, found.low, found.high, Target(32))
    assert image[0, :4].max() == 0


def test_frames_are_images_each(tmp_path: Path) -> None:
    frames = np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]])
    plain = dataset(ramp(), NumberOfFrames=3, PixelData=frames.astype("<u2").tobytes())
    packed = dataset(ramp(), NumberOfFrames=3, PixelData=frames.astype("<u2").tobytes())
    packed.compress(RLELossless)
    for header in (plain, packed):
        found = list(dicom.read(write(tmp_path / "a", header)))
        assert [one.frame for one in found if isinstance(one, Reading)] == [0, 1, 2]
        np.testing.assert_array_equal([one.pixels[0] for one in found if isinstance(one, Reading)], frames)


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
        header = dataset(ramp())
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        header.PixelData = ramp().astype(f"{order}u2").tobytes()
        del header.file_meta
        pydicom.dcmwrite(tmp_path / "a", header, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=order == "<")
        found = read(tmp_path / "a")
        assert isinstance(found, Reading)
        np.testing.assert_array_equal(found.pixels[0], ramp())


def test_refusal_comes_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "frames", lambda *_, **__: pytest.fail("decoded"))
    [found] = dicom.read(write(tmp_path / "a", dataset(ramp())), lambda header: f"modality {header.modality}")
    assert found == Quarantined("modality DX")


def test_transfer_syntaxes_give_the_same_pixels(tmp_path: Path) -> None:
    plain = displayed(read(write(tmp_path / "a", dataset(ramp()))))
    packed = dataset(ramp())
    packed.compress(RLELossless)
    implicit = dataset(ramp())
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for header in (packed, implicit):
        np.testing.assert_array_equal(displayed(read(write(tmp_path / "b", header))), plain)


SR, SEG, PDF = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.104.1"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"SOPClassUID": SR}, "a structured report"),
        ({"SOPClassUID": SEG}, "a segmentation"),
        ({"SOPClassUID": PDF}, "an encapsulated document"),
        ({"NumberOfFrames": 2}, "cut short"),
        ({"PixelData": None}, "no pixel data"),
        ({"PixelData": b"\0" * 100}, "cut short"),
        ({"Rows": 60000, "Columns": 60000}, "million pixels"),
        ({"Rows": 0}, "no pixel data"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "look-up table is incomplete"),
    ],
)
def test_every_file_left_out_has_a_reason(tmp_path: Path, attributes: dict[str, Any], expected: str) -> None:
    assert expected in reason(write(tmp_path / "a", dataset(ramp(), **attributes)))


def test_files_that_are_not_images(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "empty").touch()
    whole = write(tmp_path / "whole", dataset(ramp())).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) - 700])
    (tmp_path / "cut-header").write_bytes(whole[:150])
    assert reason(tmp_path / "note.txt") == "not a DICOM file"
    assert reason(tmp_path / "empty") == "not a DICOM file"
    assert "cut short" in reason(tmp_path / "cut")
    assert "cut short" in reason(tmp_path / "cut-header")
    assert reason(tmp_path / "absent") == "cannot be opened: mend its permissions"


def test_helper_writes_what_pydicom_reads(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path, 2)
    assert pydicom.dcmread(root / "p001" / "i0.dcm").PatientID == "MRN-1"
