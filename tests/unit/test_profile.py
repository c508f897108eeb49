"""PS3.15 Annex E: what is written again holds the picture and its description, and no identity wherever one was planted."""

from __future__ import annotations

import datetime
import io
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_folder import dataset, ramp
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_dict
from pydicom.sequence import Sequence
from pydicom.uid import UID, RLELossless, generate_uid

from pipeline.ingest.deidentify import profile
from pipeline.ingest.deidentify.profile import CODES, deidentified, describe, replaced_uid, shifted

KEY = b"0123456789abcdef"
SECRET = "ZYXSECRET"
# A value of every VR that says who it is, as far as the VR can.
PLANTED = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR"), SECRET),
    **{"UI": "1.2.840.99.4829133177", "AS": "077Y"},
    **{"DA": "19480229", "DT": "19480229101112", "TM": "101112.131415", "DS": "4829133177", "IS": "482913317"},
    **dict.fromkeys(("US", "SS"), 29133), **dict.fromkeys(("UL", "SL", "UV", "SV"), 482913317), **dict.fromkeys(("FL", "FD"), 4829133177.0),
    **dict.fromkeys(("OB", "OW", "UN", "OD", "OF", "OL", "OV"), b"ZYXSECRET4829133"), "AT": 0x48291331,
}  # fmt: skip
TRACES = (SECRET, "19480229", "4829133", "101112", "MRN-1")
# Actions X, Z or D of Table E.1-1 that images of hospitals really hold.
IDENTIFYING = (
    *("PatientAddress", "PatientTelephoneNumbers", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName"),
    *("InstitutionName", "InstitutionAddress", "StationName", "DeviceSerialNumber", "OperatorsName", "PerformingPhysicianName"),
    *(
        "StudyDescription",
        "SeriesDescription",
        "ProtocolName",
        "PatientComments",
        "ImageComments",
        "AdditionalPatientHistory",
        "EthnicGroup",
    ),
    *("RequestAttributesSequence", "ReferencedStudySequence", "OriginalAttributesSequence", "AcquisitionDateTime", "AcquisitionTime"),
    *("InstanceCreationDate", "Occupation", "MedicalAlerts", "Allergies", "AdmissionID", "RequestedProcedureID", "InstanceCreatorUID"),
    *("DetectorID", "PerformedProcedureStepID", "AcquisitionComments", "DerivationDescription", "CountryOfResidence", "MilitaryRank"),
)


def full() -> Dataset:
    """An image with an identity in every attribute of the dictionary that its pixels do not need, in a nested and a private one."""
    header = dataset(ramp(), NumberOfFrames=1)
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    needed = {element.keyword for element in header}
    for keyword, tag in keyword_dict.items():
        vr = dictionary_VR(tag).split(" or ")[0]
        if (
            keyword
            and keyword not in needed
            and tag >> 16 > 2
            and vr in PLANTED
            and not 0x5000 <= tag >> 16 < 0x7000
            and tag >> 16 != 0xFFFE
        ):
            header.add_new(tag, vr, PLANTED[vr])
    inner = Dataset()
    inner.PatientName, inner.StudyDate, inner.KVP, inner.PatientID = SECRET, "19480229", "4829133177", "MRN-1"
    for keyword in ("RequestAttributesSequence", "OriginalAttributesSequence", "VOILUTSequence", "SharedFunctionalGroupsSequence"):
        setattr(header, keyword, Sequence([inner]))
    block = header.private_block(0x0011, SECRET, create=True)
    for number, vr in enumerate(PLANTED):
        block.add_new(number, vr, PLANTED[vr])
    header.add_new(0x60003000, "OW", SECRET.encode() + b"\0")
    header.add_new(0x60000022, "LO", SECRET)
    header.AccessionNumber, header.PatientBirthDate, header.PatientAge = SECRET, "19480229", "077Y"
    return header


def test_no_identity_from_any_attribute_of_any_vr_is_written() -> None:
    header = full()
    vrs = {element.VR for element in header}
    assert set(PLANTED) - vrs <= {"OD", "OL", "OV", "OF", "UV", "SV", "AT", "UN"}, "the test must plant what it claims"
    file = io.BytesIO()
    deidentified(header, KEY).save_as(file, enforce_file_format=True)
    written = file.getvalue().split(b"\xe0\x7f\x10\x00")[0]  # before the pixel data
    for trace in TRACES:
        assert trace.encode() not in written
    for element in pydicom.dcmread(io.BytesIO(file.getvalue())).iterall():
        assert not element.tag.is_private
        assert element.keyword not in IDENTIFYING
        for trace in TRACES:
            assert trace not in str(element.value) or element.keyword == "PixelData"


def test_the_picture_and_its_description_stay() -> None:
    header = dataset(
        ramp(), ViewPosition="PA", PatientSex="F", PatientAge="097Y", KVP="120", PixelSpacing=[0.139, 0.139], WindowCenter=2048,
        WindowWidth=4096, InstanceNumber=7, BodyPartExamined="CHEST", ImageType=["ORIGINAL", "PRIMARY"], StudyDate="20200131",
    )  # fmt: skip
    result = deidentified(header, KEY)
    np.testing.assert_array_equal(result.pixel_array, ramp())
    for name in (
        "ViewPosition",
        "PatientSex",
        "KVP",
        "PixelSpacing",
        "WindowCenter",
        "WindowWidth",
        "InstanceNumber",
        "BodyPartExamined",
        "ImageType",
    ):
        assert result[name].value == header[name].value
    assert result.PatientAge == "090Y"
    assert header.PatientID == "MRN-1", "the original is not changed"


def test_it_says_what_was_done_in_the_standards_codes() -> None:
    result = deidentified(dataset(ramp()), KEY)
    assert result.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in result.DeidentificationMethodCodeSequence] == ["113100", "113107", "113108"]
    assert {item.CodingSchemeDesignator for item in result.DeidentificationMethodCodeSequence} == {"DCM"}
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"
    assert 0 < len(result.DeidentificationMethod) <= 64


