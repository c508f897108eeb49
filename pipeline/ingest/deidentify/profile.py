"""The Basic Application Level Confidentiality Profile (PS3.15 Annex E) for a DICOM object that is written again.

An allow-list stands in for the profile's list of what to remove (Table E.1-1): what is not named here is gone, standard attributes, private
ones, overlays and curves alike. Of what is named, no text is copied: codes are looked up in their defined terms, numbers are parsed and
held to a plausible range, UIDs are replaced, dates are shifted. Pixel data are decoded and written uncompressed, because a compressed
stream may carry comments, and unused high bits are cleared, because they may hold an overlay. The pixels themselves are not cleaned:
:mod:`pipeline.ingest.deidentify.text_guard` comes first.
"""

from __future__ import annotations

import datetime
import hmac
import math
import re
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import keyed
from pipeline.ingest.deidentify.allow_list import LATERALITIES, MODALITIES, SEXES, VIEWS
from pipeline.ingest.readers.values import text

if TYPE_CHECKING:
    from pydicom import Dataset

# CID 7050, PS3.16: what was done, for (0012,0064).
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
METHOD = "synthcohort: PS3.15 Annex E basic profile by allow-list, shifted dates"
# Table E.1-1, actions on attributes that an image object has to hold (types 1 and 2): Z leaves them empty, D gives a dummy, U another UID.
EMPTIED = ("AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "StudyID", "StudyTime", "SeriesTime", "ContentTime")
# Other attributes of type 2: emptied where the object has them and their value does not pass.
PRESENT = (
    *("Laterality", "PositionReferenceIndicator", "SeriesNumber", "InstanceNumber", "AcquisitionNumber", "KVP", "ScanOptions"),
    *("EchoTrainLength", "DetectorType", "AnatomicRegionSequence", "AcquisitionContextSequence", "SliceThickness", "PatientPosition"),
)
DUMMIES = {"Manufacturer": "REMOVED"}
REPLACED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# Option 113107: shifted by the same number of days in all of a patient's objects.
SHIFTED = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
SHIFT_DAYS = 3652

_YES_NO = frozenset({"YES", "NO"})
# Attributes that keep a value which is one of their defined terms (PS3.3); all values of several have to be.
TERMS: dict[str, frozenset[str]] = {
    "Modality": MODALITIES,
    "ViewPosition": VIEWS,
    "Laterality": LATERALITIES,
    "ImageLaterality": LATERALITIES,
    "PatientSex": SEXES,
    "ImageType": frozenset({"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "MIXED", "OTHER", "NONE", "VOLUME"}),
    "BodyPartExamined": frozenset(
        {"ABDOMEN", "ANKLE", "ARM", "BRAIN", "BREAST", "CHEST", "CSPINE", "ELBOW", "EXTREMITY", "EYE", "FOOT", "HAND", "HEAD", "HEART"}
        | {"HIP", "KNEE", "LEG", "LIVER", "LSPINE", "LUNG", "NECK", "PELVIS", "PROSTATE", "SHOULDER", "SKULL", "SPINE", "TSPINE", "WRIST"}
    ),
    "PatientOrientation": frozenset(one + two for one in "APRLHF" for two in ("", *"APRLHF")),
    "PatientPosition": frozenset({"HFP", "HFS", "HFDR", "HFDL", "FFP", "FFS", "FFDR", "FFDL"}),
    "PhotometricInterpretation": frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422"}),
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
    "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "PixelIntensityRelationship": frozenset({"LIN", "LOG"}),
    "VOILUTFunction": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    "RescaleType": frozenset({"HU", "US", "OD", "MGML"}),
    "LossyImageCompression": frozenset({"00", "01"}),
    "BurnedInAnnotation": _YES_NO,
    "SyntheticData": _YES_NO,
    "MRAcquisitionType": frozenset({"1D", "2D", "3D"}),
    "ScanningSequence": frozenset({"SE", "IR", "GR", "EP", "RM"}),
    "SequenceVariant": frozenset({"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"}),
}
# Attributes that keep a finite number of at most this size; more digits than an acquisition needs could be an identifier.
NUMBERS: dict[str, float] = {
    **dict.fromkeys(("SeriesNumber", "AcquisitionNumber", "InstanceNumber", "NumberOfFrames"), 99_999),
    **dict.fromkeys(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"), 99_999),
    **dict.fromkeys(("PlanarConfiguration", "PixelRepresentation", "PixelIntensityRelationshipSign"), 1),
    **dict.fromkeys(("PixelPaddingValue", "PixelPaddingRangeLimit", "SmallestImagePixelValue", "LargestImagePixelValue"), 65_535),
    **dict.fromkeys(("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"), 999),
    **dict.fromkeys(("SliceThickness", "SpacingBetweenSlices", "SliceLocation", "ReconstructionDiameter"), 9_999),
    **dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "DistanceSourceToDetector", "DistanceSourceToPatient"), 9_999),
    **dict.fromkeys(("WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope"), 99_999),
    **dict.fromkeys(("KVP", "XRayTubeCurrent", "ExposureTime", "Exposure", "GantryDetectorTilt"), 9_999),
    **dict.fromkeys(("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "EchoTrainLength", "MagneticFieldStrength"), 99_999),
    **dict.fromkeys(("PatientSize", "PatientWeight"), 500),
    **dict.fromkeys(("RedPaletteColorLookupTableDescriptor",), 65_536),
    **dict.fromkeys(("GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor", "LUTDescriptor"), 65_536),
}
TABLES = ("RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData", "LUTData")
# No lookup table is shorter; what is, may be something else.
LEAST_TABLE = 256
# Sequences whose items are treated by the same rules.
SEQUENCES = frozenset(
    {"ModalityLUTSequence", "VOILUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence"}
    | {"PlaneOrientationSequence", "PlanePositionSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence"}
)


def deidentified(header: Dataset, key: bytes, root: str = "2.25") -> Dataset:
    """A new object with the image of ``header`` and nothing that identifies; ready for ``save_as(..., enforce_file_format=True)``.

    Patient and UIDs are HMACs under ``key``: the same in all objects of a project, and linked to nothing without the key.

    Args:
        header: an object with pixel data, as pydicom reads it; it is not changed.
        key: the project's key.
        root: of the new UIDs: ``2.25`` (PS3.5 B.2), or an organisation's own of at most 24 characters.

    Raises:
        ValueError: no Patient ID, or pixel data that are no multiple of the declared frame.
        Exception: what pydicom raises where the pixel data cannot be decoded.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian

    patient = text(header, "PatientID")
    if not patient:
        raise ValueError("no Patient ID: there is nothing to make a pseudonym from")
    result = Dataset()
    _copy_allowed(header, result)
    result.PatientID = result.PatientName = keyed(key, "patient", patient)[:16]
    if age := _age(text(header, "PatientAge")):
        result.PatientAge = age
    for name in EMPTIED:
        setattr(result, name, "")
    for name, dummy in DUMMIES.items():
        setattr(result, name, dummy)
    for name in SHIFTED:
        if name in header or name == "StudyDate":
            setattr(result, name, shifted(text(header, name), key, patient))
    for name in PRESENT:
        if name in header and name not in result:
            setattr(result, name, [] if name.endswith("Sequence") else None)
    result.SOPClassUID = _class_uid(text(header, "SOPClassUID"))
    for name in REPLACED:
        if value := text(header, name):
            setattr(result, name, replaced_uid(value, key, root))
    _mark(result)
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID
    result.file_meta.MediaStorageSOPInstanceUID = result.get("SOPInstanceUID", "")
    result.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    _copy_pixels(header, result)
    return result


def replaced_uid(uid: str, key: bytes, root: str = "2.25") -> str:
    """Another UID, an HMAC of this one: at most 64 characters, no component with a leading zero (PS3.5 9.1).

    Under 2.25 it is the integer of a UUID (version 8, RFC 9562), as PS3.5 B.2 asks.

    Raises:
        ValueError: ``root`` is no UID of at most 24 characters.
    """
    if not re.fullmatch(r"[0-2](\.(0|[1-9]\d*))+", root) or len(root) > 24:
        raise ValueError(f"{root!r} is no UID root of at most 24 characters")
    digest = bytearray(bytes.fromhex(keyed(key, "uid", uid))[:16])
    digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80
    return f"{root}.{uuid.UUID(bytes=bytes(digest)).int}"


def shifted(date: str, key: bytes, patient: str) -> str:
    """A date (DA) moved back by 1 to :data:`SHIFT_DAYS` days, as many for all of a patient's; an empty string for no valid date."""
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", date)
    try:
        day = datetime.date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        day = None
    if day is None or day.year < 1900:
        return ""
    days = 1 + int.from_bytes(hmac.digest(key, b"date shift " + patient.encode(), "sha256")[:8], "big") % SHIFT_DAYS
    return f"{day - datetime.timedelta(days=days):%Y%m%d}"


def describe() -> list[str]:
    """What :func:`deidentified` does, one sentence an action."""
    return [
        f"A DICOM object is written under PS3.15 Annex E: {', '.join(f'{meaning} ({code})' for code, meaning in CODES)}.",
        "Attributes that are not on the allow-list are removed, private ones, overlays and free text included.",
        "Patient's Name and Patient ID become the patient's pseudonym; instance, series, study and frame of reference UIDs become HMACs.",
        f"Study, series, acquisition and content dates are moved back by 1 to {SHIFT_DAYS} days, all of a patient's by as many.",
        "Times, accession number, study ID, birth date and referring physician are emptied.",
        "Patient's Sex, Size and Weight are kept, and Patient's Age with 90 years and above pooled.",
        "Pixel data are decoded and written uncompressed, with unused bits cleared; the picture is not changed.",
    ]


def _mark(result: Dataset) -> None:
    from pydicom.dataset import Dataset

    items = []
    for value, meaning in CODES:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        items.append(item)
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = METHOD[:64]
    result.DeidentificationMethodCodeSequence = items
    result.LongitudinalTemporalInformationModified = "MODIFIED"
    result.SpecificCharacterSet = "ISO_IR 192"


def _class_uid(uid: str) -> str:
    """A SOP Class of the standard; anything else could be an identifier."""
    from pydicom.uid import UID, SecondaryCaptureImageStorage

    return uid if UID(uid).name != uid else str(SecondaryCaptureImageStorage)


def _age(age: str) -> str:
    match = re.fullmatch(r"(\d{3})([DWMY])", age)
    return "" if match is None else ("090Y" if match[2] == "Y" and int(match[1]) >= 90 else age)


def _copy_allowed(source: Dataset, target: Dataset) -> None:
    """What the allow-list passes of one data set; the items of :data:`SEQUENCES` by the same rules."""
    from pydicom.dataset import Dataset

    for tag in list(source.keys()):
        try:
            element = source[tag]
        except Exception:  # values are parsed on first access, and may be anything
            continue
        name, values = element.keyword, element.value
        if name in TERMS:
            kept = [str(value).strip().upper() for value in _several(values)]
            if kept and all(value in TERMS[name] for value in kept):
                setattr(target, name, kept if len(kept) > 1 else kept[0])
        elif name in NUMBERS:
            numbers = [_number(value, NUMBERS[name]) for value in _several(values)]
            if numbers and None not in numbers:
                target.add_new(tag, element.VR, numbers if len(numbers) > 1 else numbers[0])
        elif name in TABLES and isinstance(values, bytes | list) and len(values) >= LEAST_TABLE:
            target.add_new(tag, element.VR, values)
        elif name in SEQUENCES and element.VR == "SQ":
            items = [Dataset() for _ in values]
            for before, after in zip(values, items):
                _copy_allowed(before, after)
            setattr(target, name, items)


def _several(values: Any) -> list[Any]:
    if values is None or values == "":
        return []
    return list(values) if not isinstance(values, str | bytes) and hasattr(values, "__iter__") else [values]


def _number(value: Any, largest: float) -> int | float | None:
    """The number, of seven significant digits at most, or None where it is none or too large."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(found) or abs(found) > largest:
        return None
    return int(found) if isinstance(value, int) else float(f"{found:.7g}")


def _copy_pixels(source: Dataset, target: Dataset) -> None:
    """The frames of ``source``, decoded: uncompressed, as long as declared, unused bits cleared (PS3.5 8.1.1)."""
    import copy

    decoded = copy.copy(source)
    if source.file_meta.TransferSyntaxUID.is_compressed and not source.file_meta.TransferSyntaxUID.is_deflated:
        decoded = copy.deepcopy(source)
        decoded.decompress(generate_instance_uid=False)
    allocated, stored = int(decoded.BitsAllocated), int(decoded.BitsStored)
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated:
        raise ValueError("only 8, 16 and 32 bits a value are written")
    shape = [int(decoded.get(name) or 1) for name in ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel")]
    order = ">" if not source.file_meta.TransferSyntaxUID.is_little_endian else "<"
    count, width = math.prod(shape), allocated // 8
    data = bytes(decoded.PixelData)
    if len(data) < count * width:
        raise ValueError("the pixel data are shorter than the declared image")
    if order == ">" and width == 1 and decoded["PixelData"].VR == "OW":  # bytes in big-endian words
        data = np.frombuffer(data[: len(data) // 2 * 2], "<u2").byteswap().tobytes()
    values = np.frombuffer(data, f"{order}u{width}", count).astype(f"<u{width}")
    values = values >> max(int(decoded.get("HighBit") or stored - 1) - stored + 1, 0)
    used = (1 << stored) - 1
    high = ((values >> (stored - 1)) & 1).astype(bool) if int(decoded.PixelRepresentation) else np.zeros(count, bool)
    values = np.where(high, values | ((1 << allocated) - 1 - used), values & used).astype(f"<u{width}")
    for name in ("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "PixelRepresentation"):
        if name in decoded:
            setattr(target, name, getattr(decoded, name))
    target.HighBit = stored - 1
    data = values.tobytes()
    target.PixelData = data + b"\0" * (len(data) % 2)
    target["PixelData"].VR = "OB" if allocated == 8 else "OW"
