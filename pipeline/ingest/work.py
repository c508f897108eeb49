"""One task's images as the cohort holds them: read, judged by header and label table, de-identified and standardised."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import keyed
from pipeline.images import ATTRIBUTE
from pipeline.ingest import attributes, patients, pseudonym
from pipeline.ingest.attributes import Value
from pipeline.ingest.deidentify import allow_list, blank, text_guard
from pipeline.ingest.intensity import window
from pipeline.ingest.isolate import MEMORY
from pipeline.ingest.readers import ultrasound
from pipeline.ingest.readers.geometry import Turn
from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.reading import Quarantined, Reading, Unusable
from pipeline.ingest.standardize import Target, clipped, standardize, standardize_volume
from pipeline.ingest.tasks import Task

if TYPE_CHECKING:
    from pipeline.config.ingest import AttributeKind
    from pipeline.ingest.labels import Findings, Labels

MIN_SIDE = 16
# What the models that read text need, and how long reading an image's or a volume's places may take.
READING_MEMORY, READING_SECONDS = 384 << 20, 10.0
# Share of the values, at either end, that may differ in a blank image, and how far the others may: noise of one step either way.
STRAY = 0.005
STEPS = 2.0
# Modalities whose images may show a few bright points and nothing else.
SPARSE = ("NM", "PT")
# Standard deviation of the values as displayed, as a share of the display range, below which it shows nothing.
FAINT = 0.002
# What is needed of an image to judge the cohort, and does not stay in it.
PASSING = ("spelling", "issued", "in_header", "intent")
INTENTS = ("FOR PRESENTATION", "FOR PROCESSING")
BLANK = "the image is blank, or nearly so: it has no contrast"


class Reader(Protocol):
    """``read`` of one of the readers: the images of these files, one for each that the files hold."""

    def __call__(self, paths: Sequence[Path], refuse: Callable[[Header], str | None]) -> Iterator[Reading | Quarantined]:
        """Read."""


class Labeller(Protocol):
    """Which findings an image has."""

    def find(self, file: str, header: Header) -> Findings | Quarantined:
        """Findings by the file's relative path and its header."""


@dataclass(frozen=True)
class Settings:
    """How a task becomes images and rows; it travels to the worker processes.

    Attributes:
        root: the folder of the files.
        read: the reader.
        labels: what names the findings.
        key: of the pseudonyms.
        target: what every image becomes.
        dimensions: 2 for images, 3 for volumes.
        patients: whether an image without a patient is left out; otherwise each image is a patient of its own.
        dicom: whether headers are those of DICOM files, which must say their modality.
        table: the label table, where there is one: it may name the patient, and more.
        burned_in: as in :func:`pipeline.ingest.deidentify.text_guard.refuse_header`.
        mask: as in :func:`pipeline.ingest.deidentify.blank.masked`.
        attributes: as ``ingest.attributes``.
        formerly: whether images get the pseudonyms too that their values had in earlier versions.
    """

    root: Path
    read: Reader
    labels: Labeller
    key: bytes = dataclasses.field(repr=False)
    target: Target
    dimensions: int = 2
    patients: bool = True
    dicom: bool = True
    table: Labels | None = None
    burned_in: text_guard.Policy = "strict"
    mask: tuple[blank.Rectangle, ...] = ()
    attributes: Mapping[str, AttributeKind] = dataclasses.field(default_factory=dict)
    formerly: bool = False

    @property
    def memory(self) -> int:
        """Bytes that a worker may use for a task: a volume needs more than an image."""
        reading = READING_MEMORY if self.burned_in != "declared" else 0
        return (MEMORY if self.dimensions == 2 else 4 * MEMORY) + reading

    @property
    def reading_seconds(self) -> float:
        """Time that reading what looks like text may take, beyond that for a task's files."""
        return READING_SECONDS if self.burned_in != "declared" else 0.0


@dataclass(frozen=True)
class _Told:
    """What labels and label table say of an image, asked once, with its header.

    Attributes:
        line: the line of a table by UID or patient that the header leads to.
        stated: what the table says beside its findings, under names of the header's fields.
        asked: its attributes.
    """

    line: int | None
    stated: dict[str, str] | Quarantined
    findings: Findings | Quarantined
    asked: dict[str, Value]


