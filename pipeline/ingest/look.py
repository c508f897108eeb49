"""A first look at somebody's data, before there is a configuration: what it is, which classes it has, and how many patients.

It reads with ingest's own readers, label tables and rules of who is one patient, so that what it finds is what ingest will find. Pixels
are decoded of a few files only; headers of DICOM are read where nothing else says who the patients are.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config import IngestConfig
from pipeline.errors import InputError
from pipeline.ingest import class_folders, marks, matching, notes, patients, quarantine, source, table
from pipeline.ingest.isolate import Answer, isolated
from pipeline.ingest.labels import Entry, FolderLabels, Labels, class_counts, finding_names, has_labels, says_nothing, unread
from pipeline.ingest.readers import nifti
from pipeline.ingest.readers.archive import is_archive
from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.reading import Quarantined
from pipeline.ingest.survey import Survey, survey
from pipeline.ingest.table import KEYS

Source = Literal["dicom", "nifti", "pictures", "medmnist"]
HEADERS = 10_000
"""DICOM headers that are read, at the most, evenly over the files: some seconds."""
WORKBOOKS = (".xlsx", ".xls", ".ods")
NO_CLASSES = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing|holdout|fold|split|part|batch)[\W_]*(set|data|images)?[\W_]*\d*|"
    r"(image|img|picture|mask|label|annotation|segmentation)s?"
)
"""Folders of the uppermost level that are called after parts of a data set, folded."""


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        source: how ingest reads it.
        path: the folder, absolute.
        dataset: MedMNIST's flag.
        files: images, or files that may be some; slices and frames are not told apart from images.
        side: longest side of the images looked at, in pixels.
        colour: whether any of them has colour.
        modality: as DICOM calls it; an empty string where the files do not say.
        table: name of the label table; None where there is none.
        images: images of each class, in the order of the classes.
        people: patients of each class; None where nobody says who they are, and images are split one by one.
        patients: all of them; None as for ``people``.
        unlabelled: files without a label.
        headers: how many DICOM headers were read, where these were not all: ``people`` and ``patients`` are then the least there can be.
        train: images in the published training split; None for what has none.
        several: whether an image can have several of the classes, or none: findings.
        workbook: name of a workbook beside the images, which is not read; None where there is none, or a table.
        unread: columns of the table that are not read, with the reason of those that are nearly findings.
        notes: what was assumed of the table, and what of it leads to nothing.
    """

    source: Source
    path: Path
    dataset: str | None
    files: int
    side: int
    colour: bool
    modality: str
    table: str | None
    images: Mapping[str, int]
    people: Mapping[str, int] | None = None
    patients: int | None = None
    unlabelled: int = 0
    headers: int | None = None
    train: int | None = None
    several: bool = False
    workbook: str | None = None
    unread: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def labelled(self) -> int:
        """Images with a label."""
        return self.files - self.unlabelled


