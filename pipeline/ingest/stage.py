"""The ingest stage: from a source to de-identified, standardised, split images with a quarantine that says why."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import artifacts, images
from pipeline.errors import InputError
from pipeline.images import FINDING, ImageSet
from pipeline.ingest import holdout, ledger, notes, quarantine, source, split
from pipeline.ingest.cohort import CONFLICT, Cohort, published, scanned
from pipeline.ingest.collect import FIELDS
from pipeline.ingest.deidentify import allow_list
from pipeline.ingest.patients import ISSUERS, by_issuer
from pipeline.ingest.tasks import Left

if TYPE_CHECKING:
    from pipeline.config import IngestConfig
    from pipeline.stages import Context

TWIN = "near-duplicate of an image in the official val or test split"
UNKNOWN = "unknown (split by image)"


def run(ctx: Context) -> dict[str, Any]:
    """Ingest the configured source into ``ctx.out``.

    Writes the images with ``rows.parquet``, ``quarantine.parquet`` and ``quarantine.csv`` (file, reason), ``deidentification.json`` and
    ``cohort.json``. The quarantine is written before anything is refused, so that it tells why. Images are appended to a store as they are
    read, file by file, so that an interrupted attempt goes on; the result does not depend on it.

    Raises:
        InputError: no usable image, labels that match no class, or too few patients to split.
    """
    ingest = ctx.config.ingest
    holdout.refuse_two_readings(ctx.config)
    cohort = published(ctx) if ingest.source == "medmnist" else scanned(ctx, ingest)
    if ctx.config.foreign:
        cohort = holdout.joined(cohort, scanned(ctx, source.of_holdout(ingest), "holdout") if ingest.holdout is not None else None)
    quarantine.write(ctx.out, cohort.left_out)
    for note in cohort.notes:
        ctx.reporter.note(note)
    clusters = split.near_duplicates(cohort.images)[cohort.rows.index.to_numpy()] if len(cohort.rows) else np.zeros(0, np.int64)
    if "split" not in cohort.rows and not ctx.config.foreign:
        cohort, clusters = _without_contradictions(cohort, clusters)
        quarantine.write(ctx.out, cohort.left_out)
    if not len(cohort.rows):
        files = len({name for name, _ in cohort.left_out})
        raise InputError(f"no usable image among {files} files ({_commonest(cohort.left_out)}): ingest/quarantine.csv lists them")
    if ctx.config.foreign:
        holdout.refuse_unlabelled(cohort)
    patients, splits, why = _split(ctx, cohort, clusters)
    kept = why == ""
    left_out = sorted(cohort.left_out + list(zip(cohort.rows["file"][~kept].tolist(), why[~kept].tolist())))
    table = {
        "id": cohort.rows["id"],
        "patient": patients,
        "split": splits,
        **{FINDING + name: cohort.findings[:, number] for number, name in enumerate(cohort.classes)},
        **{name: cohort.rows[name] for name in FIELDS},
        "duplicate_group": clusters,
    }
    images.write(ctx.out, cohort.images, cohort.rows.index.to_numpy()[kept], pd.DataFrame(table)[kept].reset_index(drop=True))
    cleaned = ImageSet.load(ctx.out)
    quarantine.write(ctx.out, left_out)
    _write_facts(ctx, cohort, cleaned, patients, clusters, left_out)
    # The PACS's files hold identities, and nothing reads them again.
    for folder in (*ctx.out.glob("partial-*"), *ctx.out.glob("dicomweb")):
        shutil.rmtree(folder)
    counts = {name: int((cleaned.rows["split"] == name).sum()) for name in ("train", "audit", "val", "test")}
    people = int(cleaned.rows["patient"].nunique()) if cohort.unit == "patient" else UNKNOWN
    groups = len(set(clusters[clusters >= 0].tolist()))
    return {"images": len(cleaned), "patients": people, **counts, "near_duplicate_groups": groups, "quarantined": len(left_out)}


def _without_contradictions(cohort: Cohort, clusters: NDArray[np.int64]) -> tuple[Cohort, NDArray[np.int64]]:
    """The cohort and its clusters without images that are the same pixel by pixel and have opposite findings: one of them is wrong."""
    wrong = np.zeros(len(clusters), bool)
    findings = pd.Series(list(map(tuple, cohort.findings.tolist())), dtype=object)
    mixed = findings.groupby(clusters).transform("nunique").to_numpy() > 1 if len(findings) else wrong
    suspects = np.flatnonzero((clusters >= 0) & mixed)
    if len(suspects):
        same = split.identical([cohort.images[place] for place in cohort.rows.index[suspects]])
        for first in np.unique(same):
            found = cohort.findings[suspects[same == first]]
            wrong[suspects[same == first]] = ((found == 1).any(axis=0) & (found == 0).any(axis=0)).any()
    left_out = [(str(file), CONFLICT) for file in cohort.rows["file"][wrong]]
    remaining = replace(cohort, rows=cohort.rows[~wrong], left_out=sorted(cohort.left_out + left_out))
    return remaining, split.groups_of_several(clusters[~wrong])


def _split(ctx: Context, cohort: Cohort, clusters: NDArray[np.int64]) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[Any]]:
    """Patient and split of every image, and why it is left out after all: an empty string for those that stay.

    Raises:
        InputError: too few patients; it says why most files were left out.
    """
    ingest, rng = ctx.config.ingest, np.random.default_rng((ctx.config.seed, 1))
    patients = cohort.rows["patient"].to_numpy(str)
    nothing = np.full(len(patients), "", object)
    try:
        if ctx.config.foreign:
            return holdout.place(cohort, clusters, strata(cohort.findings, cohort.classes), ingest, rng)
        if "split" in cohort.rows:
            splits, kept = _split_published(cohort, clusters, ingest, rng)
            return patients, splits, np.where(kept, nothing, TWIN)
        if cohort.unit == "patient":
            return _split_patients(ctx, cohort, clusters, rng)
        return patients, _split_images(cohort, clusters, ingest, rng), nothing
    except InputError as error:
        if not cohort.left_out:
            raise
        raise InputError(
            f"{error} ({len(cohort.left_out)} files were left out: {_commonest(cohort.left_out)}; ingest/quarantine.csv lists them)"
        ) from None


def _commonest(left_out: Left) -> str:
    return quarantine.commonest(reason for _, reason in left_out)


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
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[Any]]:
    """The whole cohort by patient, those of earlier ingests where they are; patients that share a near-duplicate count as one.

    As :func:`_split`; left out are images that could be any of several patients', or would tie two splits together.
    """
    path, shares = ctx.run / ledger.NAME, _shares(ctx.config.ingest)
    earlier = ledger.Ledger.load(path, artifacts.project_key(ctx.run), shares)
    patients, clear = by_issuer(cohort.rows, earlier.patients.keys())
    why = np.where(clear, np.full(len(patients), "", object), ISSUERS)
    places = np.flatnonzero(clear)
    ids, splits = cohort.rows["id"].to_numpy(str), np.full(len(patients), "", "<U5")
    labels, names = strata(cohort.findings[places], cohort.classes)
    splits[places], kept = ledger.place(earlier, ids[places].tolist(), patients[places].tolist(), clusters[places], labels, names, rng)
    why[places[~kept]] = ledger.TIES
    chosen = places[kept]
    earlier.save(path, ids[chosen].tolist(), patients[chosen].tolist(), splits[chosen].tolist())
    return patients, splits, why


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


def _write_facts(
    ctx: Context, cohort: Cohort, cleaned: ImageSet, patients: NDArray[np.str_], clusters: NDArray[np.int64], left_out: Left
) -> None:
    """``cohort.json`` and ``deidentification.json``: figures and actions, nothing of any one patient."""
    grouped = pd.DataFrame({"group": clusters, "patient": patients, "label": cohort.rows["findings"].to_numpy()})
    groups = grouped[grouped["group"] >= 0].groupby("group")
    people = groups["patient"].nunique()
    shared = people.index[people > 1]
    tied = notes.tied(len(shared), grouped["patient"][grouped["group"].isin(shared)].nunique()) if cohort.unit == "patient" else []
    for note in tied:
        ctx.reporter.note(note)
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
                f"groups_across_{cohort.unit}s": len(shared),
                "groups_with_different_classes": int((groups["label"].nunique() > 1).sum()),
            },
            "notes": [*cohort.notes, *tied],
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