def test_one_patient_stays_one_and_is_unlinkable_without_the_key() -> None:
    first, second = (deidentified(dataset(ramp(), StudyInstanceUID="1.2.3"), KEY) for _ in range(2))
    other = deidentified(dataset(ramp(), StudyInstanceUID="1.2.3"), b"another key, long")
    assert first.PatientID == second.PatientID != other.PatientID
    assert first.StudyInstanceUID == second.StudyInstanceUID != other.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID


@given(st.text("0123456789.", min_size=1, max_size=64), st.sampled_from(["2.25", "1.2.826.0.1.3680043.8", "1.3.6.1.4.1.99999"]))
def test_uids_are_valid_and_belong_to_the_root(uid: str, root: str) -> None:
    found = replaced_uid(uid, KEY, root)
    assert UID(found).is_valid
    assert len(found) <= 64
    assert found == replaced_uid(uid, KEY, root)
    integer = int(found.rpartition(".")[2])
    assert integer >> 76 & 15 == 8  # the version of the UUID
    assert integer >> 62 & 3 == 2  # its variant


@pytest.mark.parametrize("root", ["2.25.", "abc", "1.02.3", "", "1." + "9" * 30])
def test_a_root_that_is_none_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="no UID root"):
        replaced_uid("1.2.3", KEY, root)


@given(st.dates(min_value=datetime.date(1911, 1, 1)), st.dates(min_value=datetime.date(1911, 1, 1)), st.text(min_size=1))
def test_dates_move_and_intervals_stay(one: datetime.date, two: datetime.date, patient: str) -> None:
    moved = [datetime.datetime.strptime(shifted(f"{day:%Y%m%d}".zfill(8), KEY, patient), "%Y%m%d").date() for day in (one, two)]
    assert moved[1] - moved[0] == two - one
    assert 1 <= (one - moved[0]).days <= profile.SHIFT_DAYS


