"""Reading DICOM: display values by the standard's formulas, a reason for every file left out, labels from a CSV."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import dicom_folder
import numpy as np
import pydicom
import pytest
from dicom_folder import dataset, ramp, write
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from pipeline.errors import InputError
from pipeline.ingest.dicom import Labels, Quarantined, Read, read
from pipeline.ingest.standardize import standardize


def displayed(found: Read | Quarantined) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert isinstance(found, Read), found
    return np.clip((found.pixels.astype(np.float64) - found.low) / (found.high - found.low), 0, 1)


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
    assert isinstance(found, Read)
    assert not found.linear


def test_the_first_of_several_windows_counts_and_a_senseless_one_does_not(tmp_path: Path) -> None:
    several = read(write(tmp_path / "a", dataset(ramp(), WindowCenter=[1000, 5], WindowWidth=[201, 5])))
    assert isinstance(several, Read)
    assert (several.low, several.high) == (899.5, 1099.5)
    for centre, width in ((1000, 0), (-5000, 100)):
        senseless = read(write(tmp_path / "b", dataset(ramp(), WindowCenter=centre, WindowWidth=width)))
        assert isinstance(senseless, Read)
        assert 0 <= senseless.low < 50
        assert 4095 >= senseless.high > 4045


def test_without_a_window_the_range_is_the_images_own_without_padding(tmp_path: Path) -> None:
    pixels = (ramp() // 4 + 1000).astype(np.uint16)
    pixels[:4] = 0
    found = read(write(tmp_path / "a", dataset(pixels, PixelPaddingValue=0)))
    assert isinstance(found, Read)
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
    assert isinstance(found, Read)
    assert found.spacing == (0.3, 0.15)
    assert found.aspect == pytest.approx(2)
    ratio = read(write(tmp_path / "b", dataset(ramp(), PixelAspectRatio=[1, 2])))
    assert isinstance(ratio, Read)
    assert (ratio.spacing, ratio.aspect) == (None, 0.5)


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[:16, :, 0], colour[16:, :, 1] = 200, 100
    header = dataset(ramp(), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, Modality="US")
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelData = 8, 8, 7, colour.tobytes()
    found = read(write(tmp_path / "a", header))
    assert isinstance(found, Read)
    assert found.pixels[0, 0] == pytest.approx(59.8)
    assert found.pixels[-1, 0] == pytest.approx(58.7)


def test_transfer_syntaxes_give_the_same_pixels(tmp_path: Path) -> None:
    plain = displayed(read(write(tmp_path / "a", dataset(ramp()))))
    packed = dataset(ramp())
    packed.compress(RLELossless)
    implicit = dataset(ramp())
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for header in (packed, implicit):
        np.testing.assert_array_equal(displayed(read(write(tmp_path / "b", header))), plain)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PatientID": None}, "no Patient ID"),
        ({"PatientID": "  "}, "no Patient ID"),
        ({"Modality": "SR"}, "Modality"),
        ({"Modality": None}, "Modality"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"PixelData": None}, "no integer pixel data"),
        ({"PixelData": b"\0" * 100}, "damaged"),
        ({"Rows": 60000, "Columns": 60000}, "million pixels"),
        ({"BurnedInAnnotation": "YES"}, "burned-in"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE"),
        ({"PixelData": b"\1" * 2048}, "no contrast"),
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
    assert "damaged" in reason(tmp_path / "cut")
    assert reason(tmp_path / "cut-header")
    assert reason(tmp_path / "absent") == "cannot be opened: mend its permissions"


def test_real_files_are_read_or_left_out_with_a_reason_and_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    data = os.environ.get("SYNTHCOHORT_DATA")
    if not data:
        pytest.skip("SYNTHCOHORT_DATA is not set: no real DICOM files")
    paths = [
        path for folder in ("dicom_pydicom_tests", "dicom_highdicom") for path in sorted(Path(data, folder).rglob("*")) if path.is_file()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {path.name: read(path) for path in paths}
    images = {name: one for name, one in found.items() if isinstance(one, Read)}
    assert len(images) >= 50
    for image in images.values():
        standard, _ = standardize(image.pixels, image.low, image.high, 32, image.aspect)
        assert standard.max() > standard.min()
    assert all(one.reason for one in found.values() if isinstance(one, Quarantined))
    for name in ("CT_small.dcm", "JPEG2000.dcm", "dx_image.dcm"):
        assert name in images
    assert isinstance(found["DICOMDIR"], Quarantined)
    assert isinstance(found["MR_truncated.dcm"], Quarantined)
    assert capfd.readouterr() == ("", "")


def labels(tmp_path: Path, text: str) -> Labels:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8-sig")
    return Labels.load(tmp_path / "labels.csv", ("normal", "effusion"))


def test_labels_by_file_uid_or_patient(tmp_path: Path) -> None:
    header = dataset(ramp(), SOPInstanceUID="1.2.3", PatientID="A7")
    assert labels(tmp_path, "file,label\n./a\\b.dcm,effusion\n").find("a/b.dcm", header) == 1
    assert labels(tmp_path, "Label,SOP_Instance_UID\neffusion,1.2.3\n").find("x", header) == 1
    assert labels(tmp_path, "patient_id,label\n A7 , normal \n").find("x", header) == 0
    missing = labels(tmp_path, "patient_id,label\nB1,normal\n").find("x", header)
    assert isinstance(missing, Quarantined)
    assert "no label" in missing.reason
    twice = labels(tmp_path, "patient_id,label\nA7,normal\nA7,effusion\nA7,normal\n").find("x", header)
    assert isinstance(twice, Quarantined)
    assert "contradictory" in twice.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\na,healthy\nb,tumour\n", "'healthy', 'tumour'; ingest.classes names normal, effusion"),
        ("file;label\na;normal\n", "needs a column 'label'"),
        ("name,label\na,normal\n", "needs a column 'label' and one of file"),
        ("", "needs a column"),
    ],
)
def test_bad_label_tables_say_what_to_mend(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=r"labels\.csv") as caught:
        labels(tmp_path, text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_unknown_labels_are_cut_short(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        labels(tmp_path, "file,label\n" + "\n".join(f"f{n},odd{n}" for n in range(9)))
    assert str(caught.value).count("odd") == 5


def test_helper_writes_what_pydicom_reads(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path, 2)
    assert pydicom.dcmread(root / "p001" / "i0.dcm").PatientID == "MRN-1"
