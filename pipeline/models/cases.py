"""The cases that a model is asked: images of their own size with label, patient and attributes, read anew for every pass."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.foreign import labels_only
from pipeline.errors import InputError
from pipeline.images import FINDING
from pipeline.ingest import marks as cells
from pipeline.ingest import source
from pipeline.ingest.collect import task_seconds
from pipeline.ingest.isolate import Answer, isolated
from pipeline.ingest.labels import FolderLabels, Labels, Use, class_names, has_labels
from pipeline.ingest.standardize import Target
from pipeline.ingest.survey import survey
from pipeline.ingest.table import chosen, folded, read
from pipeline.ingest.tasks import Task
from pipeline.ingest.unpacking import unpacked
from pipeline.ingest.work import Settings, work
from pipeline.models.contract import spelled

Part = TypeVar("Part")
ATTRIBUTES = ("site", "sex", "age_band", "acquisition", "view")
UNPACKED = "unpacked"
"""Folder of a stress test for the images of archives while it lasts."""
LOOKED_AT = 96
"""Files that the images of the check are chosen from, at the most."""
SAMPLE = 24


@dataclass(frozen=True)
class Case:
    """One image.

    Attributes:
        task: number of its file among the source's.
        image: uint8 or uint16 ``[C, H, W]``, black to white as displayed, of its own size.
        row: what is known of it, without identities.
    """

    task: int
    image: NDArray[Any]
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Cases:
    """Where cases come from.

    Attributes:
        settings: how a file is read.
        tasks: the files.
        classes: names of the labels, in the order of the rows' findings.
        left_out: counts by reason, of the files read last.
        several: whether an image can have several of them, or none, and some may be unknown.
        notes: what a person should know of how they were taken, as sentences.
    """

    settings: Settings
    tasks: tuple[Task, ...]
    classes: tuple[str, ...]
    left_out: Counter[str]
    several: bool = False
    notes: tuple[str, ...] = ()

    def read(self, numbers: Sequence[int] | None = None) -> Iterator[Case]:
        """The cases of all files, or of those with these numbers, in that order; what cannot be used is counted in ``left_out``."""
        chosen = range(len(self.tasks)) if numbers is None else numbers
        self.left_out.clear()
        answers = isolated(
            functools.partial(work, settings=self.settings),
            [self.tasks[number] for number in chosen],
            workers=source.workers(),
            seconds=functools.partial(task_seconds, settings=self.settings),
            memory=self.settings.memory,
        )
        seen: dict[str, list[int]] = {}
        for number, answer in zip(chosen, answers):
            if not isinstance(answer, Answer):
                self.left_out[answer.reason] += 1
                continue
            self.left_out.update(answer.value["left_out"])
            for image, row in zip(answer.arrays, answer.value["rows"]):
                if not self.several and (row["findings"].count(1) != 1 or -1 in row["findings"]):
                    self.left_out["several findings, none, or an unknown one: one class an image is needed"] += 1
                elif set(row["findings"]) == {-1}:
                    self.left_out["no finding is known of it"] += 1
                elif (earlier := seen.get(row["values"], seen.get(row["id"]))) is not None:
                    self.left_out[
                        f"the same image as an earlier file's{'' if earlier == row['findings'] else ', under another label'}"
                    ] += 1
                else:
                    seen[row["id"]] = seen[row["values"]] = row["findings"]
                    yield Case(number, image, row)

    def sample(self) -> list[Case]:
        """:data:`SAMPLE` cases at the most, of all classes, evenly from the files. Raises InputError where none can be used."""
        places = np.unique(np.linspace(0, len(self.tasks) - 1, LOOKED_AT).astype(int))
        found = list(self.read([int(place) for place in places]))
        if not found:
            [(why, _)] = self.left_out.most_common(1) or [("the folder holds no image", 0)]
            raise InputError(f"--data: none of {len(places)} files looked at can be used ({why})")
        turns: Counter[tuple[int, ...]] = Counter()
        ranked = []
        for case in found:
            findings = tuple(-mark for mark in case.row["findings"])  # of one class an image, in the order of the classes
            ranked.append((turns[findings], findings))
            turns[findings] += 1
        order = sorted(range(len(found)), key=lambda number: ranked[number])
        return [found[number] for number in order[:SAMPLE]]


def opened(
    data: Path, labels: Path | None, key: bytes, folder: Path, names: Sequence[str], modality: str | None, option: str = "--data"
) -> Cases:
    """Look at a folder of DICOM or pictures, or an ``.npz`` of MedMNIST's layout.

    Args:
        labels: a label table; without it that of the folder, or class folders.
        key: of the pseudonyms of sites and patients.
        folder: where an archive is unpacked; the cases are read from there.
        names: of the model's outputs, which the class indices of an archive mean.
        modality: of images whose files do not say it.
        option: what the user gave them as.

    Raises:
        InputError: there is nothing that can be read, or no label.
    """
    kind = survey(data, option).kind
    root = data.expanduser()
    if kind == "archive":
        root, kind = unpacked(root, folder, option, several=True), "archive"
    table = labels.expanduser() if labels is not None else root / "rows.csv" if kind == "release" else chosen(root)
    if labels is not None and not table.is_file():
        raise InputError(f"no label table {table.name}: give the CSV as --labels")
    files = [name for name, path in source.regular_files(root) if path != table and (kind != "release" or name.startswith("images/"))]
    columns = _columns(table, names, kind) if table.is_file() else ()
    several = bool(columns)
    classes = columns or (class_names(table) if table.is_file() and has_labels(table) else ())
    if not classes and kind == "dicom":
        raise InputError(f"{option} holds DICOM and no labels.csv: give a CSV with sop_instance_uid (or file) and label as --labels")
    folders = tuple(sorted({parts[0] for name in files if len(parts := PurePosixPath(name).parts) > 1}))
    use: Use = "needed" if classes else "optional"
    known = Labels.load(table, classes or folders, several, use).matched(files) if table.is_file() else None
    if known is not None and known.labelled and len(known.outside()) == len(known.table) + len(known.unmatched) > 0:
        raise InputError(f"{table.name} names all files by paths out of the folder: write them as they lie below {option}")
    if not classes and len(folders) < 2:
        if table.is_file():
            raise InputError(
                f"{table.name} has no column 'label': call the column of the classes so, or sort the images into a folder for each"
            )
        raise InputError(
            f"{option} has no labels: sort the images into a folder for each class, or give a CSV with file and label as --labels"
        )
    by_patient = kind == "dicom" or (known is not None and known.names_patients())
    settings = Settings(
        root,
        _reader(kind, root, modality),
        known if known is not None and classes else FolderLabels(folders),
        key,
        Target(0, bits=16 if kind == "dicom" else 8),
        patients=by_patient,
        dicom=kind == "dicom",
        table=known,
        burned_in="declared",
    )
    told = tuple(names) if several else classes or folders
    if kind == "archive" and not several:
        told = tuple(names[int(name)] if name.isdecimal() and int(name) < len(names) else name for name in folders)
    taken, notes = spelled(told, names, option)
    return Cases(settings, tuple(Task((name,)) for name in files), taken, Counter(), several, notes)


def labelled(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], names: Sequence[str]) -> Labelled:
    """The cases without their pixels; ``names`` are the classes in the order of the model's outputs."""
    findings = np.zeros((len(rows), len(names)), np.int8)
    findings[:, [names.index(name) for name in classes]] = [row["findings"] for row in rows]
    attributes = {name: np.array([str(row[name] or "") for row in rows]) for name in ATTRIBUTES}
    return labels_only(findings, np.array([row["patient"] for row in rows]), attributes)


