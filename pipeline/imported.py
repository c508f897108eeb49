"""The generate stage of a foreign set: somebody's synthetic images, read like the cohort's own, and of the same size and classes.

How they were made is unknown; what counts is which files they are, by content. Names and paths of the files stay out of the rows, and so
does their order, which may be that of the training images: rows follow keyed pseudonyms of the images' values.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline import artifacts, images
from pipeline.errors import InputError
from pipeline.images import FINDING
from pipeline.ingest import quarantine
from pipeline.ingest.cohort import Cohort, scanned
from pipeline.ingest.survey import survey
from pipeline.ingest.table import chosen
from pipeline.ingest.unpacking import unpacked

if TYPE_CHECKING:
    from pipeline.config import IngestConfig
    from pipeline.context import Context

SETTING = "generate.import_from"
LEAST = 20
"""Images without which no audit begins: :func:`privacy.audit.find_copies` fits a tail to as many distances."""
UNLABELLED = "no label"


def run(ctx: Context) -> dict[str, Any]:
    """Import the foreign images into ``ctx.out``: images, ``rows.parquet`` and ``quarantine.parquet`` (file, reason).

    Raises:
        InputError: none can be used, fewer than :data:`LEAST`, or some have no class of the cohort's: no image is judged as something
            else than it is, and none that is left out is released. Or headers name patients of the real images.
    """
    found = _read(ctx)
    real = images.ImageSet.load(ctx.folder("ingest")).rows["patient"]
    if named := int(found.rows["in_header"].isin(real).sum()):
        raise InputError(
            f"{named} of the synthetic files have the Patient ID of a real image's patient in their headers: give them ids of their own, "
            f"and headers that hold nothing of a patient"
        )
    for note in found.notes:
        ctx.reporter.note(note)
    reasons = Counter(reason for _, reason in found.left_out)
    quarantine.write(ctx.out, found.left_out)
    common = quarantine.commonest(reason for _, reason in found.left_out)
    if unlabelled := sum(count for reason, count in reasons.items() if reason.startswith(UNLABELLED)):
        raise InputError(
            f"{unlabelled} of the synthetic images have no class of ingest.classes ({common}): name their folders or labels as the "
            f"cohort's are named, or judge the set without classes (ingest.unlabelled)"
        )
    if len(found.rows) < LEAST:
        why = f" ({common})" if common else ""
        raise InputError(f"{len(found.rows)} usable synthetic images in {SETTING}{why}: an audit needs {LEAST} at the least, add images")
    order = found.rows["values"].to_numpy(str).argsort(kind="stable")
    rows = pd.DataFrame(
        {
            "id": [f"synthetic-{number:06d}" for number in range(len(found.rows))],
            **{FINDING + name: found.findings[order, number] for number, name in enumerate(ctx.config.ingest.classes or ())},
        }
    )
    images.write(ctx.out, found.images, found.rows.index.to_numpy()[order], rows)
    artifacts.write_json(ctx.out / "imported.json", {"images": len(rows), **found.facts, "left_out": dict(sorted(reasons.items()))})
    for folder in (*ctx.out.glob("partial-*"), *ctx.out.glob("unpacked*")):
        shutil.rmtree(folder)
    return {"images": len(rows), "imported_as": found.facts["source"]["kind"], "left_out": sum(reasons.values())}


def _read(ctx: Context) -> Cohort:
    """The foreign images, each by itself: whose they would be is not asked."""
    ingest, given = ctx.config.ingest, ctx.config.generate.import_from
    assert given is not None
    path = given.expanduser()
    looked = survey(path, SETTING)
    below = ""
    if looked.kind == "archive":
        section = _of_archive(ctx, path, ingest)
    elif looked.kind == "release":
        update = {"path": path, "source": "pictures", "labels": "rows.csv", "label_field": None, "label_table": None}
        section, below = ingest.model_copy(update=update), "images/"
    else:
        # An attribute of a header names classes of DICOM files alone.
        field = ingest.label_field if looked.kind == "dicom" else None
        section = ingest.model_copy(update={"path": path, "source": looked.kind, "label_field": field})
    asked = section.source == "dicom" and section.label_field is None and section.label_table is None and not section.unlabelled
    if asked and not chosen(path, section.labels).is_file():
        raise InputError(f"no label table {section.labels} in {path}: put it there, or judge the set without classes (ingest.unlabelled)")
    return scanned(ctx, section, people=False, below=below)


def _of_archive(ctx: Context, path: Path, ingest: IngestConfig) -> IngestConfig:
    """The section that reads an archive's pictures, in folders named by class index. Raises InputError where it is not of that kind."""
    folder = unpacked(path, ctx.out / "unpacked", SETTING)
    places = tuple(str(number) for number in range(len(ingest.classes or ())))
    return ingest.model_copy(
        update={
            "path": folder,
            "source": "pictures",
            "label_field": None,
            "label_table": None,
            "classes": places,
        }
    )
