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

from pipeline import artifacts, images, word_features
from pipeline.cohorts.cohort import Cohort as Settled
from pipeline.cohorts.key import project_key
from pipeline.cohorts.ledger import find, knows_formerly
from pipeline.errors import InputError
from pipeline.images import ATTRIBUTE, FINDING, ImageSet
from pipeline.ingest import duplicates, groups, holdout, ledger, notes, quarantine, source, split
from pipeline.ingest.cohort import CONFLICT, Cohort, published, scanned
from pipeline.ingest.collect import FIELDS
from pipeline.ingest.deidentify import allow_list
from pipeline.ingest.patients import ISSUERS, by_issuer
from pipeline.ingest.tasks import NO_FILE, Left

if TYPE_CHECKING:
    from pipeline.config import IngestConfig
    from pipeline.context import Context

TWIN = "near-duplicate of an image in the official val or test split"
UNKNOWN = "unknown (split by image)"
OFFICIAL = (
    "read them as those runs did to keep their splits, or set ingest.replication to take the official ones in a run that is not released"
)
# Pseudonyms of an image's values; the second where a ledger of an earlier version may know images by it alone.
VALUES = ("values", "pixels")
# From how far off the shares of settled splits are mentioned.
OFF = 0.05


def run(ctx: Context) -> dict[str, Any]:
    """Ingest the configured source into ``ctx.out``.

    Writes the images with ``rows.parquet``, ``quarantine.parquet`` and ``quarantine.csv`` (file, reason), ``near_duplicates.csv`` (file,
    class, group) where no patients are known, ``deidentification.json`` and ``cohort.json``. Both lists are written before anything is
    refused, so that they tell why. Images are appended to a store as they are read, file by file, so that an interrupted attempt goes on;
    the result does not depend on it.

    Raises:
        InputError: no usable image, labels that match no class, or too few patients to split.
    """
    ingest = ctx.config.ingest
    holdout.refuse_two_readings(ctx.config)
    formerly = not ingest.replication and knows_formerly(ctx.run)
    cohort = published(ctx, formerly=formerly) if ingest.source == "medmnist" else scanned(ctx, ingest, formerly=formerly)
    if ctx.config.foreign:
        asked = source.of_holdout(ingest) if ingest.holdout is not None else None
        cohort = holdout.joined(cohort, scanned(ctx, asked, "holdout", formerly=formerly) if asked is not None else None)
    quarantine.write(ctx.out, cohort.left_out)
    for note in cohort.notes:
        ctx.reporter.note(note)
    clusters = _clusters(ctx, cohort)
    if "split" not in cohort.rows and not ctx.config.foreign:
        cohort, clusters = _without_contradictions(cohort, clusters)
        quarantine.write(ctx.out, cohort.left_out)
    if cohort.unit != "patient":  # a name beside a group would say whose a pseudonym is
        twins = np.flatnonzero(clusters >= 0)
        present = ["; ".join(name for name, here in zip(cohort.classes, row) if here == 1) for row in cohort.findings[twins]]
        quarantine.write_groups(ctx.out, cohort.rows["file"].to_numpy()[twins].tolist(), present, clusters[twins].tolist())
    if not len(cohort.rows):
        raise InputError(f"no usable image among {_files(cohort.left_out)} files ({_commonest(cohort.left_out)}): {_list(ctx)} lists them")
    if ctx.config.foreign:
        holdout.refuse_unlabelled(cohort)
    patients, splits, why = _split(ctx, cohort, clusters)
    kept = why == ""
    if "split" not in cohort.rows and (torn := int((why == ledger.SETTLED_TWICE).sum())):
        cohort = replace(cohort, notes=[*cohort.notes, notes.torn(torn, len(why))])
        ctx.reporter.note(cohort.notes[-1])
    left_out = sorted(cohort.left_out + list(zip(cohort.rows["file"][~kept].tolist(), why[~kept].tolist())))
    table = {
        "id": cohort.rows["id"],
        "patient": patients,
        "split": splits,
        **{FINDING + name: cohort.findings[:, number] for number, name in enumerate(cohort.classes)},
        **{name: cohort.rows[name] for name in (*FIELDS, *(ATTRIBUTE + name for name in ingest.told))},
        "duplicate_group": clusters,
        **{name: cohort.rows[name] for name in VALUES if name in cohort.rows},
    }
    images.write(ctx.out, cohort.images, cohort.rows.index.to_numpy()[kept], pd.DataFrame(table)[kept].reset_index(drop=True))
    cleaned = ImageSet.load(ctx.out)
    if ingest.text_encoder is not None:
        word_features.save(ctx.out, ingest.text_encoder.expanduser(), cleaned.rows[f"{ATTRIBUTE}text"])
    quarantine.write(ctx.out, left_out)
    _write_facts(ctx, cohort, cleaned, patients, clusters, left_out)
    # The PACS's files hold identities, and nothing reads them again.
    for folder in (*ctx.out.glob("partial-*"), *ctx.out.glob("dicomweb")):
        shutil.rmtree(folder)
    counts = {name: int((cleaned.rows["split"] == name).sum()) for name in ("train", "audit", "val", "test")}
    people = int(cleaned.rows["patient"].nunique()) if cohort.unit == "patient" else UNKNOWN
    repeated = len(set(clusters[clusters >= 0].tolist()))
    return {"images": len(cleaned), "patients": people, **counts, "near_duplicate_groups": repeated, "quarantined": len(left_out)}


