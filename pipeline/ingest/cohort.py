"""From the configured source to one cohort: which files are read together, by which reader, with whose labels."""

from __future__ import annotations

import functools
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import artifacts, ranks
from pipeline.ingest import source
from pipeline.ingest.collect import BLOCKS, Settings, collect, read_blocks
from pipeline.ingest.labels import FieldLabels, FolderLabels, Labels, OneClass
from pipeline.ingest.standardize import Target
from pipeline.ingest.tasks import Left, grouped, never_read

if TYPE_CHECKING:
    from pipeline.config import IngestConfig
    from pipeline.stages import Context

PHANTOM_SIDE = 96


@dataclass(frozen=True)
class Cohort:
    """Images with their rows, not yet free of near-duplicates across splits.

    Attributes:
        images: ``[n, C, (D,) size, size]``, memory-mapped.
        rows: ``id``, ``patient``, ``findings`` (a tuple), ``file`` and :data:`FIELDS`; ``split`` for a set with official splits.
        left_out: file and reason of everything quarantined so far.
        classes: class names.
        unit: ``patient``, or ``image`` where patients are unknown.
        facts: what ``cohort.json`` says of the source.
    """

    images: NDArray[Any]
    rows: pd.DataFrame
    left_out: Left
    classes: tuple[str, ...]
    unit: str
    facts: dict[str, Any]

    @functools.cached_property
    def findings(self) -> NDArray[np.int8]:
        """``int8 [n, classes]``: 1 present, 0 absent, -1 unknown."""
        return np.array(self.rows["findings"].tolist(), np.int8).reshape(len(self.rows), len(self.classes))


def _target(ingest: IngestConfig) -> Target:
    return Target(ingest.size, 3 if ingest.colour else 1, ingest.bits, ingest.spacing, ingest.scaling)


def _partial(ctx: Context, key: bytes, which: str = "store") -> Path:
    """Where images are collected. Pseudonyms made under another key would tear a patient apart: each key has its own place."""
    return ctx.out / f"partial-{artifacts.keyed(key, which)[:8]}"


def published(ctx: Context) -> Cohort:
    """A MedMNIST set: images without patients."""
    from pipeline.ingest.readers import medmnist

    ingest = ctx.config.ingest
    found = medmnist.read(ingest)
    key = artifacts.project_key(ctx.run)
    with ctx.reporter.progress("reading images", len(found.split)) as done:
        pixels = medmnist.fitted(found, ingest.size, _partial(ctx, key), done)
    files = [f"{name}/{number}" for name, number in zip(found.split, found.number)]
    ids = [artifacts.keyed(key, "image", str(ingest.dataset), file)[:16] for file in files]
    empty = dict.fromkeys(("view", "laterality", "site", "sex", "age_band"), "")
    rows = pd.DataFrame({"id": ids, "patient": ids, "findings": list(map(tuple, found.findings)), "file": files, "split": found.split})
    rows = rows.assign(modality=found.modality, **empty, spacing_mm=math.nan, intensity_low=0.0, intensity_high=255.0)
    facts = {"source": {"kind": "medmnist", "dataset": ingest.dataset, **found.facts}, "modality": found.modality}
    return Cohort(pixels, rows, [], found.classes, "image", facts)


