"""The cohort of a foreign set: what its generator saw is ``train``, a holdout that it never saw is ``audit``, and none is in both."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.images import Shards
from pipeline.ingest import quarantine, source, split
from pipeline.ingest.cohort import Cohort
from pipeline.ingest.labels import Entry, Labels, Use
from pipeline.ingest.patients import ISSUERS, by_issuer

if TYPE_CHECKING:
    from pipeline.config import Config, IngestConfig

OVERLAP = "in the holdout, but of a patient of the training images: the generator may know the patient"
TWIN = "in the holdout, but a near-duplicate of a training image, or of the patient of one: the generator may know it"
HELD = "held"
PREFIX = "holdout/"
UNLABELLED = "no label"


def refuse_two_readings(config: Config) -> None:
    """Raise InputError where a row of a table that serves several folders means files in two of them: whose label or patient is it?"""
    ingest = config.ingest
    if ingest.label_table is None:
        return
    use: Use = "elsewhere" if ingest.unlabelled or ingest.label_field else "needed"
    table = Labels.load(ingest.label_table.expanduser(), ingest.classes or (), ingest.several_findings, use)
    if table.column != "file":
        return
    given = (ingest.path, ingest.holdout, None if ingest.unlabelled else config.generate.import_from)
    folders = {path.expanduser().resolve() for path in given if path is not None and path.expanduser().is_dir()}
    lines: Counter[int] = Counter()
    for folder in folders:
        found = table.matched([name for name, _ in source.regular_files(folder)]).table.values()
        lines.update({entry.line for entry in found if isinstance(entry, Entry)})
    if shared := sum(count > 1 for count in lines.values()):
        raise InputError(
            f"{shared} rows of {ingest.label_table.name} mean files in two of the folders, and nobody knows which: rename the files, or "
            f"put a {ingest.labels} into each folder"
        )


def refuse_unlabelled(cohort: Cohort) -> None:
    """Raise InputError where training images would be left out for want of a label: copies of them would not be found."""
    reasons = [why for file, why in cohort.left_out if why.startswith(UNLABELLED) and not file.startswith(PREFIX)]
    if reasons:
        raise InputError(
            f"{len(reasons)} images of ingest.path have no label, so that copies of them would not be found "
            f"({quarantine.commonest(reasons)}): label them, or judge the set without classes (ingest.unlabelled)"
        )


def joined(train: Cohort, held: Cohort | None) -> Cohort:
    """Both as one cohort: ``rows`` has the column :data:`HELD`, and files of the holdout are named after it.

    Raises:
        InputError: one knows its patients and the other does not, so that nobody could tell whether they share any.
    """
    if held is None:
        return dataclasses.replace(train, rows=train.rows.assign(**{HELD: False}))
    if train.unit != held.unit and len(train.rows) and len(held.rows):
        named, unnamed = ("ingest.path", "ingest.holdout") if train.unit == "patient" else ("ingest.holdout", "ingest.path")
        raise InputError(
            f"{named} names its patients and {unnamed} does not, so that a patient could be in both: give both label tables a patient_id"
        )
    rows = held.rows.assign(file=[PREFIX + file for file in held.rows["file"]], **{HELD: True})
    rows.index = rows.index + len(train.images)
    # Pictures are named after their files, which may be called the same in both folders.
    rows = rows.assign(id=[f"h{name[1:]}" for name in rows["id"]])
    parts = [part for part in (train.images, held.images) if len(part)]
    return dataclasses.replace(
        train,
        images=cast("NDArray[Any]", Shards(parts)) if parts else train.images,
        rows=pd.concat([train.rows.assign(**{HELD: False}), rows]),
        left_out=sorted(train.left_out + [(PREFIX + file, reason) for file, reason in held.left_out]),
        unit=train.unit if len(train.rows) else held.unit,
        notes=train.notes + [f"holdout: {note}" for note in held.notes],
    )


def place(
    cohort: Cohort,
    clusters: NDArray[np.int64],
    strata: tuple[NDArray[Any], tuple[str, ...]],
    ingest: IngestConfig,
    rng: np.random.Generator,
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[Any]]:
    """Patient and split of every image ``[n]``, and why it is left out ``[n]``, empty where it is not.

    What the generator saw is ``train``. The holdout is ``audit`` but for its shares of ``val`` and ``test``, which are drawn by patient,
    near-duplicates tied. Nothing of it is remembered from run to run, since no generator is trained on any of them here.

    Args:
        cohort: of :func:`joined`.
        clusters: near-duplicates, as :func:`pipeline.ingest.duplicates.near_duplicates` gives them.
        strata: what the drawing is balanced by: as :func:`pipeline.ingest.split.assign` takes it, and the names.
        ingest: the shares.
        rng: source of the drawing.

    Raises:
        InputError: a class has too few patients in the holdout for its splits.
    """
    held = cohort.rows[HELD].to_numpy(bool)
    patients, clear = by_issuer(cohort.rows, ()) if cohort.unit == "patient" else (cohort.rows["patient"].to_numpy(str), np.ones_like(held))
    splits = np.where(held, "audit", "train").astype("<U5")
    known = held & np.isin(patients, patients[~held])
    twin = held & (clusters >= 0) & np.isin(clusters, clusters[~held])
    twin = held & np.isin(patients, patients[twin])
    # Nobody knows whose an unclear image is; in train it is searched all the same.
    why = np.select([held & ~clear, known, twin], [ISSUERS, OVERLAP, TWIN], "")
    free = np.flatnonzero(held & (why == ""))
    if ingest.val_share and len(free):
        shares = {"audit": 1 - ingest.val_share - ingest.test_share, "val": ingest.val_share, "test": ingest.test_share}
        units = split.tie(patients[free].tolist(), clusters[free])
        splits[free] = split.assign(units, strata[0][free], shares, strata[1], rng, noun=f"{cohort.unit}s in the holdout")
    return patients, splits, why.astype(object)