def look(path: Path) -> Found:
    """What a folder of DICOM files, NIfTI volumes or pictures is, or a MedMNIST ``.npz``.

    Raises:
        InputError: it is none of them, or nothing says which class an image is of; the message says what to do.
    """
    root = path.expanduser().resolve()
    if root.is_file():
        return _published(path, root)
    if root.is_dir() and (archives := sorted(root.glob("*.npz"))):
        raise InputError(f"{path} holds {len(archives)} .npz file(s): give the one that is meant, such as {path / archives[0].name}")
    found = survey(root, "FOLDER", ("pictures", "dicom", "nifti"))
    if found.kind == "release":
        raise InputError(f"{path} is a release of synthetic images: synthcohort verify {path} checks it; give a folder of real ones")
    assert found.kind != "archive"
    names = _images(root, found.kind)
    file, stray = _table(root, found.kind, names)
    classes, several = _classes(root, file, found, names)
    listed = None if file is None else Labels.load(file, classes, several, "optional").matched(names)
    headers = _headers(root, names, found.kind, listed)
    images, people, everybody, refused, nobody = _counted(names, headers or {}, listed, classes)
    if refused.total() == len(names):
        raise InputError(
            f"none of {len(names)} files has a class{f' by {file.name}' if file is not None else ''}: {refused.most_common(1)[0][0]}; "
            f"write the names as they are from the folder on, such as img/0001.png, one row for each"
        )
    few = HEADERS if headers is not None and len(names) > HEADERS else None
    unlabelled = refused.total()
    if few and listed is not None and listed.column != "file":
        images, unlabelled = {label: round(count * len(names) / few) for label, count in images.items()}, 0
    return Found(
        source=found.kind,
        path=root,
        dataset=None,
        files=len(names),
        side=found.side,
        colour=found.colour,
        modality=found.modality,
        table=None if file is None else file.name,
        images=images,
        people={label: len(who) for label, who in people.items()} if everybody else None,
        patients=len(everybody) or None,
        unlabelled=unlabelled,
        headers=few,
        several=several,
        workbook=_workbook(root) if file is None else None,
        unread=() if file is None else unread(file, classes if several else ()),
        notes=[*stray, *_notes(listed, file, classes, names, refused), *_without(nobody if everybody and not few else 0)],
    )


def _without(images: int) -> list[str]:
    return [f"images without a patient id, left out: {images}; a merged cell of a spreadsheet leaves all but its first row empty"] * bool(
        images
    )


def _notes(listed: Labels | None, file: Path | None, classes: Sequence[str], names: Sequence[str], refused: Counter[str]) -> list[str]:
    told = [f"left out: {quarantine.commonest(refused.elements())}"] if refused else []
    if listed is not None and file is not None:
        told += [*listed.notes, *notes.unmatched(file.name, list(listed.unmatched.values()), listed.rows)]
    return told if listed is not None and listed.labelled else [*told, *class_folders.unmatched(classes, names), *_turned_over(names)]


def _turned_over(names: Sequence[str]) -> list[str]:
    """A sentence on folders that all hold folders of the same names, as those of patients do that hold the classes."""
    below: dict[str, set[str]] = {}
    for parts in (PurePosixPath(name).parts for name in names):
        if len(parts) > 1:
            below.setdefault(parts[0], set()).update(map(table.folded, parts[1:-1][:1]))
    same = set[str].intersection(*below.values()) if below else set()
    if len(same) < 2:
        return []
    return [
        f"each folder holds folders of the same {len(same)} names: if those are the classes, write a labels.csv with file,label,patient_id"
    ]


def _published(path: Path, file: Path) -> Found:
    """A MedMNIST set."""
    if not is_archive(file):
        raise InputError(f"{path} is a file: give the folder that holds the images, or an .npz of MedMNIST")
    from pipeline.ingest.readers import medmnist

    flag, _, side = file.stem.partition("_")
    if file.suffix.lower() != ".npz":
        raise InputError(f"{path} is an archive: unpack it into a folder, and give that")
    if flag not in medmnist.MODALITY or (side and not side.isdecimal()):
        raise InputError(
            f"{path} is not named like a MedMNIST set, such as breastmnist.npz or breastmnist_64.npz: name it so, or unpack it into a "
            f"folder of pictures for each class"
        )
    found = medmnist.read(IngestConfig(source="medmnist", dataset=flag, path=file.parent, size=int(side or 28)), file)
    return Found(
        source="medmnist",
        path=file.parent,
        dataset=flag,
        files=len(found.split),
        side=found.shape[-1],
        colour=found.shape[0] == 3,
        modality=found.modality,
        table=None,
        images=dict(zip(found.classes, found.findings.sum(axis=0).tolist())),
        train=int((found.split == "train").sum()),
        several=bool((found.findings.sum(axis=1) != 1).any()),
    )