def scanned(ctx: Context, ingest: IngestConfig, which: str = "store", *, people: bool = True, below: str = "") -> Cohort:
    """A folder of files, the phantom's own and what a PACS sent included.

    Args:
        ctx: of the stage that reads.
        ingest: what is read; the configuration's own section, or one like it for another folder.
        which: name of the place where images are collected, one for each folder that a stage reads.
        people: whether images are of patients. Synthetic ones are each by itself.
        below: beginning of the relative paths that are read.
    """
    key = artifacts.project_key(ctx.run)
    root, table, classes = _where(ctx, ingest)
    labels = _labels(ingest, root, table, classes)
    names = [name for name, path in source.regular_files(root) if path != table and name.startswith(below)]
    by_patient = people and (ingest.source not in ("nifti", "pictures") or (isinstance(labels, Labels) and bool(labels.patients)))
    settings = Settings(
        root,
        reader(ingest, labels),
        labels,
        key,
        _target(ingest),
        dimensions=3 if ingest.volumes else 2,
        patients=by_patient,
        dicom=ingest.source not in ("nifti", "pictures"),
        burned_in=ingest.burned_in,
    )
    tasks, left_out = grouped(ctx, root, names)
    folder, workers = _partial(ctx, key, which), source.workers()
    with ctx.reporter.progress("reading images", len(tasks)) as done:
        if ranks.count() > 1 or (folder / BLOCKS).exists():
            ranks.together(read_blocks, ctx.run, folder, replace(settings, key=b""), tasks, workers, report=done)
        store = collect(folder, settings, tasks, workers, done)
    rows = store.rows(tasks)
    # A table that serves several folders names files of the others.
    left_out += store.left_out(tasks) + never_read(root, labels if ingest.label_table is None else None, set(names))
    modalities = sorted(set(rows["modality"]))
    facts = {"source": {"kind": ingest.source}, "modality": modalities[0] if len(modalities) == 1 else modalities}
    return Cohort(store.images(), rows, sorted(left_out), classes, "patient" if by_patient else "image", facts)


def _where(ctx: Context, ingest: IngestConfig) -> tuple[Path, Path, tuple[str, ...]]:
    """The folder of the files, the label table (which need not exist), and the class names."""
    if ingest.source == "phantom":
        from pipeline.phantom import anatomy

        root = _write_phantom(ctx)
        return root, root / "labels.csv", anatomy.CLASSES
    assert ingest.classes is not None
    if ingest.source == "dicomweb":
        from pipeline.ingest.readers import dicomweb

        assert ingest.query is not None
        folder = ctx.out / "dicomweb"
        dicomweb.fetch(ingest.query, folder, ctx.reporter)
        return folder, (ingest.path or folder) / str(ingest.labels), ingest.classes
    root = source.folder(ingest)
    return root, ingest.label_table.expanduser() if ingest.label_table else root / str(ingest.labels), ingest.classes


def _labels(ingest: IngestConfig, root: Path, table: Path, classes: tuple[str, ...]) -> Labels | FieldLabels | FolderLabels | OneClass:
    if ingest.labels is None:
        return OneClass()
    if ingest.label_field is not None:
        return FieldLabels(ingest.label_field, classes)
    if ingest.source == "pictures" and not table.is_file():
        return FolderLabels(classes)
    return Labels.load(table, classes, ingest.several_findings)


def reader(ingest: IngestConfig, labels: Labels | FieldLabels | FolderLabels | OneClass) -> Any:
    """The reader of the source's files, as :class:`~pipeline.ingest.collect.Settings` wants it."""
    if ingest.source == "nifti":
        from pipeline.ingest.readers import nifti

        return functools.partial(nifti.read, modality=ingest.modality, labels=labels, root=ingest.path)
    if ingest.source == "pictures":
        from pipeline.ingest.readers import pictures

        return functools.partial(pictures.read, modality=ingest.modality, labels=labels, root=ingest.path)
    from pipeline.ingest.readers import dicom, series

    also = (ingest.label_field,) if ingest.label_field else ()
    return functools.partial(series.read_series if ingest.volumes else dicom.read_each, also=also)


def _write_phantom(ctx: Context) -> Path:
    """The phantom cohort as a folder of DICOM; one rename makes it whole, so that a part is never read."""
    from pipeline.phantom import anatomy
    from pipeline.phantom import dicom as phantom_dicom

    ingest = ctx.config.ingest
    folder = ctx.out / "phantom"
    if not folder.exists():
        unfinished = ctx.out / "phantom-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        ctx.reporter.console.print("  drawing the phantom cohort")
        patients = anatomy.draw_patients(ingest.phantom_patients, ctx.config.seed)
        phantom_dicom.write_cohort(unfinished, patients, ctx.config.seed, size=max(PHANTOM_SIDE, ingest.size), workers=source.workers())
        unfinished.rename(folder)
    return folder
