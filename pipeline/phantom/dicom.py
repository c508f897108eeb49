"""Write a phantom cohort as a hospital would export it: DX files in folders by patient, full of identity, some broken.

The images are Digital X-Ray Image Storage - For Presentation (PS3.3 A.26): 12 bits unsigned in 16, one window that maps the
stored range back to the displayed one.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RLELossless,
)

from pipeline.phantom import identity
from pipeline.phantom.anatomy import FINDINGS, SITES, Patient
from pipeline.phantom.encoding import PRIVATE, Encapsulated, part10
from pipeline.phantom.identity import INSTITUTIONS, SERIALS, STATIONS, Identity, VisitIdentity, invented_identity
from pipeline.phantom.image import render
from pipeline.system import end_with_parent, worker_processes

COLUMNS = ("file", "patient_id", "sop_instance_uid", "label", "side", "size_mm", "severity", "report")
BROKEN = {
    "INCOMING/transfer_0001.dcm": "truncated DICOM",
    "INCOMING/readme.dcm": "text, not DICOM",
    "INCOMING/report_0001.dcm": "structured report without pixels",
    "INCOMING/transfer_0002.dcm": "empty file",
}
STORED = ((160, 3840), (240, 4000))
"""Least and greatest stored value that an image of each site uses."""
RLE_SHARE, DEFLATED_SHARE = 0.02, 0.02
FEW = 200
"""Patients from which on starting processes pays."""
Row = tuple[str, ...]


def write_cohort(folder: Path, patients: list[Patient], seed: int, size: int = 96, workers: int = 1, several: bool = False) -> int:
    """Write every image, ``labels.csv`` and a few broken files below ``folder``; byte-identical for the same arguments.

    The first image of the last patient is written without a row in ``labels.csv``; the files of :data:`BROKEN` have none
    either. ``file`` in the table is relative to ``folder``, with forward slashes.

    Args:
        patients: any patients; their order gives the order of the rows.
        seed: of the invented identities and UIDs.
        size: side of the images in pixels.
        workers: processes that draw; no byte depends on it.
        several: whether the table has a column for each finding instead of ``label``.

    Returns:
        Number of images that have a label.

    Raises:
        ValueError: there are no patients.
    """
    if not patients:
        raise ValueError("a cohort needs at least one patient")
    folder.mkdir(parents=True, exist_ok=True)
    write = functools.partial(_write_patient, folder, seed, size, several)
    with contextlib.ExitStack() as stack:
        each: Iterable[list[Row]]
        if workers > 1 and len(patients) >= FEW:
            pool = stack.enter_context(ProcessPoolExecutor(workers, worker_processes(), _alone))
            stack.callback(pool.shutdown, cancel_futures=True)  # where the drawing is interrupted, the rest is not drawn
            each = pool.map(write, patients, chunksize=16)
        else:
            each = map(write, patients)
        rows = [row for patient in each for row in patient]
    unlabelled = len(rows) - len(patients[-1].visits)
    del rows[unlabelled]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        findings = FINDINGS if several else ("label",)
        table.writerow((*COLUMNS[:3], *findings, *COLUMNS[4:]))
        table.writerows(rows)
    _write_broken(folder, patients[0], seed, size)
    return len(rows)


def _alone() -> None:
    """One thread a worker, and no end but with the parent's."""
    import threadpoolctl

    end_with_parent()
    threadpoolctl.threadpool_limits(1)


def _write_patient(folder: Path, seed: int, size: int, several: bool, patient: Patient) -> list[Row]:
    """A patient's files; their rows of the label table."""
    person = invented_identity(patient, seed)
    rows: list[Row] = []
    for number, (visit, place) in enumerate(zip(patient.visits, person.visits, strict=True)):
        path = _path(patient, person, place)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(_image_file(patient, person, number, seed, size))
        findings = [str(int(name in visit.sizes_mm)) for name in FINDINGS] if several else [visit.finding]
        truth = (*findings, visit.side, f"{visit.size_mm:.1f}", f"{visit.severity:.3f}", visit.report)
        rows.append((path.as_posix(), person.patient_id, place.image_uid, *truth))
    return rows


