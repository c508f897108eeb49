"""The ingest stage: from a source to de-identified, standardised, split images with a quarantine that says why."""

from __future__ import annotations

import functools
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import artifacts, images
from pipeline.errors import InputError
from pipeline.images import FINDING, ImageSet
from pipeline.ingest import deidentify, ledger, source, split
from pipeline.ingest.collect import FIELDS, Left, Settings, Task, collect
from pipeline.ingest.labels import FieldLabels, FolderLabels, Labels
from pipeline.ingest.standardize import Target

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


def run(ctx: Context) -> dict[str, Any]:
    """Ingest the configured source into ``ctx.out``.

    Writes the images with ``rows.parquet``, ``quarantine.parquet`` (file, reason), ``deidentification.json`` and ``cohort.json``. Images
    are appended to a store as they are read, file by file, so that an interrupted attempt goes on; the result does not depend on it.

    Raises:
        InputError: no usable image, labels that match no class, or too few patients to split.
    """
    ingest = ctx.config.ingest
    cohort = _published(ctx) if ingest.source == "medmnist" else _folder(ctx)
    if not len(cohort.rows):
        _write_quarantine(ctx.out, cohort.left_out)
        common = "; ".join(f"{count} x {reason}" for reason, count in Counter(reason for _, reason in cohort.left_out).most_common(3))
        raise InputError(f"no usable image among {len(cohort.left_out)} files ({common}): ingest/quarantine.parquet lists them")
    clusters = split.near_duplicates(cohort.images)
    rng = np.random.default_rng((ctx.config.seed, 1))
    why = "near-duplicate of an image in the official val or test split"
    if "split" in cohort.rows:
        splits, kept = _split_published(cohort, clusters, ingest, rng)
    elif cohort.unit == "patient":
        splits, kept = _split_patients(ctx, cohort, clusters, rng)
        why = ledger.TIES
    else:
        splits, kept = _split_images(cohort, clusters, ingest, rng), np.ones(len(clusters), bool)
    dropped: Left = [(str(file), why) for file in cohort.rows["file"][~kept]]
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


def _target(ingest: IngestConfig) -> Target:
    return Target(ingest.size, 3 if ingest.colour else 1, ingest.bits, ingest.spacing, ingest.scaling)


def _partial(ctx: Context, key: bytes) -> Path:
    """Where images are collected. Pseudonyms made under another key would tear a patient apart: each key has its own place."""
    return ctx.out / f"partial-{artifacts.keyed(key, 'store')[:8]}"


def _published(ctx: Context) -> Cohort:
    """A MedMNIST set: images without patients."""
    from pipeline.ingest import medmnist

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


def _folder(ctx: Context) -> Cohort:
    """A folder of files, the phantom's own and what a PACS sent included."""
    ingest, key = ctx.config.ingest, artifacts.project_key(ctx.run)
    root, table, classes = _where(ctx)
    labels = _labels(ingest, root, table, classes)
    names = [name for name, path in source.regular_files(root) if path != table]
    by_patient = ingest.source not in ("nifti", "pictures") or (isinstance(labels, Labels) and bool(labels.patients))
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
    tasks, left_out = _tasks(ctx, root, names)
    with ctx.reporter.progress("reading images", len(tasks)) as done:
        store = collect(_partial(ctx, key), settings, tasks, source.workers(), done)
    rows = store.rows(tasks)
    left_out += store.left_out(tasks) + _never_read(root, labels, set(names))
    modalities = sorted(set(rows["modality"]))
    facts = {"source": {"kind": ingest.source}, "modality": modalities[0] if len(modalities) == 1 else modalities}
    return Cohort(store.images(), rows, sorted(left_out), classes, "patient" if by_patient else "image", facts)


def _where(ctx: Context) -> tuple[Path, Path, tuple[str, ...]]:
    """The folder of the files, the label table (which need not exist), and the class names."""
    ingest = ctx.config.ingest
    if ingest.source == "phantom":
        from pipeline.ingest import phantom

        root = _write_phantom(ctx)
        return root, root / "labels.csv", phantom.CLASSES
    assert ingest.classes is not None
    if ingest.source == "dicomweb":
        from pipeline.ingest import dicomweb

        assert ingest.query is not None
        folder = ctx.out / "dicomweb"
        dicomweb.fetch(ingest.query, folder, ctx.reporter)
        return folder, (ingest.path or folder) / ingest.labels, ingest.classes
    root = source.folder(ingest)
    return root, root / ingest.labels, ingest.classes


def _labels(ingest: IngestConfig, root: Path, table: Path, classes: tuple[str, ...]) -> Labels | FieldLabels | FolderLabels:
    if ingest.label_field is not None:
        return FieldLabels(ingest.label_field, classes)
    if ingest.source == "pictures" and not table.is_file():
        return FolderLabels(classes)
    return Labels.load(table, classes, ingest.several_findings)


def reader(ingest: IngestConfig, labels: Labels | FieldLabels | FolderLabels) -> Any:
    """The reader of the source's files, as :class:`~pipeline.ingest.collect.Settings` wants it."""
    if ingest.source == "nifti":
        from pipeline.ingest import nifti

        return functools.partial(nifti.read, modality=ingest.modality, labels=labels, root=ingest.path)
    if ingest.source == "pictures":
        from pipeline.ingest import pictures

        return functools.partial(pictures.read, modality=ingest.modality, labels=labels, root=ingest.path)
    from pipeline.ingest import dicom, volumes

    also = (ingest.label_field,) if ingest.label_field else ()
    return functools.partial(volumes.read_series if ingest.volumes else dicom.read_each, also=also)


def _tasks(ctx: Context, root: Path, names: Sequence[str]) -> tuple[list[Task], Left]:
    """What is read together, in its order."""
    if not ctx.config.ingest.volumes or ctx.config.ingest.source == "nifti":
        return [Task((name,)) for name in names], []
    from pipeline.ingest import volumes

    with ctx.reporter.progress("finding series", len(names)) as done:
        return volumes.series(root, names, source.workers(), done)


def _never_read(root: Path, labels: Labels | FieldLabels | FolderLabels, present: set[str]) -> Left:
    """Links, and what the label table names that is not there."""
    left = [(name, "a symbolic link: links are not followed, put the file itself there") for name in source.symbolic_links(root)]
    if isinstance(labels, Labels) and labels.column == "file":
        outside = set(labels.outside())
        left += [
            (name, "a path out of the folder: refused" if name in outside else "named in the label table but not in the folder")
            for name in sorted(labels.table)
            if name not in present
        ]
    return left


def _write_phantom(ctx: Context) -> Path:
    """The phantom cohort as a folder of DICOM; one rename makes it whole, so that a part is never read."""
    from pipeline.ingest import phantom, phantom_dicom

    ingest = ctx.config.ingest
    folder = ctx.out / "phantom"
    if not folder.exists():
        unfinished = ctx.out / "phantom-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        ctx.reporter.console.print("  drawing the phantom cohort")
        patients = phantom.draw_patients(ingest.phantom_patients, ctx.config.seed)
        phantom_dicom.write_cohort(unfinished, patients, ctx.config.seed, size=max(PHANTOM_SIDE, ingest.size))
        unfinished.rename(folder)
    return folder


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
            "actions": [] if published else deidentify.describe(ctx.config.ingest.burned_in),
            "dates": "none kept",
        },
    )