def test_patients_are_shifted_differently_and_bad_dates_are_emptied() -> None:
    assert len({shifted("20200131", KEY, str(patient)) for patient in range(50)}) > 40
    for date in ("", "2020", "20200230", "20200131\\20200201", "DOE", "00000000"):
        assert shifted(date, KEY, "p") == ""


def test_an_overlay_in_unused_bits_and_bytes_after_the_image_are_gone() -> None:
    pixels = ramp() | 0x8000
    header = dataset(pixels)
    header.PixelData += SECRET.encode() + b"\0"
    result = deidentified(header, KEY)
    np.testing.assert_array_equal(np.frombuffer(result.PixelData, "<u2").reshape(32, 32), ramp())


def test_signed_and_compressed_pixels_are_the_same_and_written_plain() -> None:
    values = (np.arange(1024).reshape(32, 32) - 512).astype("<i2")
    header = dataset(values.view("<u2"), PixelRepresentation=1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(deidentified(header, KEY).pixel_array, values)
    packed = dataset(ramp(), SOPInstanceUID=generate_uid())
    packed.compress(RLELossless, generate_instance_uid=False)
    result = deidentified(packed, KEY)
    np.testing.assert_array_equal(result.pixel_array, ramp())
    assert not result.file_meta.TransferSyntaxUID.is_compressed
    assert packed.file_meta.TransferSyntaxUID == RLELossless


def test_enhanced_geometry_survives_in_its_sequences() -> None:
    header = dataset(ramp())
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing, measures.PatientName = [0.5, 0.5], SECRET
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    found = deidentified(header, KEY).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert found.PixelSpacing == [0.5, 0.5]
    assert "PatientName" not in found


def test_without_a_patient_there_is_no_object() -> None:
    with pytest.raises(ValueError, match="no Patient ID"):
        deidentified(dataset(ramp(), PatientID=""), KEY)


def test_it_describes_what_it_does() -> None:
    said = " ".join(describe())
    for code, _ in CODES:
        assert code in said
    for name in profile.SHIFTED:
        assert re.search(name.removesuffix("Date"), said, re.IGNORECASE), name
    for name in (
        "Times",
        "accession number",
        "study ID",
        "birth date",
        "referring physician",
        "Sex",
        "Size",
        "Weight",
        "Age",
        str(profile.SHIFT_DAYS),
    ):
        assert name in said
    assert set(profile.TERMS) & set(IDENTIFYING) == set(profile.NUMBERS) & set(IDENTIFYING) == set()


def test_real_images_keep_their_pixels_and_lose_their_names(real_data: Path) -> None:
    """Every real file that decodes, but for segmentations of one bit and one with subsampled colour."""
    same = 0
    for path in sorted(path for folder in real_data.glob("dicom_*") for path in folder.rglob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                header = pydicom.dcmread(path)
                pixels = header.pixel_array
            except Exception:
                continue
            if header.BitsAllocated == 1 or path.stem == "SC_ybr_full_422_uncompressed":
                continue
            name = str(header.get("PatientName", ""))
            header.PatientID = str(header.get("PatientID") or "MRN-1")
            file = io.BytesIO()
            deidentified(header, KEY).save_as(file, enforce_file_format=True)
            written = pydicom.dcmread(io.BytesIO(file.getvalue()))
            np.testing.assert_array_equal(written.pixel_array, pixels, err_msg=path.name)
            assert len(name) < 5 or name not in str(written)
            same += 1
    assert same >= 98


def test_it_breaks_no_rule_of_the_standard_that_the_source_keeps(real_data: Path, tmp_path: Path) -> None:
    """By dciodvfy, Debian's dicom3tools."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")

    def errors(path: Path) -> set[str]:
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        return {line for line in done.stderr.splitlines() if line.startswith("Error")}

    for name in ("dicom_highdicom/ct_image.dcm", "dicom_pydicom_tests/test_files/MR_small.dcm"):
        header = pydicom.dcmread(real_data / name)
        deidentified(header, KEY).save_as(tmp_path / "written.dcm", enforce_file_format=True)
        assert errors(tmp_path / "written.dcm") <= errors(real_data / name)