def _images(root: Path, kind: str) -> list[str]:
    """Relative POSIX paths of what may be images."""
    names = [name for name, _ in source.regular_files(root)]
    if kind == "nifti":
        return [files[0] for files in nifti.paired([name for name in names if name.lower().removesuffix(".gz").endswith(nifti.ENDINGS)])]
    return [name for name in names if not name.lower().endswith(source.NO_IMAGES)]


def _table(root: Path, kind: str, names: Sequence[str]) -> tuple[Path | None, Sequence[str]]:
    """The label table, None where no table lies beside the images; and a sentence on one that lies beside class folders and is not read."""
    path, tables = table.chosen(root), table.beside(root)
    if not tables:
        return None, ()
    looked = path if path in tables else tables[0]
    columns = table.read(looked).columns
    if kind == "pictures" and _may_be_classes(class_folders.counted(names)) and says_nothing(looked):
        told = f"{looked.name} is not read: none of its columns is called label or patient_id, or none names the files and is called file"
        return None, [told]
    needed = KEYS if kind == "dicom" else KEYS[:1]
    if not set(needed) & set(columns):
        asked = f"none of the columns {', '.join(needed)}" if kind == "dicom" else "no column file"
        raise InputError(f"{looked.name} has {asked}: {_named_else(looked, names)}")
    return path, ()


def _named_else(path: Path, names: Sequence[str]) -> str:
    """What to do about a table none of whose columns is called as that of the files is."""
    found = table.read(path)
    if not found.columns and (line := table.header_line(path)):
        return (
            f"its header seems to be on line {line}: delete the lines above it"
            if line > 1
            else "values are parted by commas, semicolons, tabs or bars, and a line is not quoted as a whole: save it so"
        )
    for column in found.columns:
        keys = [matching.posix(value) for value in found.values(column) if value]
        if column and 2 * sum(map(bool, matching.files_of(keys, names))) > len(keys) > 0:
            return f"its column {column[:40]!r} has the files' names: call it 'file'"
    return "name the column with the files' names 'file'"


