"""The header: read once from any encoding into typed facts, whatever is damaged in it, and handed on in one direction."""

from __future__ import annotations

import itertools
import sys
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from dicom_folder import dataset, ramp, write
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.ingest import work
from pipeline.ingest.labels import Labels
from pipeline.ingest.readers import dicom
from pipeline.ingest.readers.attributes import parsed
from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.values import number, quiet, seconds, text, texts
from pipeline.ingest.standardize import Target
from pipeline.ingest.tasks import Task

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def reread(found: Dataset, syntax: UID) -> Dataset:
    """As from a file: nothing of it parsed yet."""
    written = DicomBytesIO()
    written.is_implicit_VR, written.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(written, found)
    return read_dataset(BytesIO(written.getvalue()), syntax.is_implicit_VR, syntax.is_little_endian)


def full() -> Dataset:
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0, region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 10, 20, 300, 400
    region.RegionSpatialFormat, region.RegionDataType = 1, 1
    return dataset(
        ramp(),
        StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3", SOPInstanceUID="1.2.3.4",
        PatientID=" A7 ", IssuerOfPatientID="Clinic", PatientSex="F", PatientAge="045Y", InstitutionName="Krankenhaus Köln",
        ViewPosition="PA", ImageLaterality="L", PatientOrientation=["L", "F"], BodyPartExamined="CHEST",
        ImageType=["ORIGINAL", "PRIMARY", ""], Manufacturer="Vidar", BurnedInAnnotation="NO", SequenceOfUltrasoundRegions=[region],
        ImagePositionPatient=[1, -2.5, 3e2], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[0.5, 0.25],
        RescaleSlope="2", RescaleIntercept="-1024", WindowCenter=[40, 300], WindowWidth=[400, 1500],
        PixelPaddingValue=63, AcquisitionNumber=3, AcquisitionTime="101112.5", TriggerTime="12.5", SpacingBetweenSlices=3,
        LossyImageCompression="00", SpecificCharacterSet="ISO_IR 100",
    )  # fmt: skip


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_facts_are_the_same_in_any_encoding(syntax: UID) -> None:
    found = parsed(reread(full(), syntax), ("StudyDescription", "BodyPartExamined"))
    assert (found.study_instance_uid, found.series_instance_uid, found.sop_instance_uid) == ("1.2", "1.2.3", "1.2.3.4")
    assert (found.patient_id, found.issuer_of_patient_id, found.patient_sex, found.patient_age) == ("A7", "Clinic", "F", "045Y")
    assert (found.institution_name, found.modality, found.view_position, found.image_laterality) == ("Krankenhaus Köln", "DX", "PA", "L")
    assert found.geometry.orientation == ("L", "F")
    assert (found.geometry.position, found.geometry.spacing, found.geometry.aspect) == ((1, -2.5, 300), (0.5, 0.25), 2)
    assert (found.geometry.cosines, found.geometry.between) == ((1, 0, 0, 0, 1, 0), 3)
    pixels = found.pixels
    assert (pixels.rows, pixels.columns, pixels.samples, pixels.frames, pixels.photometric) == (32, 32, 1, 1, "MONOCHROME2")
    assert (pixels.allocated, pixels.stored, pixels.high, pixels.signed, pixels.padding) == (16, 12, 11, False, (63, 63))
    assert (found.transform.slope, found.transform.intercept, found.transform.window) == (2, -1024, (40, 400))
    assert found.origin.image_type == ("ORIGINAL", "PRIMARY", "")
    assert (found.origin.manufacturer, found.origin.burned_in_annotation) == ("VIDAR", "NO")
    assert found.origin.scan is None
    assert (found.acquisition.number, found.acquisition.trigger_time, found.acquisition.time) == ("3", 12.5, 36672.5)
    assert dict(found.also) == {"StudyDescription": "", "BodyPartExamined": "CHEST"}
    assert found.damaged == frozenset()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_texts_are_those_of_pydicom_in_any_encoding(syntax: UID) -> None:
    found = reread(full(), syntax)
    for element in full():
        if element.VR != "SQ" and element.keyword != "PixelData":
            value = element.value
            expected = tuple(str(part).strip() for part in (value if element.VM > 1 else [value]))
            assert texts(found, element.keyword) == expected, element.keyword
            assert text(found, element.keyword) == expected[0]


@pytest.mark.parametrize(
    ("charset", "written", "expected"),
    [
        ("ISO_IR 100", "Köln".encode("latin-1"), "Köln"),
        ("ISO_IR 192", "東京".encode(), "東京"),
        ("GB18030", "北京".encode("gb18030"), "北京"),
        (["", "ISO 2022 IR 87"], b"\x1b$BElKL\x1b(B", "東北"),
        ("no such set", b"plain", "plain"),
    ],
)
def test_character_sets(charset: Any, written: bytes, expected: str) -> None:
    found = Dataset()
    found.SpecificCharacterSet = charset
    with quiet():
        raw = reread(found, ExplicitVRLittleEndian)
        stream = DicomBytesIO()
        stream.is_implicit_VR, stream.is_little_endian = False, True
        write_dataset(stream, raw)
        whole = stream.getvalue() + b"\x08\x00\x80\x00LO" + len(written).to_bytes(2, "little") + written
        assert parsed(read_dataset(BytesIO(whole), False, True)).institution_name == expected


