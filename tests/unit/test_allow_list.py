"""De-identification keeps the named fields in their defined terms, and nothing else whatever tag it hides in."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from dicom_folder import dataset, ramp
from PIL import ImageFont
from pydicom import Dataset
from pydicom.datadict import keyword_dict

from pipeline.ingest.deidentify.allow_list import Fields, age_band, describe, keep
from pipeline.ingest.deidentify.text_guard import refuse_header, refuse_pixels
from pipeline.ingest.readers.attributes import parsed
from pipeline.ingest.readers.header import Header

KEY = b"0123456789abcdef"
SECRET = "ZYXSECRET"
TEXT_VRS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}


def kept(**attributes: object) -> Fields:
    return keep(parsed(dataset(ramp(), **attributes)), KEY)


def test_defined_terms_are_kept() -> None:
    fields = kept(ViewPosition="PA", ImageLaterality="L", PatientSex="F", PatientAge="045Y", InstitutionName="St Elsewhere")
    assert (fields.modality, fields.view, fields.laterality, fields.sex, fields.age_band) == ("DX", "PA", "L", "F", "40-49")
    assert fields.site.startswith("site-")
    assert len(fields.site) == 9


def test_identities_in_any_text_attribute_do_not_pass() -> None:
    header = dataset(ramp())
    from pydicom.datadict import dictionary_VR

    for keyword, tag in keyword_dict.items():
        if keyword and dictionary_VR(tag) in TEXT_VRS and tag >> 16 > 2:
            header.add_new(tag, dictionary_VR(tag), SECRET)
    header.add_new(0x00091010, "LO", SECRET)
    inner = Dataset()
    inner.PatientName = SECRET
    header.RequestAttributesSequence = [inner]
    fields = keep(parsed(header), KEY)
    assert SECRET.lower() not in str(dataclasses.asdict(fields)).lower()
    assert (fields.view, fields.laterality, fields.sex, fields.modality) == ("", "", "", "")


def test_pseudonyms_are_stable_keyed_and_not_a_plain_hash() -> None:
    first, again, other = kept(PatientID="A7"), kept(PatientID=" A7 "), kept(PatientID="A8")
    assert first.patient == again.patient != other.patient
    assert first.id != again.id
    assert keep(parsed(dataset(ramp(), PatientID="A7")), b"another key, long").patient != first.patient
    assert len(first.patient) == 16
    for digest in (hashlib.sha256, hashlib.md5, hashlib.sha1):
        assert first.patient not in digest(b"A7").hexdigest()


def test_one_patient_of_two_issuers_stays_one() -> None:
    assert kept(PatientID="A7", IssuerOfPatientID="X").patient == kept(PatientID="A7").patient


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("000D", "0-9"), ("011M", "0-9"), ("130M", "10-19"), ("009Y", "0-9"), ("010Y", "10-19"), ("089Y", "80-89"),
        ("090Y", "90+"), ("104Y", "90+"), ("", ""), ("Doe", ""), ("45", ""),
    ],
)  # fmt: skip
def test_age_bands(age: str, band: str) -> None:
    assert age_band(age) == band


def test_it_describes_every_field_that_it_keeps() -> None:
    text = " ".join(describe()).lower()
    for word in ("patient id", "sop instance uid", "institution", "modality", "view", "laterality", "sex", "age", "spacing", "date"):
        assert word in text


@pytest.mark.parametrize("source", ["pictures", "nifti"])
@pytest.mark.parametrize("burned_in", ["strict", "search", "declared"])
def test_of_files_without_a_patients_header_it_describes_what_is_done_to_them(source: str, burned_in: str) -> None:
    said = describe(source, burned_in, 2, reports=True)
    text = " ".join(said)
    for of_dicom in (
        "Patient ID",
        "SOP Instance UID",
        "Institution Name",
        "Patient's Age",
        "Patient Orientation",
        "MONOCHROME1",
        "whose header",
    ):
        assert of_dicom not in text
    assert not [one for one in said if "Ultrasound is cropped" in one or "without being declared" in one]
    assert ("EXIF" in text, "NIfTI" in text) == (source == "pictures", source == "nifti")
    for word in (
        "path",
        "patient_id",
        "values",
        "site",
        "acquisition",
        "modality",
        "view",
        "side",
        "sex",
        "age",
        "date",
        "reports",
        "2 rectangles",
    ):
        assert word in text
    assert ("often has text" in text) == (burned_in == "strict")
    assert ("Every image is searched" in text) != ("Text burned into the pixels is not searched for." in said)
    assert describe("medmnist") == []


def test_it_describes_what_the_text_guard_does_under_each_policy() -> None:
    """The sentences follow the guard's own behaviour on a clean and on a written picture of a kind that often has text."""
    ultrasound = Header(modality="US")
    clean = np.zeros((1, 96, 160), np.float32)
    clean[0, 40:60] = 30
    written = np.array(clean)
    letters = np.asarray(ImageFont.load_default_imagefont().getmask("DOE^JANE 1948"), np.float32).reshape(-1, 78)
    written[0, 10 : 10 + len(letters), 20:98] = letters
    for policy in ("strict", "search", "declared"):
        said = " ".join(describe(burned_in=policy))
        assert ("Ultrasound without" in said) == ((refuse_header(ultrasound, policy) or refuse_pixels(clean, policy)) is not None)
        assert ("is searched for burned-in text" in said) == (refuse_pixels(written, policy) is not None)
        assert ("not searched for" in said) == (refuse_pixels(written, policy) is None)
        assert "laterality marker" in said