def _clusters(ctx: Context, cohort: Cohort) -> NDArray[np.int64]:
    """Near-duplicate cluster of every row (:func:`pipeline.ingest.duplicates.near_duplicates`)."""
    if not len(cohort.rows):
        return np.zeros(0, np.int64)
    moved = cohort.unit != "patient" and cohort.images.ndim == 4
    if moved and len(cohort.images) > duplicates.ALIGNED:
        moved = False
        ctx.reporter.note(notes.NOT_ALIGNED.format(most=duplicates.ALIGNED))
    with ctx.reporter.progress("searching for near-duplicates", len(cohort.images)) as advance:
        clusters = duplicates.near_duplicates(cohort.images, moved=moved, report=advance)
        advance(len(cohort.images))
    return np.asarray(clusters[cohort.rows.index.to_numpy()])


def _without_contradictions(cohort: Cohort, clusters: NDArray[np.int64]) -> tuple[Cohort, NDArray[np.int64]]:
    """The cohort and its clusters without images that are the same pixel by pixel and have opposite findings: one of them is wrong."""
    wrong = np.zeros(len(clusters), bool)
    findings = pd.Series(list(map(tuple, cohort.findings.tolist())), dtype=object)
    mixed = findings.groupby(clusters).transform("nunique").to_numpy() > 1 if len(findings) else wrong
    suspects = np.flatnonzero((clusters >= 0) & mixed)
    if len(suspects):
        same = duplicates.identical([cohort.images[place] for place in cohort.rows.index[suspects]])
        for first in np.unique(same):
            found = cohort.findings[suspects[same == first]]
            wrong[suspects[same == first]] = ((found == 1).any(axis=0) & (found == 0).any(axis=0)).any()
    left_out = [(str(file), CONFLICT) for file in cohort.rows["file"][wrong]]
    remaining = replace(cohort, rows=cohort.rows[~wrong], left_out=sorted(cohort.left_out + left_out))
    return remaining, groups.groups_of_several(clusters[~wrong])


def _split(ctx: Context, cohort: Cohort, clusters: NDArray[np.int64]) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.object_]]:
    """Patient and split of every image, and why it is left out after all: an empty string for those that stay.

    What earlier runs settled of the cohort stays, and what is new is settled now.
    """
    ingest, rows = ctx.config.ingest, cohort.rows
    if ingest.replication or ctx.config.foreign:
        return _draw(ctx, Settled(), cohort, clusters)
    people = [*rows["patient"], *rows["issued"]] if cohort.unit == "patient" else []
    names = [rows[name] for name in ("content", *VALUES) if name in rows]
    every = {name for images in names for name in images}
    with find(ctx.run, people, every) as found:
        settled = found.cohort
        if "pixels" in rows:
            settled = settled.called(dict(zip(rows["values"], rows["pixels"]))).met(every.union(people))
        settled = settled.called(dict(zip(rows["content"], rows["values"])))
        patients, splits, why = _draw(ctx, settled, cohort, clusters)
        kept = why == ""
        by_patient = dict(zip(patients[kept].tolist(), splits[kept].tolist())) if cohort.unit == "patient" else {}
        by_image = {name: split for images in names for name, split in zip(images[kept], splits[kept].tolist())}
        found.save(settled.with_splits(by_patient, by_image))
    if settled.images and "split" not in rows and (told := _off(splits[kept], ingest)) is not None:
        ctx.reporter.note(told)
    if "split" in rows and (moved := _moved(why)).any():
        ctx.reporter.note(
            f"earlier runs put {moved.sum()} of {len(rows)} images, {(moved & (splits == 'test')).sum()} of them of the official test, "
            f"into other splits than the official ones: they are left out, and results do not compare with published ones; {OFFICIAL}"
        )
    return patients, splits, why


