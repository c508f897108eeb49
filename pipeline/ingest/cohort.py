"""From the configured source to one cohort: which files are read together, by which reader, with whose labels."""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import artifacts, ranks
from pipeline.cohorts.key import project_key
from pipeline.errors import InputError
from pipeline.ingest import class_folders, notes, patients, pseudonym, source
from pipeline.ingest.collect import BLOCKS, collect, read_blocks
from pipeline.ingest.labels import FieldLabels, FolderLabels, Labels, OneClass, Use, opposite, passed_over
from pipeline.ingest.standardize import Target
from pipeline.ingest.table import chosen
from pipeline.ingest.tasks import Left, grouped, never_read
from pipeline.ingest.work import Settings

if TYPE_CHECKING:
    from pipeline.config import IngestConfig
    from pipeline.context import Context

PHANTOM_SIDE = 96
CONFLICT = "the same image lies elsewhere under another label: decide which of them is right"
TWO_PATIENTS = "the same image lies elsewhere under another patient: decide whose it is"


@dataclass(frozen=True)
class Cohort:
    """Images with their rows, not yet free of near-duplicates across splits.

    Attributes:
        images: ``[n, C, (D,) size, size]``, memory-mapped.
        rows: ``id``, ``patient``, ``content``, ``values``, ``findings`` (a tuple), ``file`` and :data:`FIELDS`, indexed by their places in
            ``images``; ``split`` for a set with official splits, otherwise :data:`PASSING`. ``content`` is the pseudonym by which an image
            is found again: of its identifier, or of its values where it has none; where patients are unknown, it is ``patient`` too. By
            ``values`` it is found in another kind of file, and by ``pixels``, where there is one, in what earlier versions settled.
        left_out: file and reason of everything quarantined so far.
        classes: class names.
        unit: ``patient``, or ``image`` where patients are unknown.
        facts: what ``cohort.json`` says of the source.
        notes: what a person should know.
    """

    images: NDArray[Any]
    rows: pd.DataFrame
    left_out: Left
    classes: tuple[str, ...]
    unit: str
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @functools.cached_property
    def findings(self) -> NDArray[np.int8]:
        """``int8 [n, classes]``: 1 present, 0 absent, -1 unknown."""
        return np.array(self.rows["findings"].tolist(), np.int8).reshape(len(self.rows), len(self.classes))


def target(ingest: IngestConfig) -> Target:
    """What every image of the source becomes."""
    return Target(ingest.size, 3 if ingest.colour else 1, ingest.bits, ingest.spacing, ingest.scaling)


def _partial(ctx: Context, key: bytes, which: str = "store") -> Path:
    """Where images are collected. Pseudonyms made under another key would tear a patient apart: each key has its own place."""
    return ctx.out / f"partial-{artifacts.keyed(key, which)[:8]}"


def published(ctx: Context, *, formerly: bool = False) -> Cohort:
    """A MedMNIST set: images without patients. ``formerly`` as :class:`~pipeline.ingest.work.Settings` has it."""
    from pipeline.ingest.readers import medmnist

    ingest = ctx.config.ingest
    found = medmnist.read(ingest, source.medmnist_file(ingest))
    medmnist.check_classes(found)
    key = project_key(ctx.run)
    named: list[dict[str, str]] = []

    def seen(block: NDArray[np.uint8]) -> None:
        named.extend(pseudonym.both(image.astype(np.float32), key, formerly=formerly) for image in block)

    with ctx.reporter.progress("reading images", len(found.split)) as done:
        pixels = medmnist.fitted(found, ingest.size, _partial(ctx, key), seen, done)
    files = [f"{name}/{number}" for name, number in zip(found.split, found.number)]
    ids = [artifacts.keyed(key, "image", str(ingest.dataset), file)[:16] for file in files]
    empty = dict.fromkeys(("view", "laterality", "site", "sex", "age_band", "acquisition", "turned"), "")
    names = {"id": ids, "patient": ids, "content": ids}
    rows = pd.DataFrame({**names, **pd.DataFrame(named), "findings": list(map(tuple, found.findings)), "file": files})
    rows = rows.assign(split=found.split, modality=found.modality, **empty, spacing_mm=math.nan, intensity_low=0.0, intensity_high=255.0)
    facts = {"source": {"kind": "medmnist", "dataset": ingest.dataset, **found.facts}, "modality": found.modality}
    return Cohort(pixels, rows, [], found.classes, "image", facts)


