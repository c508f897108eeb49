"""Synthetic images as DICOM Secondary Capture objects that say, in the standard's own attributes, that they are synthetic.

One object an image, each its own synthetic subject and study, so that no viewer or PACS suggests a course of disease that was never
generated. An object is a pure function of pixels, label, id, the cohort's digest and our version: no clock, no host, no random UID, and
nothing that another version of a library would write otherwise. So ``verify`` makes each file again and compares bytes: what a release's
DICOM may hold is what stands here.
"""

from __future__ import annotations

import functools
import io
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pipeline.release.contents import Label, subject
from pipeline.release.rows import Table

MANUFACTURER = "synthcohort"
IMPLEMENTATION = UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, MANUFACTURER).int}")
NAME_PREFIX = "SYNTHETIC^"
SYNTHESIZER = ("109100", "DCM", "Synthesizing Equipment")
_LO = 64  # longest value of VR LO and of a PN component group, PS3.5 section 6.2


def secondary_capture(image: NDArray[np.uint8], *, image_id: str, label: str, cohort: str, version: str, foreign: bool = False) -> Dataset:
    """One synthetic image as a Secondary Capture Image object (PS3.3 A.8.1), ready to be written.

    Args:
        image: ``uint8 [C, H, W]``, C = 1 (becomes MONOCHROME2) or 3 (RGB), 0 = black, 255 = white as displayed.
        image_id: the image's id in the release (:func:`pipeline.release.contents.subject`), which is the synthetic patient's too.
        label: the finding that the image was generated for, as text.
        cohort: digest of the cohort, which makes the UIDs (PS3.5 B.2, root 2.25) unique to it and reproducible.
        version: of this software, as Software Versions (0018,1020) state it.
        foreign: whether the pixels were made elsewhere, and only judged and written by this software.

    Returns:
        A dataset with file meta information: Synthetic Data (0008,001C) = YES (PS3.3 C.12.1), Image Type DERIVED\\SECONDARY, Conversion
        Type SYN (C.8.6.1), and the synthesiser in Contributing Equipment Sequence with purpose (109100, DCM, "Synthesizing Equipment").

    Raises:
        ValueError: another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"image must be uint8 [1 or 3, H, W], not {image.dtype} {image.shape}")
    template = _template(image.shape[0], version, foreign)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.update(template)
    ds.file_meta.update(template.file_meta)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = derived_uid(cohort, "instance", image_id)
    ds.StudyInstanceUID = derived_uid(cohort, "study", image_id)
    ds.SeriesInstanceUID = derived_uid(cohort, "series", image_id)
    ds.PatientName = (NAME_PREFIX + image_id)[:_LO]
    ds.PatientID = image_id[:_LO]
    text = label.replace("\\", "/")  # a backslash separates values in LO
    ds.SeriesDescription = f"Synthetic: {text}"[:_LO]
    ds.ImageComments = f"SYNTHETIC IMAGE: shows no patient, not for diagnosis. Generated for the finding: {text}"
    ds.Rows, ds.Columns = image.shape[1:]
    pixels = np.moveaxis(image, 0, -1).tobytes()
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)  # values have even length, PS3.5 section 8.1.1
    return ds


def dicom_bytes(image: NDArray[np.uint8], **facts: Any) -> bytes:
    """One :func:`secondary_capture` of an image and these facts as a DICOM file (PS3.10, Explicit VR Little Endian), its preamble empty."""
    file = io.BytesIO()
    dcmwrite(file, secondary_capture(image, **facts), enforce_file_format=True)
    return file.getvalue()


def released_bytes(image: NDArray[np.uint8], number: int, label: Label, table: Table, gate: Mapping[str, Any]) -> bytes:
    """The DICOM file of a release's image ``number``, made for ``label``, under the verdict ``gate``."""
    return dicom_bytes(
        image,
        image_id=subject(table.release, number),
        label=table.named(label),
        cohort=gate["digests"]["pixels"],
        version=gate["software"],
        foreign=gate["digests"]["weights"] is None,
    )


def first_difference(expected: bytes, found: bytes) -> str:
    """Where a file departs from the one that :func:`dicom_bytes` made, as words: the name of the attribute that was expected there."""
    place = next((i for i, (one, other) in enumerate(zip(expected, found)) if one != other), min(len(expected), len(found)))
    if place < 132:
        return "its preamble"
    if place == len(expected):
        return "bytes after its end"
    ds = dcmread(io.BytesIO(expected))
    # An attribute begins with its tag, VR and length: 12 bytes before its value for these VRs, 8 for others (PS3.5 section 7.1.2).
    elements = [*ds.file_meta, *ds]
    return [str(e.name) for e in elements if e.file_tell - (12 if e.VR in ("OB", "OW", "SQ") else 8) <= place][-1]


def derived_uid(cohort: str, kind: str, image_id: str) -> UID:
    """A UID below 2.25 (PS3.5 B.2) from a name-based UUID (RFC 9562 version 5) of cohort digest, kind of object and image id."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{cohort}/{kind}/{image_id}').int}")


@functools.lru_cache(8)
def _template(channels: int, version: str, foreign: bool) -> Dataset:
    """All that does not depend on the image; elements are shared between copies, which only ever replace them."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION
    ds.file_meta.ImplementationVersionName = MANUFACTURER.upper()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SyntheticData = "YES"
    # Type 2: present, and empty because nobody was born, examined or referred.
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "PatientSex", "StudyID"):
        setattr(ds, keyword, "")
    ds.PatientOrientation = ""
    ds.Modality = "OT"
    ds.ConversionType = "SYN"
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = MANUFACTURER
    ds.SoftwareVersions = version
    ds.StudyDescription = "Synthetic images"
    made = "Made by a generator elsewhere, and imported" if foreign else "Sampled from a class-conditional diffusion model"
    ds.DerivationDescription = made
    ds.ContributingEquipmentSequence = [_synthesizer(version, foreign)]
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.SamplesPerPixel = channels
    ds.PhotometricInterpretation = "MONOCHROME2" if channels == 1 else "RGB"
    if channels == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    return ds


def _synthesizer(version: str, foreign: bool) -> Dataset:
    """Contributing Equipment Sequence item (PS3.3 C.12.1, CID 7005)."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = SYNTHESIZER
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = MANUFACTURER
    item.SoftwareVersions = version
    item.ContributionDescription = "Judged and wrote pixel data that were generated elsewhere" if foreign else "Generated the pixel data"
    return item
