"""What a plan can know of a cohort within a second: its paths, its label table and its folders, without opening an image."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import phantom
from pipeline.config import IngestConfig
from pipeline.errors import InputError
from pipeline.ingest import class_folders, patients, source, table
from pipeline.ingest.labels import Labels, passed_over


@dataclass(frozen=True)
class Glance:
    """What was seen.

    Attributes:
        unit: ``patient``, or ``image`` where patients are unknown.
        units: patients, or images; None where only the images' headers tell.
        classes: their number; None where it is not known yet.
        train: images of a published training split; None where there is none.
        images: how many there are, or files that may be some; None where it is not known yet.
        notes: what a person should know.
    """

    unit: str
    units: int | None
    classes: int | None
    train: int | None = None
    images: int | None = None
    notes: tuple[str, ...] = ()


def glance(ingest: IngestConfig) -> Glance:
    """Look at the source that the section names.

    Raises:
        InputError: a path is not there, the label table cannot be read, or a class has no folder.
    """
    if ingest.source == "phantom":
        return Glance("patient", ingest.phantom_patients, *_phantom(ingest.phantom_patients, ingest.several_findings))
    if ingest.source == "medmnist":
        return _published(ingest)
    if ingest.source == "dicomweb":
        return Glance("patient", None, len(ingest.classes or ()), notes=("how many patients the PACS has to the query, ingest tells",))
    names = source.listed(ingest)
    path = table.chosen(source.folder(ingest), ingest.labels)
    classes = ingest.classes or ()
    by_patient, listed = ingest.source == "dicom", None
    if path.is_file() and ingest.label_field is None and not passed_over(ingest, path, classes, list(names)):
        listed = Labels.load(path, classes, ingest.several_findings, "optional" if ingest.source == "pictures" else "needed")
        by_patient = by_patient or listed.names_patients()
    by_folder = ingest.source == "pictures" and (listed is None or not listed.labelled)
    notes = class_folders.unmatched(classes, list(names)) if by_folder else []
    images = sum(not name.lower().endswith(source.NO_IMAGES) for name in names)
    if not by_patient:
        return Glance("image", images, len(classes), None, images, (*notes, "no patient_id: images are SPLIT ONE BY ONE"))
    found = table.read(path) if listed is not None else None
    named = set() if found is None else {patients.canonical(value) for value in found.values("patient_id")} - {""}
    if named:
        return Glance("patient", len(named), len(classes), None, images, tuple(notes))
    told = f"the headers tell how many patients there are: synthcohort init {source.folder(ingest)} counts them"
    return Glance("patient", None, len(classes), None, images, (*notes, told))


def _phantom(patients: int, several: bool) -> tuple[int, None, int]:
    """Classes, no published split, and images: on the average of a patient's visits."""
    images = round(patients * sum((1 + more) * share for more, share in enumerate(phantom.VISITS)))
    return len(phantom.FINDINGS if several else phantom.CLASSES), None, images


def _published(ingest: IngestConfig) -> Glance:
    """A MedMNIST set, if its file is there already."""
    from pipeline.ingest.readers import archive

    path = source.locations(ingest)["ingest.path"]
    if not path.is_file():
        return Glance("image", None, None, notes=(f"{path} is not there yet: ingest downloads it",))
    try:
        counts = archive.counts(path)
    except archive.NotAnArchive as error:
        raise InputError(f"{path}: {error}: delete it, and it is downloaded again") from None
    total = sum(counts.values())
    return Glance("image", total, None, counts.get("train"), total)