def _draw(
    ctx: Context, settled: Settled, cohort: Cohort, clusters: NDArray[np.int64]
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.object_]]:
    """As :func:`_split`. Raises InputError where there are too few patients; it says how many near-duplicates tie to one another, and why
    most files were left out."""
    way = _split_foreign if ctx.config.foreign else _split_published if "split" in cohort.rows else _split_drawn
    try:
        return way(settled, cohort, clusters, ctx.config.ingest, np.random.default_rng((ctx.config.seed, 1)))
    except InputError as error:
        listed = f" ({_list(ctx, quarantine.GROUPS)} lists them)" if cohort.unit != "patient" else ""
        why = [told + listed for told in _joined(cohort, clusters)]
        if cohort.left_out:
            why.append(f"{_files(cohort.left_out)} files were left out: {_commonest(cohort.left_out)}; {_list(ctx)} lists them")
        if not why:
            raise
        raise InputError(f"{error} ({'; '.join(why)})") from None


def _joined(cohort: Cohort, clusters: NDArray[np.int64]) -> list[str]:
    """How many patients near-duplicates tie to others, and as how many they count, where they do: a person counts the former."""
    if not (clusters >= 0).any():
        return []
    people = pd.DataFrame({"unit": split.tie(cohort.rows["patient"].tolist(), clusters), "name": cohort.rows["patient"].to_numpy()})
    sizes = people.groupby("unit")["name"].nunique()
    tied = sizes[sizes > 1]
    if tied.empty:
        return []
    return [
        f"{tied.sum():,} {cohort.unit}s share near-duplicates with others and count as {len(tied):,}: look whether their images differ; of "
        f"pictures that are alike by nature, as masks and drawings are, more will not do"
    ]


def _list(ctx: Context, name: str = "quarantine.csv") -> str:
    return (ctx.out / name).relative_to(ctx.run).as_posix()


def _files(left_out: Left) -> int:
    """How many files were left out, without the rows of a label table that name none."""
    return len({name for name, reason in left_out if reason not in NO_FILE})


def _commonest(left_out: Left) -> str:
    return quarantine.commonest(reason for _, reason in left_out)


def strata(findings: NDArray[np.int8], classes: Sequence[str]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """What the split is balanced by, and its names: the class, ``int64 [n]``; of several findings all that are present,
    ``bool [n, K]``, without those that no image has."""
    present = findings == 1
    if (present.sum(axis=1) == 1).all():
        return np.asarray(present.argmax(axis=1), np.int64), tuple(classes)
    used = present.any(axis=0)
    return present[:, used], tuple(name for name, some in zip(classes, used) if some)


def _shares(ingest: IngestConfig) -> dict[str, float]:
    rest = 1 - ingest.val_share - ingest.test_share
    return {
        "train": rest * (1 - ingest.audit_share),
        "audit": rest * ingest.audit_share,
        "val": ingest.val_share,
        "test": ingest.test_share,
    }


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
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.object_]]:
    """The whole cohort by patient, or by image where nothing says whose they are; those that share a near-duplicate count as one.

    Left out are images that could be any of several patients', were settled twice, or would tie two splits together.
    """
    patients, clear = by_issuer(cohort.rows, settled.patients.keys())
    why, splits = np.where(clear, "", ISSUERS).astype(object), np.full(len(patients), "", "<U5")
    places = np.flatnonzero(clear)
    content = cohort.rows["content"].to_numpy(str)[places].tolist()
    labels, names = strata(cohort.findings[places], cohort.classes)
    people, noun = patients[places].tolist(), f"{cohort.unit}s"
    splits[places], why[places] = ledger.place(settled, content, people, clusters[places], labels, names, _shares(ingest), rng, noun=noun)
    return patients, splits, why


def _split_foreign(
    settled: Settled, cohort: Cohort, clusters: NDArray[np.int64], ingest: IngestConfig, rng: np.random.Generator
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.object_]]:
    """Who the generator saw, and who not, was settled elsewhere; it binds no run that trains a model of its own."""
    return holdout.place(cohort, clusters, strata(cohort.findings, cohort.classes), ingest, rng)


def _split_published(
    settled: Settled, cohort: Cohort, clusters: NDArray[np.int64], ingest: IngestConfig, rng: np.random.Generator
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.object_]]:
    """The official splits, with audit drawn from train; images that have a twin in a later split are left out.

    An official test set stays whole, so that results compare with published ones, but for images that earlier runs put elsewhere.

    Raises:
        InputError: these leave an official split without a class.
    """
    splits, content = cohort.rows["split"].to_numpy().astype("<U5"), cohort.rows["content"].to_numpy(str)
    why = ledger.against_official(settled, content.tolist(), splits, clusters)
    official = why == ""
    for earlier, later in (("train", ("val", "test")), ("val", ("test",))):
        there = set(clusters[official & np.isin(splits, later) & (clusters >= 0)].tolist())
        why[(splits == earlier) & np.isin(clusters, list(there))] = TWIN
    _refuse_lost_classes(cohort, splits, _moved(why))
    pool = np.flatnonzero((why == "") & (splits == "train"))
    shares = {"train": 1 - ingest.audit_share, "audit": ingest.audit_share}
    labels, names = strata(cohort.findings[pool], cohort.classes)
    pooled = content[pool].tolist()
    splits[pool], why[pool] = ledger.place(settled, pooled, pooled, clusters[pool], labels, names, shares, rng, noun="images")
    return content, splits, why