def batched(cases: Iterator[Case], images: int, size: int) -> Iterator[list[Case]]:
    """Cases, so many at a time, and no more than ``size`` bytes of pixels as float32."""
    held: list[Case] = []
    pixels = 0
    for case in cases:
        if held and (len(held) == images or pixels + 4 * case.image.size > size):
            yield held
            held, pixels = [], 0
        held.append(case)
        pixels += 4 * case.image.size
    if held:
        yield held


def ahead(parts: Iterator[Part]) -> Iterator[Part]:
    """The same, each made by a thread while whoever asks is busy with the one before; no more than one waits."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, parts, None)
        while (found := waiting.result()) is not None:
            waiting = pool.submit(next, parts, None)
            yield found


def _columns(table: Path, names: Sequence[str], kind: str) -> tuple[str, ...]:
    """What stands for the model's classes in a table of images that can have several of them, or none, in their order: a column for each,
    or labels with bars between; nothing where each has one.

    Raises:
        InputError: there are columns for some of the classes only.
    """
    marks = [str(number) for number in range(len(names))] if kind == "archive" else list(names)
    released = [FINDING + name for name in names]
    found = read(table, [*marks, *released])
    if kind == "archive" and len(found.columns) - 1 != len(names):
        raise InputError(
            f"the labels have {len(found.columns) - 1} findings an image, and the model's contract names {len(names)} classes: declare one "
            f"for each, in their order"
        )
    if "label" in found.columns:
        values = cells.emptied(found.values("label"))
        labels = {folded(part) for value in values for part in cells.parts(value)}
        several = any(map(cells.several, values)) and labels <= {*map(folded, names), *cells.NO_FINDING}
        return tuple(names) if names and several else ()
    for columns in (marks, released):
        missing = [name for name, column in zip(names, columns) if folded(column) not in found.columns]
        if 0 < len(missing) < len(names):
            raise InputError(f"{table.name} has no column for {', '.join(missing)}, which the model names: add one, of 1, 0 or -1")
        if not missing and names:
            return tuple(columns)
    return ()


def _reader(kind: str, root: Path, modality: str | None) -> Any:
    if kind == "dicom":
        from pipeline.ingest.readers import dicom

        return dicom.read_each
    from pipeline.ingest.readers import pictures

    return functools.partial(pictures.read, modality=modality, root=root)
