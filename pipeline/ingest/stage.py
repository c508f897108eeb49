"""The ingest stage: from a source to de-identified, standardised, split images with a quarantine that says why."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import artifacts, images
from pipeline.errors import InputError
from pipeline.images import FINDING, ImageSet
from pipeline.ingest import holdout, ledger, source, split
from pipeline.ingest.cohort import Cohort, published, scanned
from pipeline.ingest.collect import FIELDS
from pipeline.ingest.deidentify import allow_list
from pipeline.ingest.tasks import Left

if TYPE_CHECKING:
    from pipeline.config import IngestConfig
    from pipeline.stages import Context


def run(ctx: Context) -> dict[str, Any]:
    """Ingest the configured source into ``ctx.out``.

    Writes the images with ``rows.parquet``, ``quarantine.parquet`` (file, reason), ``deidentification.json`` and ``cohort.json``. Images
    are appended to a store as they are read, file by file, so that an interrupted attempt goes on; the result does not depend on it.

    Raises:
        InputError: no usable image, labels that match no class, or too few patients to split.
    """
    ingest = ctx.config.ingest
    holdout.refuse_two_readings(ctx.config)
    cohort = published(ctx) if ingest.source == "medmnist" else scanned(ctx, ingest)
    if ingest.holdout is not None:
        cohort = holdout.joined(cohort, scanned(ctx, source.of_holdout(ingest), "holdout"))
    if not len(cohort.rows):
        _write_quarantine(ctx.out, cohort.left_out)
        common = "; ".join(f"{count} x {reason}" for reason, count in Counter(reason for _, reason in cohort.left_out).most_common(3))
        raise InputError(f"no usable image among {len(cohort.left_out)} files ({common}): ingest/quarantine.parquet lists them")
    clusters = split.near_duplicates(cohort.images)
    rng = np.random.default_rng((ctx.config.seed, 1))
    why: str | NDArray[np.str_] = "near-duplicate of an image in the official val or test split"
    if ctx.config.foreign:
        splits, why = holdout.place(cohort, clusters, strata(cohort.findings, cohort.classes), ingest, rng)
        kept = why == ""
    elif "split" in cohort.rows:
        splits, kept = _split_published(cohort, clusters, ingest, rng)
    elif cohort.unit == "patient":
        splits, kept = _split_patients(ctx, cohort, clusters, rng)
        why = ledger.TIES
    else:
        splits, kept = _split_images(cohort, clusters, ingest, rng), np.ones(len(clusters), bool)
    reasons = np.broadcast_to(why, kept.shape)[~kept]
    dropped: Left = [(str(file), str(reason)) for file, reason in zip(cohort.rows["file"][~kept], reasons)]
    left_out = cohort.left_out + dropped
    table = {
        **{name: cohort.rows[name] for name in ("id", "patient")},
        "split": splits,
        **{FINDING + name: cohort.findings[:, number] for number, name in enumerate(cohort.classes)},
        **{name: cohort.rows[name] for name in FIELDS},
        "duplicate_group": clusters,
    }
    images.write(ctx.out, cohort.images, np.flatnonzero(kept), pd.DataFrame(table)[kept].reset_index(drop=True))
    cleaned = ImageSet.load(ctx.out)
    _write_quarantine(ctx.out, left_out)
    _write_facts(ctx, cohort, cleaned, clusters, left_out)
    # The PACS's files hold identities, and nothing reads them again.
    for folder in (*ctx.out.glob("partial-*"), *ctx.out.glob("dicomweb")):
        shutil.rmtree(folder)
    counts = {name: int((cleaned.rows["split"] == name).sum()) for name in ("train", "audit", "val", "test")}
    patients = {"patients": int(cleaned.rows["patient"].nunique())} if cohort.unit == "patient" else {}
    groups = len(set(clusters[clusters >= 0].tolist()))
    return {"images": len(cleaned), **patients, **counts, "near_duplicate_groups": groups, "quarantined": len(left_out)}


def strata(findings: NDArray[np.int8], classes: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """What the split is balanced by, ``int64 [n]``, and its names: of several findings the rarest that is present, or none of them."""
    present = findings == 1
    if (present.sum(axis=1) == 1).all():
        return np.asarray(present.argmax(axis=1), np.int64), tuple(classes)
    rarity = np.where(present, present.sum(axis=0), len(findings) + 1)
    stratum = np.where(present.any(axis=1), rarity.argmin(axis=1), len(classes))
    used = np.unique(stratum)
    return np.searchsorted(used, stratum), tuple([*classes, "none"][number] for number in used)


def _shares(ingest: IngestConfig) -> dict[str, float]:
    rest = 1 - ingest.val_share - ingest.test_share
    return {
        "train": rest * (1 - ingest.audit_share),
        "audit": rest * ingest.audit_share,
        "val": ingest.val_share,
        "test": ingest.test_share,
    }


def _split_patients(
    ctx: Context, cohort: Cohort, clusters: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """The whole cohort by patient, those of earlier ingests where they are; patients that share a near-duplicate count as one.

    False in the second result for an image that would tie two splits together.
    """
    path, shares = ctx.run / ledger.NAME, _shares(ctx.config.ingest)
    earlier = ledger.Ledger.load(path, artifacts.project_key(ctx.run), shares)
    ids, patients = cohort.rows["id"].tolist(), cohort.rows["patient"].tolist()
    labels, names = strata(cohort.findings, cohort.classes)
    splits, kept = ledger.place(earlier, ids, patients, clusters, labels, names, rng)
    chosen = np.flatnonzero(kept)
    earlier.save(path, [ids[row] for row in chosen], [patients[row] for row in chosen], splits[kept].tolist())
    return splits, kept


def _split_images(cohort: Cohort, clusters: NDArray[np.int64], ingest: IngestConfig, rng: np.random.Generator) -> NDArray[np.str_]:
    """The whole cohort by image, where nothing says whose they are; near-duplicates count as one."""
    units = split.tie(cohort.rows["patient"].tolist(), clusters)
    labels, names = strata(cohort.findings, cohort.classes)
    return split.assign(units, labels, _shares(ingest), names, rng, noun="images")


def _split_published(
    cohort: Cohort, clusters: NDArray[np.int64], ingest: IngestConfig, rng: np.random.Generator
) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """The official splits, with audit drawn from train; False in the second result for images that have a twin in a later split.

    An official test set stays whole, so that results compare with published ones.
    """
    splits = cohort.rows["split"].to_numpy().astype("<U5")
    kept = np.ones(len(splits), bool)
    for earlier, later in (("train", ("val", "test")), ("val", ("test",))):
        there = set(clusters[np.isin(splits, later) & (clusters >= 0)].tolist())
        kept &= ~((splits == earlier) & np.isin(clusters, list(there)))
    pool = np.flatnonzero(kept & (splits == "train"))
    units = split.tie(cohort.rows["patient"].iloc[pool].tolist(), clusters[pool])
    shares = {"train": 1 - ingest.audit_share, "audit": ingest.audit_share}
    labels, names = strata(cohort.findings[pool], cohort.classes)
    splits[pool] = split.assign(units, labels, shares, names, rng, noun="images")
    return splits, kept


def _write_quarantine(out: Path, left_out: Left) -> None:
    pd.DataFrame(left_out, columns=["file", "reason"], dtype=str).to_parquet(out / "quarantine.parquet", index=False)


def _write_facts(ctx: Context, cohort: Cohort, cleaned: ImageSet, clusters: NDArray[np.int64], left_out: Left) -> None:
    """``cohort.json`` and ``deidentification.json``: figures and actions, nothing of any one patient."""
    grouped = pd.DataFrame({"group": clusters, "patient": cohort.rows["patient"], "label": cohort.rows["findings"]})
    groups = grouped[grouped["group"] >= 0].groupby("group")
    counts = {
        name: {label: int(((cleaned.rows["split"] == name) & (cleaned.rows[FINDING + label] == 1)).sum()) for label in cleaned.classes}
        for name in ("train", "audit", "val", "test")
    }
    artifacts.write_json(
        ctx.out / "cohort.json",
        {
            "classes": list(cleaned.classes),
            "unit": cohort.unit,
            **cohort.facts,
            "size": int(cleaned.images.shape[-1]),
            "channels": int(cleaned.images.shape[1]),
            "dimensions": cleaned.images.ndim - 2,
            "bits": 8 * cleaned.images.dtype.itemsize,
            "counts": counts,
            "units": {name: int(cleaned.rows.loc[cleaned.rows["split"] == name, "patient"].nunique()) for name in counts},
            "near_duplicates": {
                "groups": len(groups),
                "images": int((clusters >= 0).sum()),
                f"groups_across_{cohort.unit}s": int((groups["patient"].nunique() > 1).sum()),
                "groups_with_different_classes": int((groups["label"].nunique() > 1).sum()),
            },
            "quarantined": dict(sorted(Counter(reason for _, reason in left_out).items())),
        },
    )
    published = "split" in cohort.rows
    artifacts.write_json(
        ctx.out / "deidentification.json",
        {
            "method": "published without patient data; nothing to remove" if published else "allow-list",
            "kept": [name for name in cleaned.rows.columns if not name.startswith("finding_")],
            "actions": [] if published else allow_list.describe(ctx.config.ingest.burned_in),
            "dates": "none kept",
        },
    )