def work(task: Task, settings: Settings) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """One task's images and their rows, and why others were left out of it: past this point there is no identity."""
    images, rows, left_out = [], [], []
    told: dict[str, _Told] = {}
    refuse = functools.partial(_refuse, task=task, settings=settings, told=told)
    for found in settings.read([settings.root / file for file in task.files], refuse):
        try:
            if isinstance(found, Quarantined):
                raise Unusable(found.reason)
            image, row = _standard(found, told[found.header.sop_instance_uid], settings)
        except Unusable as error:
            left_out.append(str(error))
            continue
        images.append(image)
        rows.append(row)
    lines = sorted({one.line for one in told.values() if one.line is not None})
    # Frames that are left out for one reason give it once.
    return {"rows": rows, "left_out": list(dict.fromkeys(left_out)), "again": [], "lines": lines}, images


def _ask(header: Header, task: Task, settings: Settings) -> _Told:
    line = settings.table.line(header) if settings.table is not None else None
    return _Told(line, _stated(header, task, settings), _findings(header, task, settings), _asked(header, task, settings))


def _asked(header: Header, task: Task, settings: Settings) -> dict[str, Value]:
    """An image's attributes; of a volume's files, what all that say something agree on."""
    asked = attributes.unknown(settings.attributes)
    for name in task.files if settings.table is not None and settings.attributes else ():
        assert settings.table is not None
        found = settings.table.entry(name, header)
        if found is not None and not isinstance(found, str):
            asked = attributes.merged(asked, found.asked)
    return asked


def _findings(header: Header, task: Task, settings: Settings) -> Findings | Quarantined:
    """What the labels say of an image; a volume's files must not contradict each other."""
    found = [settings.labels.find(name, header) for name in task.files]
    known = {one for one in found if not isinstance(one, Quarantined)}
    if len(known) > 1:
        return Quarantined("contradictory labels for the files of its series in the label table")
    return known.pop() if known else found[0]


def _stated(header: Header, task: Task, settings: Settings) -> dict[str, str] | Quarantined:
    """What the label table says of an image beside its findings; a volume's files must be one patient's."""
    stated: dict[str, str] = {}
    for name in task.files if settings.table is not None else ():
        assert settings.table is not None
        found = settings.table.entry(name, header)
        if isinstance(found, str):
            return Quarantined(found)
        said = found.stated if found is not None else {}
        ids = [patients.canonical(one["patient_id"]) for one in (stated, said) if "patient_id" in one]
        if len(set(ids)) > 1:
            return Quarantined("several patients for the files of its series in the label table")
        stated = {**said, **stated}
    return stated


def _refuse(header: Header, task: Task, settings: Settings, told: dict[str, _Told]) -> str | None:
    """Why an image is not wanted, told by its header alone; what labels and label table say goes under its SOP Instance UID."""
    asked = told[header.sop_instance_uid] = _ask(header, task, settings)
    if not header.sop_instance_uid:
        return "no SOP Instance UID: give it one, or export it again"
    if settings.dicom and header.modality not in allow_list.MODALITIES:
        if not header.modality:
            return "its header has no Modality: set it to what it is (CT, MR, DX, ...)"
        return "its Modality is not that of an image of the body (a whole slide, a segmentation, a report, ...): keep such files elsewhere"
    if isinstance(asked.stated, Quarantined):
        return asked.stated.reason
    if isinstance(asked.findings, Quarantined):
        return asked.findings.reason
    if settings.patients and not patients.canonical(asked.stated.get("patient_id") or header.patient_id):
        return "no Patient ID: nobody could tell which other images are the same patient's; give it one"
    if (why := text_guard.refuse_header(header, settings.burned_in)) is not None:
        return why
    return None


