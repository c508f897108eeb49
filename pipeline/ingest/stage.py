"""The ingest stage: from a source to de-identified, standardised, split images with a quarantine that says why."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.images import ImageSet, finding_columns
from pipeline.ingest import deidentify, source, split
from pipeline.ingest.standardize import fit, standardize

if TYPE_CHECKING:
    from pipeline.config import IngestConfig
    from pipeline.ingest.dicom import Labels, Quarantined
    from pipeline.stages import Context

CHUNK = 256
PHANTOM_SIDE = 96
FIELDS = ("modality", "view", "laterality", "site", "sex", "age_band", "spacing_mm", "intensity_low", "intensity_high")
Left = list[tuple[str, str]]


@dataclass(frozen=True)
class Cohort:
    """Images with their rows, not yet free of near-duplicates across splits.

    Attributes:
        images: ``uint8 [n, C, size, size]``.
        rows: ``id``, ``patient``, ``label`` (class index), ``file`` and :data:`FIELDS`; ``split`` for a set with official splits.
        left_out: file and reason of everything quarantined so far.
        classes: class names.
        unit: ``patient``, or ``image`` where patients are unknown.
        facts: what ``cohort.json`` says of the source.
    """

    images: NDArray[np.uint8]
    rows: pd.DataFrame
    left_out: Left
    classes: tuple[str, ...]
    unit: str
    facts: dict[str, Any]


def run(ctx: Context) -> dict[str, Any]:
    """Ingest the configured source into ``ctx.out``.

    Writes the images with ``rows.parquet``, ``quarantine.parquet`` (file, reason), ``deidentification.json`` and ``cohort.json``. Decoded
    images are kept in chunks of 256 files until all are there, so that an interrupted attempt goes on; the result does not depend on it.

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
    if cohort.unit == "patient":
        splits, kept = _split_patients(cohort, clusters, ingest, rng), np.ones(len(clusters), bool)
    else:
        splits, kept = _split_published(cohort, clusters, ingest, rng)
    dropped: Left = [(str(file), "near-duplicate of an image in the official val or test split") for file in cohort.rows["file"][~kept]]
    left_out = cohort.left_out + dropped
    labels = cohort.rows["label"].to_numpy(np.int64)
    table = {
        **{name: cohort.rows[name] for name in ("id", "patient")},
        "split": splits,
        **finding_columns(labels, cohort.classes),
        **{name: cohort.rows[name] for name in FIELDS},
        "duplicate_group": clusters,
    }
    cleaned = ImageSet(cohort.images, pd.DataFrame(table)).take(kept)
    cleaned.save(ctx.out)
    _write_quarantine(ctx.out, left_out)
    _write_facts(ctx.out, cohort, cleaned, clusters, labels, left_out)
    for folder in ctx.out.glob("partial-*"):
        shutil.rmtree(folder)
    counts = {name: int((cleaned.rows["split"] == name).sum()) for name in ("train", "audit", "val", "test")}
    patients = {"patients": int(cleaned.rows["patient"].nunique())} if cohort.unit == "patient" else {}
    groups = len(set(clusters[clusters >= 0].tolist()))
    return {"images": len(cleaned), **patients, **counts, "near_duplicate_groups": groups, "quarantined": len(left_out)}


def _split_patients(cohort: Cohort, clusters: NDArray[np.int64], ingest: IngestConfig, rng: np.random.Generator) -> NDArray[np.str_]:
    """The whole cohort by patient; patients that share a near-duplicate count as one."""
    rest = 1 - ingest.val_share - ingest.test_share
    shares = {
        "train": rest * (1 - ingest.audit_share),
        "audit": rest * ingest.audit_share,
        "val": ingest.val_share,
        "test": ingest.test_share,
    }
    units = split.tie(cohort.rows["patient"].tolist(), clusters)
    return split.assign(units, cohort.rows["label"].to_numpy(np.int64), shares, cohort.classes, rng)


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
    labels = cohort.rows["label"].to_numpy(np.int64)
    shares = {"train": 1 - ingest.audit_share, "audit": ingest.audit_share}
    splits[pool] = split.assign(units, labels[pool], shares, cohort.classes, rng, noun="images")
    return splits, kept