def _moved(why: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which images of official splits are left out because earlier runs put them elsewhere."""
    return np.isin(why.tolist(), (ledger.ELSEWHERE, ledger.SETTLED_TWICE))


def _refuse_lost_classes(cohort: Cohort, splits: NDArray[np.str_], moved: NDArray[np.bool_]) -> None:
    """Raises InputError where an official split has a class only in images that earlier runs put elsewhere."""
    present = cohort.findings == 1
    for name in ("train", "val", "test"):
        of_split = splits == name
        lost = present[of_split].any(axis=0) & ~present[of_split & ~moved].any(axis=0)
        if lost.any():
            raise InputError(
                f"earlier runs put {moved.sum()} of {len(moved)} images into other splits than the official ones, which leaves the "
                f"official {name} without {cohort.classes[int(lost.argmax())]}: {OFFICIAL}"
            )


def _write_facts(
    ctx: Context, cohort: Cohort, cleaned: ImageSet, patients: NDArray[np.str_], clusters: NDArray[np.int64], left_out: Left
) -> None:
    """``cohort.json`` and ``deidentification.json``: figures and actions, nothing of any one patient."""
    grouped = pd.DataFrame({"group": clusters, "patient": patients, "label": cohort.rows["findings"].to_numpy()})
    repeats = grouped[grouped["group"] >= 0].groupby("group")
    people = repeats["patient"].nunique()
    shared = people.index[people > 1]
    mixed = int((repeats["label"].nunique() > 1).sum())
    if cohort.unit == "patient":
        tied = notes.tied(len(shared), grouped["patient"][grouped["group"].isin(shared)].nunique())
    else:
        tied = notes.repeated(len(repeats), int((clusters >= 0).sum()), mixed)
    together = split.kept_together(cleaned.rows)
    # Who is in the cohort, of which an image without a patient is one: it is named by its content, which others may have too.
    ones = cleaned.rows["patient"] if cohort.unit == "patient" else cleaned.rows["id"]
    tied += notes.chained(int(ones.groupby(together).nunique().max()), ones.nunique(), cohort.unit)
    for note in tied:
        ctx.reporter.note(note)
    cells = {
        name: {label: cleaned.rows[(cleaned.rows["split"] == name) & (cleaned.rows[FINDING + label] == 1)] for label in cleaned.classes}
        for name in ("train", "audit", "val", "test")
    }
    counts = {name: {label: len(rows) for label, rows in row.items()} for name, row in cells.items()}
    patients_of = {name: {label: int(rows["patient"].nunique()) for label, rows in row.items()} for name, row in cells.items()}
    artifacts.write_json(
        ctx.out / "cohort.json",
        {
            "classes": list(cleaned.classes),
            "unit": cohort.unit,
            "key_mark": artifacts.key_mark(project_key(ctx.run)),
            "replication": ctx.config.ingest.replication,
            "foreign": ctx.config.foreign,
            **cohort.facts,
            "size": int(cleaned.images.shape[-1]),
            "channels": int(cleaned.images.shape[1]),
            "dimensions": cleaned.images.ndim - 2,
            "bits": 8 * cleaned.images.dtype.itemsize,
            "counts": counts,
            "people": patients_of,
            # As the gate counts them: whom near-duplicates tie together is one.
            "units": {name: len(np.unique(together[cleaned.rows["split"] == name])) for name in counts},
            "near_duplicates": {
                "groups": len(repeats),
                "images": int((clusters >= 0).sum()),
                f"groups_across_{cohort.unit}s": len(shared),
                "groups_with_different_classes": mixed,
            },
            "notes": [*cohort.notes, *tied],
            "quarantined": dict(sorted(Counter(reason for _, reason in left_out).items())),
        },
    )
    ingest, published = ctx.config.ingest, "split" in cohort.rows
    artifacts.write_json(
        ctx.out / "deidentification.json",
        {
            "method": "published without patient data; nothing to remove" if published else "allow-list",
            "kept": [name for name in cleaned.rows.columns if not name.startswith("finding_") and _said(cleaned.rows[name])],
            "actions": allow_list.describe(ingest.source, ingest.burned_in, len(ingest.mask), reports=ingest.report is not None),
            "dates": "none kept",
            "mask": [list(rectangle) for rectangle in ingest.mask],
        },
    )


def _said(column: pd.Series[Any]) -> bool:
    """Whether a column says something of any image."""
    return bool((column.notna() & (column != "")).any())
