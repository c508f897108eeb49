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
from pipeline.cohorts.cohort import Cohort as Settled
from pipeline.cohorts.key import project_key
from pipeline.cohorts.ledger import find
from pipeline.errors import InputError
from pipeline.images import FINDING, ImageSet
from pipeline.ingest import ledger, split
from pipeline.ingest.cohort import Cohort, published, scanned
from pipeline.ingest.collect import FIELDS
from pipeline.ingest.deidentify import allow_list
from pipeline.ingest.tasks import Left

if TYPE_CHECKING:
    from pipeline.config import IngestConfig
    from pipeline.stages import Context

TWIN = "near-duplicate of an image in the official val or test split"
# From how far off the shares of settled splits are mentioned.
OFF = 0.05


def run(ctx: Context) -> dict[str, Any]:
    """Ingest the configured source into ``ctx.out``.

    Writes the images with ``rows.parquet``, ``quarantine.parquet`` (file, reason), ``deidentification.json`` and ``cohort.json``. Images
    are appended to a store as they are read, file by file, so that an interrupted attempt goes on; the result does not depend on it.

    Raises:
        InputError: no usable image, labels that match no class, or too few patients to split.
    """
    ingest = ctx.config.ingest
    cohort = published(ctx) if ingest.source == "medmnist" else scanned(ctx)
    if not len(cohort.rows):
        _write_quarantine(ctx.out, cohort.left_out)
        common = "; ".join(f"{count} x {reason}" for reason, count in Counter(reason for _, reason in cohort.left_out).most_common(3))
        raise InputError(f"no usable image among {len(cohort.left_out)} files ({common}): ingest/quarantine.parquet lists them")
    clusters = split.near_duplicates(cohort.images)
    splits, why = _split(ctx, cohort, clusters)
    kept = why == ""
    dropped: Left = list(zip(cohort.rows["file"][~kept].astype(str), why[~kept]))
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


def _split(ctx: Context, cohort: Cohort, clusters: NDArray[np.int64]) -> tuple[NDArray[np.str_], NDArray[np.object_]]:
    """Split of every image, and why it is left out: an empty string where it is not. What earlier runs settled of the cohort stays."""
    ingest, rng = ctx.config.ingest, np.random.default_rng((ctx.config.seed, 1))
    draw = _split_published if "split" in cohort.rows else _split_drawn
    if ingest.replication:
        return draw(Settled(), cohort, clusters, ingest, rng)
    content, patients = cohort.rows["content"], cohort.rows["patient"] if cohort.unit == "patient" else pd.Series([], dtype=str)
    with find(ctx.run, patients, content) as found:
        settled = found.cohort
        splits, why = draw(settled, cohort, clusters, ingest, rng)
        kept = why == ""
        by_patient = dict(zip(patients[kept], splits[kept].tolist())) if cohort.unit == "patient" else {}
        found.save(settled.with_splits(by_patient, dict(zip(content[kept], splits[kept].tolist()))))
    if settled.images and "split" not in cohort.rows and (told := _off(splits[kept], ingest)) is not None:
        ctx.reporter.console.print(f"  {told}")
    return splits, why


def _off(splits: NDArray[np.str_], ingest: IngestConfig) -> str | None:
    """What to say where a split that was drawn earlier is far from the shares that are asked for now; None where it is not."""
    asked = _shares(ingest)
    had = {name: float((splits == name).mean()) for name in asked}
    if max(abs(had[name] - share) for name, share in asked.items()) <= OFF:
        return None
    shares = ", ".join(f"{name} {had[name]:.2f} ({share:.2f})" for name, share in asked.items())
    return f"earlier runs settled this cohort's splits, and they stay; shares of the images (and asked for): {shares}"


def _split_drawn(
    settled: Settled, cohort: Cohort, clusters: NDArray[np.int64], ingest: IngestConfig, rng: np.random.Generator
) -> tuple[NDArray[np.str_], NDArray[np.object_]]:
    """The whole cohort by patient, or by image where nothing says whose they are; those that share a near-duplicate count as one."""
    content, patients = cohort.rows["content"].tolist(), cohort.rows["patient"].tolist()
    labels, names = strata(cohort.findings, cohort.classes)
    return ledger.place(settled, content, patients, clusters, labels, names, _shares(ingest), rng, noun=f"{cohort.unit}s")


def _split_published(
    settled: Settled, cohort: Cohort, clusters: NDArray[np.int64], ingest: IngestConfig, rng: np.random.Generator
) -> tuple[NDArray[np.str_], NDArray[np.object_]]:
    """The official splits, with audit drawn from train; images that have a twin in a later split are left out.

    An official test set stays whole, so that results compare with published ones.
    """
    splits = cohort.rows["split"].to_numpy().astype("<U5")
    why = np.full(len(splits), "", object)
    for earlier, later in (("train", ("val", "test")), ("val", ("test",))):
        there = set(clusters[np.isin(splits, later) & (clusters >= 0)].tolist())
        why[(splits == earlier) & np.isin(clusters, list(there))] = TWIN
    pool = np.flatnonzero((why == "") & (splits == "train"))
    shares = {"train": 1 - ingest.audit_share, "audit": ingest.audit_share}
    labels, names = strata(cohort.findings[pool], cohort.classes)
    content = cohort.rows["content"].iloc[pool].tolist()
    splits[pool], why[pool] = ledger.place(settled, content, content, clusters[pool], labels, names, shares, rng, noun="images")
    return splits, why


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
            "key_mark": artifacts.key_mark(project_key(ctx.run)),
            "replication": ctx.config.ingest.replication,
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