def _published(ctx: Context) -> Cohort:
    """A MedMNIST set: images without patients."""
    from pipeline.ingest import medmnist

    ingest = ctx.config.ingest
    found = medmnist.read(ingest)
    with ctx.reporter.progress("reading images", len(found.images)) as done:
        parts = []
        for start in range(0, len(found.images), CHUNK):
            parts.append(fit(found.images[start : start + CHUNK], ingest.size))
            done(start + len(parts[-1]))
    files = [f"{name}/{number}" for name, number in zip(found.split, found.number)]
    key = artifacts.project_key(ctx.run)
    ids = [artifacts.keyed(key, "image", str(ingest.dataset), file)[:16] for file in files]
    empty = dict.fromkeys(("view", "laterality", "site", "sex", "age_band"), "")
    rows = pd.DataFrame({"id": ids, "patient": ids, "label": found.labels, "file": files, "split": found.split})
    rows = rows.assign(modality=found.modality, **empty, spacing_mm=math.nan, intensity_low=0.0, intensity_high=255.0)
    facts = {"source": {"kind": "medmnist", "dataset": ingest.dataset, **found.facts}, "modality": found.modality}
    return Cohort(np.concatenate(parts), rows, [], found.classes, "image", facts)


def _folder(ctx: Context) -> Cohort:
    """A folder of DICOM files, the phantom's own included."""
    from pipeline.ingest.dicom import Labels

    ingest = ctx.config.ingest
    if ingest.source == "phantom":
        from pipeline.ingest import phantom

        root, labels_name = _write_phantom(ctx), "labels.csv"
        classes: tuple[str, ...] = phantom.CLASSES
    else:
        assert ingest.classes is not None
        root, labels_name, classes = source.dicom_folder(ingest), ingest.labels, ingest.classes
    labels = Labels.load(root / labels_name, classes)
    files = [(name, path) for name, path in source.regular_files(root) if name != Path(labels_name).as_posix()]
    images, records, left_out = _read_all(ctx, files, labels)
    left_out += [(name, "a symbolic link: links are not followed, put the file itself there") for name in source.symbolic_links(root)]
    present = {name for name, _ in files}
    if labels.column == "file":
        left_out += [(name, "named in the label table but not in the folder") for name in sorted(labels.table) if name not in present]
    rows = pd.DataFrame(records, columns=["id", "patient", "label", "file", *FIELDS])
    again = rows["id"].duplicated().to_numpy()
    left_out += [(str(name), "the same SOP Instance UID as an earlier file") for name in rows["file"][again]]
    rows = rows[~again].reset_index(drop=True)
    modalities = sorted(set(rows["modality"]))
    facts = {"source": {"kind": ingest.source}, "modality": modalities[0] if len(modalities) == 1 else modalities}
    return Cohort(images[~again], rows, sorted(left_out), classes, "patient", facts)


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


def _read_all(ctx: Context, files: Sequence[tuple[str, Path]], labels: Labels) -> tuple[NDArray[np.uint8], list[dict[str, Any]], Left]:
    """Read every file, chunk by chunk; chunks that an earlier attempt finished are taken over."""
    key = artifacts.project_key(ctx.run)
    # Pseudonyms made under another key would tear a patient apart: chunks are looked for under the key that they were made with.
    partial = ctx.out / f"partial-{artifacts.keyed(key, 'chunks')[:8]}"
    partial.mkdir(exist_ok=True)
    size = ctx.config.ingest.size
    images, records, left_out = [], [], []
    with ctx.reporter.progress("reading images", len(files)) as done:
        for start in range(0, len(files), CHUNK):
            array, notes = partial / f"{start:08d}.npy", partial / f"{start:08d}.json"
            if not notes.exists():
                pixels, rows, left = _read_chunk(files[start : start + CHUNK], labels, key, size, done, start)
                np.save(array, pixels, allow_pickle=False)
                artifacts.write_json(notes, {"rows": rows, "left_out": left})
            chunk = artifacts.read_json(notes)
            images.append(np.load(array, allow_pickle=False))
            records += chunk["rows"]
            left_out += [(name, reason) for name, reason in chunk["left_out"]]
            done(min(start + CHUNK, len(files)))
    return np.concatenate([np.zeros((0, 1, size, size), np.uint8), *images]), records, left_out