def planted_identities(patients: list[Patient], seed: int) -> set[str]:
    """Every identifying string that :func:`write_cohort` writes for these arguments.

    Names appear as DICOM writes them, in reading order and by component; of anything shorter than four letters only the
    whole is listed. Dates are DICOM's eight digits: look for them between characters that are not digits, for the decimals
    of any float may hold eight such digits by chance.
    """
    planted = {*INSTITUTIONS, *SERIALS, *STATIONS, *(name.replace(" ", "_") for name in INSTITUTIONS)}
    planted |= {Path(name).name for name in BROKEN} | {identity.uid(seed, "report")}
    for patient in patients:
        person = invented_identity(patient, seed)
        names = (person.name, person.spoken, *person.others)
        planted.update(names)
        planted.update(part for name in names for part in re.split(r"[\^= ]", name) if len(part) >= 4)
        planted |= {person.folder, person.patient_id, person.other_id, person.birth_date, person.address, person.phone, person.insurance}
        planted |= {person.address.split(", ")[0], person.address.split(", ")[1], _note(person)}
        for place in person.visits:
            planted |= {
                place.date,
                place.date + place.time,
                place.time,
                place.accession,
                place.study_id,
                place.folder,
                place.file.removesuffix(".dcm"),
            }
            planted |= {place.study_uid, place.series_uid, place.image_uid}
    return planted


def _path(patient: Patient, person: Identity, place: VisitIdentity) -> Path:
    return Path(INSTITUTIONS[patient.site].replace(" ", "_"), person.folder, place.folder, place.file)


def _note(person: Identity) -> str:
    return f"{person.spoken} called from {person.phone}"


def _image_file(patient: Patient, person: Identity, number: int, seed: int, size: int) -> bytes:
    """One DX file. A few use RLE or a deflated stream, as archives do."""
    dark, bright = STORED[patient.site]
    shown = render(patient, number, size)
    shown = 1 - shown if SITES[patient.site].monochrome1 else shown
    stored = np.rint(dark + shown * np.float32(bright - dark)).astype("<u2")
    draw = np.random.default_rng([seed, patient.index, 8, number]).random()
    syntax, pixels = ExplicitVRLittleEndian, stored.tobytes()
    if draw < RLE_SHARE:
        syntax, pixels = RLELossless, _run_length(stored)
    elif draw < RLE_SHARE + DEFLATED_SHARE:
        syntax = DeflatedExplicitVRLittleEndian
    elements = {**_identity_elements(patient, person, number, seed), **_equipment(patient.site, size)}
    elements["PixelData"] = Encapsulated(pixels) if syntax == RLELossless else pixels
    return part10(elements, syntax, person.charset)


def _run_length(stored: NDArray[Any]) -> bytes:
    rows, columns = stored.shape
    frame = RLELosslessEncoder.encode(
        stored.tobytes(), encoding_plugin="pydicom", rows=rows, columns=columns, samples_per_pixel=1, bits_allocated=16, bits_stored=12,
        pixel_representation=0, number_of_frames=1, photometric_interpretation="MONOCHROME2",
    )  # fmt: skip
    return encapsulate([frame], has_bot=True)


def _identity_elements(patient: Patient, person: Identity, number: int, seed: int) -> dict[str, Any]:
    """Patient, study, series and instance with all that identifies: plain, nested and private elements."""
    visit, place = patient.visits[number], person.visits[number]
    referring, performing, reading, operator = person.others
    earlier = person.visits[number - 1] if number else place
    institution = INSTITUTIONS[patient.site]
    created = place.date + place.time
    return {
        "SpecificCharacterSet": person.charset,
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": place.image_uid,
        **{f"{what}Date": place.date for what in ("Study", "Series", "Acquisition", "Content", "InstanceCreation")},
        **{f"{what}Time": place.time for what in ("Study", "Series", "Acquisition", "Content", "InstanceCreation")},
        "AcquisitionDateTime": created,
        "AccessionNumber": place.accession,
        "InstitutionName": institution,
        "InstitutionAddress": f"1 {institution} Campus",
        "ReferringPhysicianName": referring,
        "PerformingPhysicianName": performing,
        "NameOfPhysiciansReadingStudy": reading,
        "OperatorsName": operator,
        "StudyDescription": f"Chest PA {person.spoken}",
        "ReferencedStudySequence": [_reference("1.2.840.10008.3.1.2.3.1", earlier.study_uid)],
        "PatientName": person.name,
        "PatientID": person.patient_id,
        "PatientBirthDate": person.birth_date,
        "PatientSex": patient.sex,
        "PatientAge": f"{patient.age + visit.day // 365:03d}Y",
        "OtherPatientIDsSequence": [
            {"PatientID": person.other_id, "IssuerOfPatientID": institution, "TypeOfPatientID": "TEXT"},
            {"PatientID": person.insurance, "TypeOfPatientID": "TEXT"},
        ],
        "PatientAddress": person.address,
        "PatientTelephoneNumbers": person.phone,
        "PatientComments": _note(person),
        "AdditionalPatientHistory": f"Seen by {referring.replace('^', ' ').strip()}",
        "StudyInstanceUID": place.study_uid,
        "SeriesInstanceUID": place.series_uid,
        "StudyID": place.study_id,
        "ImageComments": f"{visit.report} {person.spoken}, {place.accession}",
        "RequestingPhysician": referring,
        "RequestAttributesSequence": [
            {
                "AccessionNumber": place.accession,
                "ReferencedStudySequence": [_reference("1.2.840.10008.3.1.2.3.1", place.study_uid)],
                "StudyInstanceUID": place.study_uid,
                "RequestedProcedureDescription": f"Chest for {person.spoken}",
                "ScheduledProcedureStepID": place.study_id,
                "RequestedProcedureID": place.study_id,
            }
        ],
        "OriginalAttributesSequence": [
            {
                "AttributeModificationDateTime": created,
                "ModifyingSystem": SERIALS[patient.site],
                "SourceOfPreviousValues": institution,
                "ReasonForTheAttributeModification": "COERCE",
                "ModifiedAttributesSequence": [{"PatientName": person.name, "PatientID": person.other_id}],
            }
        ],
        PRIVATE: (
            (0x0011, 0x0010, "LO", "PHANTOM PACS 2.1"),
            (0x0011, 0x1001, "LO", person.spoken),
            (0x0011, 0x1002, "UN", f"{person.patient_id} {person.address}".encode()),
            (0x0011, 0x1003, "SQ", [{"PatientName": person.name, "PatientBirthDate": person.birth_date, "PatientAddress": person.address}]),
        ),
    }  # fmt: skip