def _classes(root: Path, file: Path | None, found: Survey, names: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """The class names, by the table or by folder, and whether an image can have several of them."""
    labelled = file is not None and has_labels(file)
    folders = class_folders.counted(names) if found.kind == "pictures" and not labelled else {}
    if file is not None and not _may_be_classes(folders) and (findings := finding_names(file)):
        return findings, True
    if file is not None and labelled:
        if not (classes := class_counts(file)):
            raise InputError(f"{file.name}: its column 'label' is empty: write the class of every image there")
        few = sum(count < class_folders.LEAST for count in classes.values())
        if len(classes) > class_folders.MOST and 2 * few > len(classes):
            raise InputError(
                f"{file.name}: its column 'label' has {len(classes)} different values, {few} of them in fewer than "
                f"{class_folders.LEAST} rows, which are no classes: write one of a few classes there, such as a range for a number"
            )
        return _at_least_two(tuple(sorted(classes)), file.name), False
    if file is not None and len(folders) < 2:
        told = ", ".join(name[:40] for name in table.read(file).columns[:8] if name)
        near = ", ".join([column for column in unread(file, ()) if "(" in column][:8])
        raise InputError(
            f"{file.name} has the columns {told}, and none is called label: call the one with the classes so, or give a column of 1 and 0 "
            f"for each of several findings{f' (nearly such: {near})' if near else ''}"
        )
    sheet = f"; {name} is a workbook, which is not read: save its sheet as labels.csv" if (name := _workbook(root)) else ""
    if found.kind != "pictures":
        raise InputError(
            f"no label table in {root}: put a labels.csv there with the columns file,label (and patient_id where the files do not say), "
            f"a row for each image{sheet}"
        )
    if not folders or sum("/" not in name for name in names) > len(names) / 2:
        raise InputError(
            f"nothing says which class the pictures in {root} are of: sort them into a folder for each class, or put a labels.csv beside "
            f"them with the columns file,label{sheet}"
        )
    if len(folders) == 1 and any(len(PurePosixPath(name).parts) > 2 for name in names):
        raise InputError(f"{root} holds one folder, so that all images would be of one class: give {root / next(iter(folders))}")
    if len(parts := _parts(folders)) > 1:
        raise InputError(
            f"{root} holds {', '.join(parts)}, which are splits or parts of a set and no classes: splits are drawn by patient, so put all "
            f"class folders into one folder, or give one such as {root / parts[0]}"
        )
    if len(folders) > class_folders.MOST:
        raise InputError(
            f"{len(folders)} folders in {root} are too many to be classes, and are patients or studies: put a labels.csv beside them "
            f"with the columns file,label,patient_id"
        )
    return _at_least_two(tuple(sorted(set(marks.spellings(folders).values()))), "the folders' names"), False


def _workbook(root: Path) -> str | None:
    """A workbook beside the images, of which a person may think that it is the label table."""
    return next((path.name for path in sorted(root.iterdir()) if path.suffix.lower() in WORKBOOKS and not path.name.startswith("~")), None)


def _may_be_classes(folders: Mapping[str, int]) -> bool:
    """Whether folders may be classes, and not splits, patients, or the one in which all lies."""
    return 1 < len(folders) <= class_folders.MOST and len(_parts(folders)) < 2


def _parts(folders: Mapping[str, int]) -> list[str]:
    return [name for name in folders if NO_CLASSES.fullmatch(table.folded(name))]


def _at_least_two(classes: tuple[str, ...], where: str) -> tuple[str, ...]:
    if len(classes) < 2:
        raise InputError(f"{where}: all images are of one class, and nothing can be told apart: give images of two classes or more")
    return classes


def _counted(
    names: Sequence[str], headers: Mapping[str, Header], listed: Labels | None, classes: Sequence[str]
) -> tuple[dict[str, int], dict[str, set[str]], set[str], Counter[str], int]:
    """Images and patients of each class, and all patients, none where nobody says who they are; why files have no class; and how many have
    a class and no patient."""
    labels = listed if listed is not None and listed.labelled else FolderLabels(tuple(classes))
    images, people = dict.fromkeys(classes, 0), {label: set[str]() for label in classes}
    everybody, refused, nobody = set[str](), Counter[str](), 0
    for name in names:
        header = headers.get(name, Header(sop_instance_uid=name))
        findings = labels.find(name, header)
        if isinstance(findings, Quarantined):
            refused[findings.reason] += 1
            continue
        present = [label for label, mark in zip(classes, findings) if mark == 1]
        entry = listed.entry(name, header) if listed is not None else None
        stated = entry.stated.get("patient_id") if isinstance(entry, Entry) else None
        patient = patients.canonical(stated or header.patient_id)
        everybody |= {patient} - {""}
        nobody += not patient
        for label in present:
            images[label] += 1
            people[label] |= {patient} - {""}
    return images, people, everybody, refused, nobody


def _headers(root: Path, names: Sequence[str], kind: str, listed: Labels | None) -> dict[str, Header] | None:
    """Headers of DICOM files, evenly over the names; None where they are not needed."""
    if kind != "dicom" or (listed is not None and listed.column == "file" and listed.names_patients()):
        return None
    some = [names[place] for place in np.unique(np.linspace(0, len(names) - 1, min(HEADERS, len(names))).astype(int))]
    answers = isolated(functools.partial(_identity, root=root), some, workers=source.workers())
    return {name: Header(**answer.value) for name, answer in zip(some, answers) if isinstance(answer, Answer)}


def _identity(name: str, root: Path) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Whose and which image a DICOM file is; nothing for any other."""
    from pipeline.ingest.readers import dicom

    header = dicom.read_header(root / name)
    wanted = ("sop_instance_uid", "series_instance_uid", "patient_id")
    return {} if isinstance(header, Quarantined) else {key: getattr(header, key) for key in wanted}, []