def _read_chunk(
    files: Sequence[tuple[str, Path]], labels: Labels, key: bytes, size: int, done: Callable[[int], None], start: int
) -> tuple[NDArray[np.uint8], list[dict[str, Any]], Left]:
    from pipeline.ingest.dicom import Quarantined, quiet

    images, rows, left_out = [np.zeros((0, 1, size, size), np.uint8)], [], []
    with quiet():
        for number, (name, path) in enumerate(files):
            found = _read_one(name, path, labels, key, size)
            if isinstance(found, Quarantined):
                left_out.append((name, found.reason))
            else:
                images.append(found[0][None])
                rows.append(found[1])
            if number % 32 == 0:
                done(start + number)
    return np.concatenate(images), rows, left_out


def _read_one(name: str, path: Path, labels: Labels, key: bytes, size: int) -> tuple[NDArray[np.uint8], dict[str, Any]] | Quarantined:
    """One file's standardised image ``uint8 [1, size, size]`` and its row: past this point there is no identity."""
    from pipeline.ingest.dicom import Quarantined, read

    found = read(path)
    if isinstance(found, Quarantined):
        return found
    label = labels.find(name, found.header)
    if isinstance(label, Quarantined):
        return label
    image, ratio = standardize(found.pixels, found.low, found.high, size, found.aspect)
    row = {
        **dataclasses.asdict(deidentify.keep(found.header, key)),
        "label": label,
        "file": name,
        "spacing_mm": found.spacing[0] * ratio if found.spacing else None,
        "intensity_low": found.low if found.linear else None,
        "intensity_high": found.high if found.linear else None,
    }
    return image, row


def _write_quarantine(out: Path, left_out: Left) -> None:
    pd.DataFrame(left_out, columns=["file", "reason"], dtype=str).to_parquet(out / "quarantine.parquet", index=False)


def _write_facts(
    out: Path, cohort: Cohort, cleaned: ImageSet, clusters: NDArray[np.int64], labels: NDArray[np.int64], left_out: Left
) -> None:
    """``cohort.json`` and ``deidentification.json``: figures and actions, nothing of any one patient."""
    grouped = pd.DataFrame({"group": clusters, "patient": cohort.rows["patient"], "label": labels})
    groups = grouped[grouped["group"] >= 0].groupby("group")
    names = np.array(cleaned.classes)[cleaned.labels]
    counts = {
        name: {label: int(((cleaned.rows["split"] == name) & (names == label)).sum()) for label in cleaned.classes}
        for name in ("train", "audit", "val", "test")
    }
    artifacts.write_json(
        out / "cohort.json",
        {
            "classes": list(cleaned.classes),
            "unit": cohort.unit,
            **cohort.facts,
            "size": int(cleaned.images.shape[-1]),
            "channels": int(cleaned.images.shape[1]),
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
    published = cohort.unit == "image"
    artifacts.write_json(
        out / "deidentification.json",
        {
            "method": "published without patient data; nothing to remove" if published else "allow-list",
            "kept": [name for name in cleaned.rows.columns if not name.startswith("finding_")],
            "actions": [] if published else deidentify.describe(),
            "dates": "none kept",
        },
    )