def _reference(sop_class: str, instance: str) -> dict[str, Any]:
    return {"ReferencedSOPClassUID": sop_class, "ReferencedSOPInstanceUID": instance}


@functools.lru_cache(maxsize=8)
def _equipment(site: int, size: int) -> Mapping[str, Any]:
    """What is the same for every image of a site: DX modules of PS3.3 C.8.11 and the pixel description."""
    detector = SITES[site]
    dark, bright = STORED[site]
    pitch = f"{detector.field_mm / size:.6f}"
    return {
        "ImageType": "ORIGINAL\\PRIMARY\\",
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "Manufacturer": "Phantom Imaging",
        "ManufacturerModelName": ("Flat Panel A", "Storage Phosphor B")[site],
        "StationName": STATIONS[site],
        "DeviceSerialNumber": SERIALS[site],
        "SoftwareVersions": "1.0",
        "SeriesDescription": "Chest PA",
        "AnatomicRegionSequence": [_code("816094009", "SCT", "Chest")],
        "ViewCodeSequence": [_code("272479007", "SCT", "Postero-anterior projection")],
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientOrientation": "L\\F",
        "ImageLaterality": "U",
        "KVP": "120",
        "DistanceSourceToDetector": "1800",
        "DetectorType": ("DIRECT", "STORAGE")[site],
        "DetectorID": f"{SERIALS[site]}-D",
        "PositionerType": "COLUMN",
        "ImagerPixelSpacing": f"{pitch}\\{pitch}",
        "PixelSpacing": f"{pitch}\\{pitch}",
        "SeriesNumber": "1",
        "InstanceNumber": "1",
        "AcquisitionContextSequence": [],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1" if detector.monochrome1 else "MONOCHROME2",
        "Rows": size,
        "Columns": size,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "BurnedInAnnotation": "NO",
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": 1 if detector.monochrome1 else -1,
        # Maps `dark` to the least and `bright` to the greatest displayed value (PS3.3 C.11.2.1.2).
        "WindowCenter": f"{(dark + bright + 1) / 2:.1f}",
        "WindowWidth": f"{bright - dark + 1}",
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "INVERSE" if detector.monochrome1 else "IDENTITY",
    }


def _code(value: str, scheme: str, meaning: str) -> dict[str, Any]:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def _write_broken(folder: Path, patient: Patient, seed: int, size: int) -> None:
    """The files of :data:`BROKEN`, about the given patient's first visit."""
    person = invented_identity(patient, seed)
    whole = _image_file(patient, person, 0, seed, size)
    elements = _identity_elements(patient, person, 0, seed)
    elements |= {
        "SOPClassUID": BasicTextSRStorage,
        "SOPInstanceUID": identity.uid(seed, "report"),
        "Modality": "SR",
        "SeriesNumber": "2",
        "InstanceNumber": "1",
        "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE",
        "CompletionFlag": "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "ConceptNameCodeSequence": [_code("18747-6", "LN", "Chest X-ray report")],
        "ContentSequence": [
            {
                "RelationshipType": "CONTAINS",
                "ValueType": "TEXT",
                "ConceptNameCodeSequence": [_code("121071", "DCM", "Finding")],
                "TextValue": f"{person.spoken}: {patient.visits[0].report}",
            }
        ],
    }
    report = part10(elements, ExplicitVRLittleEndian, person.charset)
    contents = (whole[: len(whole) * 3 // 5], f"Transfer log for {person.spoken}\n".encode(), report, b"")
    for name, content in zip(BROKEN, contents, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