def scanned(
    ctx: Context, ingest: IngestConfig, which: str = "store", *, people: bool = True, below: str = "", formerly: bool = False
) -> Cohort:
    """A folder of files, the phantom's own and what a PACS sent included.

    Args:
        ctx: of the stage that reads.
        ingest: what is read; the configuration's own section, or one like it for another folder.
        which: name of the place where images are collected, one for each folder that a stage reads.
        people: whether images are of patients. Synthetic ones are each by itself.
        below: beginning of the relative paths that are read.
        formerly: as :class:`~pipeline.ingest.work.Settings` has it.
    """
    key = project_key(ctx.run)
    root, path, classes = _where(ctx, ingest)
    names = [name for name, found in source.regular_files(root) if found != path and name.startswith(below)]
    table = _table(ingest, path, classes, names, people) if people or not ingest.unlabelled else None
    if ingest.told and people and table is None:
        raise InputError(f"no label table {path.name}, from which attributes and reports are read: put it there, or leave them out")
    labels = _labels(ingest, table, classes)
    told = class_folders.unmatched(classes, names) if isinstance(labels, FolderLabels) and not ctx.config.foreign else []
    by_patient = people and (ingest.source not in ("nifti", "pictures") or (table is not None and table.names_patients()))
    settings = Settings(
        root,
        reader(ingest),
        labels,
        key,
        target(ingest),
        dimensions=3 if ingest.volumes else 2,
        patients=by_patient,
        dicom=ingest.source not in ("nifti", "pictures"),
        table=table,
        burned_in=ingest.burned_in,
        mask=ingest.mask,
        attributes=ingest.told if people else {},
        formerly=formerly,
    )
    tasks, left_out = grouped(ctx, root, names)
    folder, workers = _partial(ctx, key, f"{which} formerly" if formerly else which), source.workers()
    with ctx.reporter.progress("reading images", len(tasks)) as done:
        if ranks.count() > 1 or (folder / BLOCKS).exists():
            ranks.together(read_blocks, ctx.run, folder, replace(settings, key=b""), tasks, workers, report=done)
        store = collect(folder, settings, tasks, workers, done)
    rows, conflicts = _without_conflicts(store.rows(tasks, settings.attributes, formerly=formerly), store.again())
    if people and not by_patient:  # whoever it is: the pages of one file are of one
        first: dict[str, str] = {}
        rows = rows.assign(patient=[first.setdefault(file, patient) for file, patient in zip(rows["file"], rows["patient"])])
    # A table that serves several folders names files of the others.
    own = None if ingest.label_table is not None else table
    left_out += store.left_out(tasks) + never_read(root, own) + conflicts
    modalities = sorted(set(rows["modality"]))
    counts, mixed = notes.mixed(rows)
    facts = {"source": {"kind": ingest.source}, "modality": modalities[0] if len(modalities) == 1 else modalities, "mixed": counts}
    told += [*([] if by_patient or not people else [notes.BY_IMAGE]), *_table_notes(path.name, own, store.matched()), *mixed]
    told += class_folders.contradicted(classes, list(rows["file"]), list(rows["findings"])) if isinstance(labels, Labels) else []
    told += patients.notes(rows) if by_patient else []
    return Cohort(store.images(), rows, sorted(left_out), classes, "patient" if by_patient else "image", facts, told)


def _without_conflicts(rows: pd.DataFrame, again: list[dict[str, Any]]) -> tuple[pd.DataFrame, Left]:
    """The rows without images that lie elsewhere under another label, or another patient's name: nobody knows which is right."""
    first = rows.drop_duplicates("id").set_index("id")[["findings", "patient"]].to_dict("index") if again else {}
    why: dict[str, str] = {}
    for one in again:
        known = first[one["id"]]
        if opposite(known["findings"], one["findings"]):
            why[one["id"]] = CONFLICT
        elif known["patient"] != one["patient"]:
            why.setdefault(one["id"], TWO_PATIENTS)
    wrong = rows["id"].isin(why)
    return rows[~wrong], [(file, why[name]) for file, name in zip(rows["file"][wrong], rows["id"][wrong])]


