"""What a person should know of a cohort before trusting it, in sentences with counts that hold nothing of any one patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.ingest.labels import Entry

BY_IMAGE = (
    "NO PATIENT IDS: images are split one by one, and a patient's images may lie on both sides; "
    "give the label table a column patient_id where any patient has several"
)
MIXED = {"modality": "modalities", "view": "views", "intent": "presentation intents"}


def mixed(rows: pd.DataFrame) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Counts of each modality, view and presentation intent, and a sentence on each of them that has several.

    Images FOR PROCESSING look unlike those FOR PRESENTATION (PS3.3 C.8.11.1), and a model learns to tell them apart before anything else.
    """
    counts, notes = {}, []
    for column, noun in MIXED.items():
        found = {str(name) or "not stated": int(count) for name, count in rows[column].value_counts().sort_index().items()}
        if len(found.keys() - {"not stated"}) > 1:
            counts[noun] = found
            notes.append(f"mixed {noun}: " + ", ".join(f"{name} {count}" for name, count in found.items()))
    return counts, notes


def unmatched(table: str, entries: Sequence[Entry], total: int) -> list[str]:
    """A sentence on the rows of a label table that lead to no image; the first is named by its line."""
    if not entries:
        return []
    count, first = sum(entry.rows for entry in entries), min(entry.line for entry in entries)
    return [f"{table}: {count} of {total} rows match no file; the first of them is on line {first}"]


def tied(groups: int, patients: int) -> list[str]:
    """A sentence on the groups of near-duplicates that several patients share."""
    if not groups:
        return []
    return [
        f"{groups} groups of near-duplicates are shared by {patients} patients, as one person under two ids is: whom they tie are in one "
        f"split, and count as one patient"
    ]


NOT_ALIGNED = (
    "of more than {most:,} images only repeats that lie in the same place are joined: mirrored, turned or cropped ones were not "
    "sought, and may lie on both sides of a split"
)


def repeated(groups: int, images: int, mixed: int) -> list[str]:
    """A sentence on pictures that repeat one another, where nobody says whose they are, and one on those that lie in several classes."""
    if not groups:
        return []
    found = [
        f"{images:,} images repeat one another in {groups:,} group{'s' * (groups > 1)} (the same picture again, also cropped, mirrored, "
        f"turned or in other contrast): a group is in one split, counts as one image and is drawn as one in training"
    ]
    if mixed:
        found.append(
            f"{mixed:,} of the groups of repeated images have images of different classes, of which one is wrong: look at them "
            f"(ingest/near_duplicates.csv)"
        )
    return found


SHARE, LEAST = 0.1, 10
"""Share of a cohort, and number of its patients or images, from which on one group of near-duplicates is told of: a round
share, on which no verdict hangs. Of 5 856 radiographs, 780 ultrasounds and the phantoms no group is as large."""


def chained(largest: int, total: int, unit: str) -> list[str]:
    """A sentence on what near-duplicates tie together, and patients tie them, where one such group holds a large part of a cohort.

    Args:
        largest: patients of the largest such group, or images where no patients are known, of those that are kept.
        total: all of them.
        unit: ``patient`` or ``image``.
    """
    if largest < max(LEAST, SHARE * total):
        return []
    where = "ingest/near_duplicates.csv" if unit == "image" else "duplicate_group of ingest/rows.parquet"
    return [
        f"ONE GROUP OF NEAR-DUPLICATES holds {largest:,} of {total:,} {unit}s, is in one split and counts as one: either the same picture "
        f"came many times, or the pictures of this set are so alike, as masks and drawings are, that each has a near twin, and then a copy "
        f"cannot be told from chance either: look at the group ({where}) before anything is published"
    ]


ANEW = "if no model of those runs is kept, SYNTHCOHORT_COHORTS=NEW_FOLDER in front of the command draws all splits anew"


def torn(count: int, total: int) -> str:
    """A sentence on images whose patients earlier runs put into different splits, as happens before a table says who the patients are."""
    return (
        f"{count:,} of {total:,} images are left out: earlier runs put images of the same patient into different splits, as a run does "
        f"that is not told whose they are; {ANEW}"
    )
