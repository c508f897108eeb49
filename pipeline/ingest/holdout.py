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
from pipeline.ingest import source, split
from pipeline.ingest.cohort import Cohort
from pipeline.ingest.labels import Labels

if TYPE_CHECKING:
    from pipeline.config import Config, IngestConfig

OVERLAP = "in the holdout, but of a patient of the training images: the generator may know the patient"
TWIN = "in the holdout, but a near-duplicate of a training image, or of the patient of one: the generator may know it"
HELD = "held"


def refuse_two_readings(config: Config) -> None:
    """Raise InputError where a label table that serves several folders names a file that two of them hold: whose label is it?"""
    ingest = config.ingest
    if ingest.label_table is None:
        return
    table = Labels.load(ingest.label_table.expanduser(), ingest.classes or (), ingest.several_findings)
    if table.column != "file":
        return
    given = (ingest.path, ingest.holdout, config.generate.import_from)
    folders = {path.expanduser().resolve() for path in given if path is not None and path.expanduser().is_dir()}
    named = Counter(name for folder in folders for name, _ in source.regular_files(folder) if name in table.table)
    if shared := sum(count > 1 for count in named.values()):
        raise InputError(
            f"{ingest.label_table.name} names {shared} files that two of the folders hold, so that nobody knows which is meant: "
            f"rename them, or put a {ingest.labels} into each folder"
        )


def joined(train: Cohort, held: Cohort) -> Cohort:
    """Both as one cohort: ``rows`` has the column :data:`HELD`, and files of the holdout are named after it.

    Raises:
        InputError: one knows its patients and the other does not, so that nobody could tell whether they share any.
    """
    if train.unit != held.unit and len(train.rows) and len(held.rows):
        named, unnamed = ("ingest.path", "ingest.holdout") if train.unit == "patient" else ("ingest.holdout", "ingest.path")
        raise InputError(
            f"{named} names its patients and {unnamed} does not, so that a patient could be in both: give both label tables a patient_id"
        )
    rows = held.rows.assign(file=[f"holdout/{file}" for file in held.rows["file"]])
    if held.unit == "image":
        # Named after its file, which may be called the same in both folders.
        rows = rows.assign(id=[f"h{name[1:]}" for name in rows["id"]])
        rows = rows.assign(patient=rows["id"])
    both = pd.concat([train.rows.assign(**{HELD: False}), rows.assign(**{HELD: True})], ignore_index=True)
    left_out = train.left_out + [(f"holdout/{file}", reason) for file, reason in held.left_out]
    images = cast("NDArray[Any]", Shards([part for part in (train.images, held.images) if len(part)] or [train.images]))
    return dataclasses.replace(train, images=images, rows=both, left_out=left_out, unit=train.unit if len(train.rows) else held.unit)


def place(
    cohort: Cohort,
    clusters: NDArray[np.int64],
    strata: tuple[NDArray[np.int64], tuple[str, ...]],
    ingest: IngestConfig,
    rng: np.random.Generator,
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Split of every image ``[n]``, and why it is left out ``[n]``, empty where it is not.

    What the generator saw is ``train``. The holdout is ``audit`` but for its shares of ``val`` and ``test``, which are drawn by patient,
    near-duplicates tied. Nothing of it is remembered from run to run, since no generator is trained on any of them here.

    Args:
        cohort: of :func:`joined`, or without a holdout.
        clusters: near-duplicates, as :func:`pipeline.ingest.split.near_duplicates` gives them.
        strata: what the drawing is balanced by: a number for every image, and the names.
        ingest: the shares.
        rng: source of the drawing.

    Raises:
        InputError: a class has too few patients in the holdout for its splits.
    """
    rows = cohort.rows
    held = rows[HELD].to_numpy(bool) if HELD in rows else np.zeros(len(rows), bool)
    patients = rows["patient"].to_numpy(str)
    splits = np.where(held, "audit", "train")
    known = held & np.isin(patients, patients[~held])
    twin = held & (clusters >= 0) & np.isin(clusters, clusters[~held])
    twin = held & ~known & np.isin(patients, patients[twin])
    why = np.where(known, OVERLAP, np.where(twin, TWIN, ""))
    free = np.flatnonzero(held & (why == ""))
    if ingest.val_share and len(free):
        shares = {"audit": 1 - ingest.val_share - ingest.test_share, "val": ingest.val_share, "test": ingest.test_share}
        units = split.tie(patients[free].tolist(), clusters[free])
        splits[free] = split.assign(units, strata[0][free], shares, strata[1], rng, noun=f"{cohort.unit}s in the holdout")
    return splits, why