def _table_notes(name: str, table: Labels | None, matched: set[int]) -> list[str]:
    """What was assumed of the label table, and its rows that lead to nothing."""
    if table is None:
        return []
    idle = list(table.unmatched.values())
    if table.column != "file":
        idle = [entry for entry in table.table.values() if not isinstance(entry, str) and entry.line not in matched]
    return [*table.notes, *notes.unmatched(name, idle, table.rows)]


def _where(ctx: Context, ingest: IngestConfig) -> tuple[Path, Path, tuple[str, ...]]:
    """The folder of the files, the label table (which need not exist), and the class names."""
    if ingest.source == "phantom":
        from pipeline.phantom import anatomy

        root = _write_phantom(ctx)
        return root, root / "labels.csv", anatomy.FINDINGS if ingest.several_findings else anatomy.CLASSES
    assert ingest.classes is not None
    if ingest.source == "dicomweb":
        from pipeline.ingest.readers import dicomweb

        assert ingest.query is not None
        folder = ctx.out / "dicomweb"
        dicomweb.fetch(ingest.query, folder, ctx.reporter)
        return folder, (ingest.path or folder) / ingest.labels, ingest.classes
    root = source.folder(ingest)
    return root, ingest.label_table.expanduser() if ingest.label_table else chosen(root, ingest.labels), ingest.classes


def _table(ingest: IngestConfig, path: Path, classes: tuple[str, ...], names: Sequence[str], people: bool) -> Labels | None:
    """The label table; None where there is none, and labels come from elsewhere."""
    elsewhere = ingest.label_field is not None or ingest.unlabelled
    use: Use = "elsewhere" if elsewhere else "optional" if ingest.source == "pictures" else "needed"
    if use != "needed" and not path.is_file():
        return None
    if use == "optional" and passed_over(ingest, path, classes, names):
        return None
    told, report = (ingest.told, ingest.report) if people else ({}, None)
    return Labels.load(path, classes, ingest.several_findings, use, told, report).matched(names)


def _labels(ingest: IngestConfig, table: Labels | None, classes: tuple[str, ...]) -> Labels | FieldLabels | FolderLabels | OneClass:
    if ingest.unlabelled:
        return OneClass()
    if ingest.label_field is not None:
        return FieldLabels(ingest.label_field, classes)
    return table if table is not None and table.labelled else FolderLabels(classes)


def reader(ingest: IngestConfig) -> Any:
    """The reader of the source's files, as :class:`~pipeline.ingest.collect.Settings` wants it."""
    if ingest.source == "nifti":
        from pipeline.ingest.readers import nifti

        return functools.partial(nifti.read, modality=ingest.modality, root=ingest.path)
    if ingest.source == "pictures":
        from pipeline.ingest.readers import pictures

        return functools.partial(pictures.read, modality=ingest.modality, root=ingest.path)
    from pipeline.ingest.readers import dicom, series

    also = (ingest.label_field,) if ingest.label_field else ()
    return functools.partial(series.read_series if ingest.volumes else dicom.read_each, also=also)


def _write_phantom(ctx: Context) -> Path:
    """The phantom cohort as a folder of DICOM."""
    from pipeline.phantom import anatomy
    from pipeline.phantom import dicom as phantom_dicom

    ingest = ctx.config.ingest
    folder = ctx.out / "phantom"
    # Drawing takes seconds: what an interrupted attempt left is not taken on trust.
    shutil.rmtree(folder, ignore_errors=True)
    ctx.reporter.console.print("  drawing the phantom cohort")
    several, side = ingest.several_findings, max(PHANTOM_SIDE, ingest.size)
    patients = anatomy.draw_patients(ingest.phantom_patients, ctx.config.seed, several)
    phantom_dicom.write_cohort(folder, patients, ctx.config.seed, size=side, workers=source.workers(), several=several)
    return folder
