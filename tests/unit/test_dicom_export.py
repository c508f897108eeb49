"""Synthetic Secondary Capture objects: what another DICOM program reads in them."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from pipeline.release.dicom_export import SYNTHESIZER, derived_uid, dicom_bytes, first_difference, secondary_capture

# Synthetic Data (0008,001C) entered the standard after the dictionary of the packaged dciodvfy.
NEWER_THAN_DCIODVFY = "(0008,001c)"
# Laterality is required of a paired body part alone; dciodvfy takes an object that names no body part for one of a paired one.
OF_NO_BODY_PART = "Laterality(0020,0060)> - Missing attribute for Type 2C Conditional"


def image(channels: int, side: tuple[int, int] = (15, 13)) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 256, (channels, *side), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_survive_a_round_trip_of_odd_length(tmp_path: Path, channels: int) -> None:
    pixels = image(channels)
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(pixels, image_id="SYN-1", label="effusion", cohort="abc", version="1"))
    read = pydicom.dcmread(tmp_path / "a.dcm")
    assert np.array_equal(read.pixel_array, pixels[0] if channels == 1 else np.moveaxis(pixels, 0, -1))
    assert read.PhotometricInterpretation == ("MONOCHROME2" if channels == 1 else "RGB")


def test_object_says_that_it_is_synthetic_and_who_made_it() -> None:
    ds = secondary_capture(image(1), image_id="SYN-00c0ffee-000007", label="pleural \\ effusion, Erguß", cohort="abc", version="1.2")
    purpose = ds.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
    assert ds.SyntheticData == "YES"
    assert ds.ConversionType == "SYN"
    assert ds.ImageType == ["DERIVED", "SECONDARY"]
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning) == SYNTHESIZER
    assert str(ds.PatientName) == "SYNTHETIC^SYN-00c0ffee-000007"
    assert ds.PatientID == "SYN-00c0ffee-000007"
    assert ds.SoftwareVersions == "1.2"
    assert ds.SeriesDescription == "Synthetic: pleural / effusion, Erguß"
    assert not ds.PatientBirthDate
    assert not ds.StudyDate
    assert not ds.PatientSex
    assert "Laterality" not in ds


def test_an_image_of_another_generator_does_not_say_that_we_generated_it() -> None:
    facts = {"image_id": "SYN-1", "label": "x", "cohort": "abc", "version": "1"}
    ours, theirs = (secondary_capture(image(1), **facts, foreign=foreign) for foreign in (False, True))
    assert "diffusion model" in ours.DerivationDescription
    assert "elsewhere" in theirs.DerivationDescription
    assert "elsewhere" in theirs.ContributingEquipmentSequence[0].ContributionDescription
    assert theirs.SyntheticData == "YES"


def test_synthesizer_code_is_that_of_the_dicom_dictionary() -> None:
    concept = codes.DCM.SynthesizingEquipment
    assert (concept.value, concept.scheme_designator, concept.meaning) == SYNTHESIZER


def test_same_image_gives_the_same_bytes_and_other_ids_other_uids() -> None:
    made = [dicom_bytes(image(1), image_id="SYN-1", label="x", cohort="abc", version="1") for _ in range(2)]
    assert made[0] == made[1]
    first, second = (secondary_capture(image(1), image_id=name, label="x", cohort="abc", version="1") for name in ("SYN-1", "SYN-2"))
    assert first.PatientID == "SYN-1"
    assert second.PatientID == "SYN-2"
    uids = [ds[key].value for ds in (first, second) for key in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")]
    assert len(set(uids)) == 6
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)
    assert derived_uid("abc", "study", "s1") != derived_uid("abd", "study", "s1")


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        secondary_capture(np.zeros((2, 4, 4), np.uint8), image_id="SYN-1", label="x", cohort="abc", version="1")


@pytest.mark.parametrize("channels", [1, 3])
def test_dciodvfy_finds_no_error(tmp_path: Path, channels: int) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    made = dicom_bytes(image(channels), image_id="SYN-00c0ffee-000001", label="Erguß", cohort="abc", version="1")
    (tmp_path / "a.dcm").write_bytes(made)
    found = subprocess.run(["dciodvfy", "-new", str(tmp_path / "a.dcm")], capture_output=True, text=True, check=False)
    report = (found.stdout + found.stderr).splitlines()
    assert "SCImage" in report
    known = (NEWER_THAN_DCIODVFY, OF_NO_BODY_PART)
    assert [line for line in report if line.startswith("Error") and not any(each in line for each in known)] == []


def test_no_library_writes_its_own_version_into_a_file() -> None:
    read = pydicom.dcmread(io.BytesIO(dicom_bytes(image(1), image_id="SYN-1", label="x", cohort="abc", version="1")))
    assert read.file_meta.ImplementationVersionName == "SYNTHCOHORT"
    assert b"PYDICOM" not in dicom_bytes(image(1), image_id="SYN-1", label="x", cohort="abc", version="1")


def test_the_attribute_where_two_files_part_is_named() -> None:
    made = dicom_bytes(image(1), image_id="SYN-1", label="x", cohort="abc", version="1")
    assert first_difference(made, made.replace(b"LO\x06\x00SYN-1 ", b"LO\x06\x00ROE-1 ")) == "Patient ID"
    assert first_difference(made, b"x" + made[1:]) == "its preamble"
    assert first_difference(made, made + b"x") == "bytes after its end"
    assert first_difference(made, made[:-3]) == "Pixel Data"