DAMAGED: dict[str, tuple[str, bytes]] = {
    "Rows": ("US", b"\1\0\0"), "BitsStored": ("FD", b"\0"), "PixelSpacing": ("DS", b"0.5\\wide"), "WindowCenter": ("DS", b"forty "),
    "ImagePositionPatient": ("DS", b"1\\2"), "ImageOrientationPatient": ("DS", b"1\\0\\0\\0\\1\\nan "), "RescaleSlope": ("DS", b"1e999 "),
    "NumberOfFrames": ("IS", b"many"), "PixelPaddingValue": ("US", b"\0\1\2"), "ImagesInAcquisition": ("IS", b"1_000 "),
    "VOILUTSequence": ("SQ", b"\xff\xfe"), "SequenceOfUltrasoundRegions": ("SQ", b"\1\2\3\4"), "PatientID": ("SQ", b"ab"),
    "PixelAspectRatio": ("IS", b"3"), "AcquisitionTime": ("TM", b"noon"), "ModalityLUTSequence": ("UN", b"\xff\xff\xff\xff"),
}  # fmt: skip


@pytest.mark.parametrize("keyword", DAMAGED)
def test_a_damaged_value_is_none_and_costs_no_other(keyword: str) -> None:
    vr, value = DAMAGED[keyword]
    found = full()
    if keyword in found:
        del found[keyword]
    raw = reread(found, ExplicitVRLittleEndian)
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    raw._dict[Tag(keyword)] = RawDataElement(Tag(keyword), vr, len(value), value, 0, False, True)
    with quiet():
        header = parsed(raw)
    assert isinstance(header, Header)
    assert (header.modality, header.sop_instance_uid, header.view_position) == ("DX", "1.2.3.4", "PA")
    assert "NaN" not in repr(header)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0,5", 0.5), ("-12,75", -12.75), ("1,5E-3", 0.0015), (",5", 0.5), ("+3,0", 3), ("40", 40), (" 1.5e2", 150),
        ("1,234.5", None), ("1.234,5", None), ("0,5,0", None), ("1_000", None), ("nan", None), ("inf", None), ("0x1f", None), ("", None),
    ],
)  # fmt: skip
def test_numbers_with_a_decimal_point_or_comma(written: str, expected: float | None) -> None:
    assert number(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("101112", 36672), ("101112.25", 36672.25), ("10:11:12", 36672), ("20240105101112.5", 36672.5), ("1011", None), ("noon", None)],
)
def test_times_of_day(written: str, expected: float | None) -> None:
    assert seconds(written) == expected


@pytest.mark.parametrize(
    "keyword", ["PixelSpacing", "ImagePositionPatient", "RescaleSlope", "WindowCenter", "SpacingBetweenSlices", "ImagerPixelSpacing"]
)
def test_decimal_commas_are_read_wherever_a_number_is(keyword: str) -> None:
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    count = {"PixelSpacing": 2, "ImagerPixelSpacing": 2, "ImagePositionPatient": 3}.get(keyword, 1)
    value = b"\\".join([b"0,75"] * count)
    raw = reread(dataset(ramp(), WindowWidth=400), ExplicitVRLittleEndian)
    raw._dict[Tag(keyword)] = RawDataElement(Tag(keyword), "DS", len(value), value, 0, False, True)
    found = parsed(raw)
    known = {
        "PixelSpacing": found.geometry.spacing, "ImagerPixelSpacing": found.geometry.spacing,
        "ImagePositionPatient": found.geometry.position, "RescaleSlope": (found.transform.slope,),
        "WindowCenter": (found.transform.window or (None,))[:1], "SpacingBetweenSlices": (found.geometry.between,),
    }[keyword]  # fmt: skip
    assert known == (0.75,) * count
    assert found.damaged == frozenset()


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Header().patient_id = "X"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Header().geometry.aspect = 2  # type: ignore[misc]


def test_one_header_goes_from_the_reader_to_the_rows_and_enters_each_module_once(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", dataset(ramp(), SOPInstanceUID="1.2.3", WindowCenter=2048, WindowWidth=4096))
    (tmp_path / "labels.csv").write_text("sop_instance_uid,label\n1.2.3,x\n")
    labels = Labels.load(tmp_path / "labels.csv", ("x",))
    settings = work.Settings(tmp_path, dicom.read_each, labels, b"a key of the tests, long enough", Target(32), table=labels)
    entered: list[str] = []

    def trace(frame: FrameType, event: str, _: Any) -> None:
        name, before = frame.f_globals.get("__name__", ""), frame.f_back.f_globals.get("__name__", "") if frame.f_back else ""
        if event != "call" or not name.startswith("pipeline.") or name == before or frame.f_code.co_name.startswith("__"):
            return
        if frame.f_code is parsed.__code__ or any(isinstance(value, Header) for value in frame.f_locals.values()):
            entered.append(name.removeprefix("pipeline.ingest."))

    sys.setprofile(trace)
    try:
        value, _ = work.work(Task(("a.dcm",)), settings)
    finally:
        sys.setprofile(None)
    assert len(value["rows"]) == 1
    # In this order: the reader parses it and asks the stage whether the image is wanted; then it is decoded, and handed on with the header.
    # (Labels and label table are asked several questions at one visit.)
    assert [module for module, _ in itertools.groupby(entered)] == [
        *("readers.attributes", "work", "labels", "deidentify.text_guard"),
        *("readers.display", "readers.padding", "readers.geometry", "deidentify.allow_list"),
    ]