def _standard(reading: Reading, told: _Told, settings: Settings) -> tuple[NDArray[Any], dict[str, Any]]:
    header, stated = reading.header, told.stated
    assert isinstance(stated, dict)
    # Before the pixels are blanked, cropped and standardised in place: whose an image is does not hang on what is asked for, or a mask
    # would make the cohort another one, with other splits and no attempts.
    names = pseudonym.both(reading.pixels, settings.key, formerly=settings.formerly)
    # Before anything else looks at the pixels; rectangles are shares of the whole picture, as stored, so the crop comes after them.
    if settings.mask:
        mask = [Turn.named(reading.turned).rectangle(one) for one in settings.mask]
        reading = dataclasses.replace(reading, pixels=blank.masked(reading.pixels, mask))
    reading = ultrasound.cropped(reading)
    if min(reading.pixels.shape[-2:]) < MIN_SIDE:
        raise Unusable(f"smaller than {MIN_SIDE} pixels")
    # A thousand of the values tell of most images that they are not blank, in a fraction of the time that all take.
    few = _known(reading.pixels[..., :: max(1, reading.pixels.shape[-2] // 32), :: max(1, reading.pixels.shape[-1] // 32)])
    if _blank(few, header.modality in SPARSE) and _blank(_known(reading.pixels), header.modality in SPARSE):
        raise Unusable(BLANK)
    if (why := text_guard.refuse_pixels(reading.pixels, settings.burned_in)) is not None:
        raise Unusable(why)
    said: dict[str, Any] = {**stated}  # the label table wins over the header
    joined = dataclasses.replace(header, **said) if said else header
    kept = {**vars(allow_list.keep(joined, settings.key)), **_passing(header, stated, settings)}
    if reading.frame is not None:
        kept["id"] = keyed(settings.key, "frame", kept["id"], str(reading.frame))[:16]
    if not settings.patients:
        kept["patient"] = None if settings.dicom else names["values"]
    low, high = window(reading, kept["modality"], settings.target.scaling)
    if kept["modality"] not in SPARSE and _faint(few, low, high) and _faint(_known(reading.pixels), low, high):
        raise Unusable(BLANK)
    spacing: float | None
    if reading.kind == "volume":
        image, spacing, _ = standardize_volume(reading, low, high, settings.target)
    else:
        mm = reading.spacing[0] if reading.spacing else None
        image, ratio = standardize(reading.pixels, low, high, settings.target, reading.aspect, mm, overwrite=True)
        spacing = mm * ratio if mm else None
    row = {
        **kept,
        "content": kept["id"] if settings.dicom else names["values"],
        **names,
        "findings": told.findings,
        **{ATTRIBUTE + name: value for name, value in told.asked.items()},
        "turned": reading.turned,
        "spacing_mm": spacing,
        "intensity_low": low if reading.linear else None,
        "intensity_high": high if reading.linear else None,
    }
    return image, row


def _passing(header: Header, stated: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """:data:`PASSING`: digests of how the patient's id is spelled, of the id with its issuer, and of the header's id where a table wins
    over it, or nobody asks for patients; and for which use the image was made (PS3.3 C.8.11.1)."""
    intent = header.presentation_intent_type if header.presentation_intent_type in INTENTS else ""
    who = patients.canonical(header.patient_id)
    if not settings.patients:
        named = keyed(settings.key, "patient", who)[:16] if who else ""
        return dict.fromkeys(PASSING, "") | {"in_header": named, "intent": intent}
    in_table = stated.get("patient_id", "")
    issuer = patients.canonical(header.issuer_of_patient_id) if not in_table else ""
    return {
        "spelling": keyed(settings.key, "spelling", in_table or header.patient_id)[:16],
        "issued": keyed(settings.key, "issued", who, issuer)[:16] if issuer else "",
        "in_header": keyed(settings.key, "patient", who)[:16] if in_table and who else "",
        "intent": intent,
    }


def _blank(known: NDArray[np.float32], sparse: bool) -> bool:
    """Whether all values are one, or all but :data:`STRAY` of them at either end, or differ by no more than whole :data:`STEPS`. ``sparse``
    images are blank only where all values are one."""
    if not known.size:
        return True
    stray = 0 if sparse else int(STRAY * known.size)
    ordered = np.partition(known, [stray, known.size - 1 - stray])
    low, high = float(ordered[stray]), float(ordered[-1 - stray])
    whole = low.is_integer() and high.is_integer() and not sparse
    return not high - low > (STEPS if whole else 0)  # NaN where both are infinite


def _faint(known: NDArray[np.float32], low: float, high: float) -> bool:
    """Whether the display range leaves nothing of values to be seen."""
    return not known.size or bool(clipped(known, low, high).std() < FAINT * abs(high - low))


def _known(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values without NaN, ``[n]``."""
    return values[~np.isnan(values)]
