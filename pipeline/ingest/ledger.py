"""Splits of a cohort of which earlier runs have settled a part: once a patient is assigned, it stays, however the cohort grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cohorts.cohort import TORN, Cohort
from pipeline.errors import InputError
from pipeline.ingest import groups, notes, split

TIES = "a near-duplicate of images in different splits, which would tie them together: earlier patients stay where they are"
SETTLED_TWICE = "its patient or image was put into different splits by earlier runs: nobody can tell where it belongs"
ELSEWHERE = "it, or a near-duplicate of it, was put into another split than the official one by earlier runs, and stays there"


def place(
    cohort: Cohort,
    images: Sequence[str],
    patients: Sequence[str],
    clusters: NDArray[np.int64],
    labels: NDArray[Any],
    classes: Sequence[str],
    shares: Mapping[str, float],
    rng: np.random.Generator,
    noun: str = "patients",
) -> tuple[NDArray[np.str_], NDArray[np.object_]]:
    """Split of every image, ``[n]``, and why it has to be left out: an empty string, :data:`TIES` or :data:`SETTLED_TWICE`.

    Patients that are settled keep their split; one is settled by itself or by any of its images. New ones go where their near-duplicates
    are, and are drawn to fill up each split's share where they have none.

    Args:
        cohort: what is settled.
        images: pseudonym of every image, by its identifier or its content.
        patients: pseudonym of its patient; of the image itself where patients are unknown.
        clusters: its near-duplicates, as :func:`pipeline.ingest.duplicates.near_duplicates` gives them.
        labels: its class index, or which of several findings it has, ``bool [n, K]``.
        classes: class names.
        shares: share of each split; they sum to 1, and decide on new patients only.
        rng: source of the drawing; it decides on new patients only.
        noun: what a patient is called in errors.

    Raises:
        InputError: a class has too few patients for the splits, or none is left.
    """
    settled = _settled(cohort, images, patients)
    twice = settled == TORN
    settled[twice] = ""
    new = np.array([image not in cohort.images for image in images])
    of_cluster = _splits_of(clusters, settled)
    torn = np.array([len(of_cluster.get(cluster, ())) > 1 for cluster in clusters.tolist()], bool)
    kept = ~(torn & new) & ~twice
    free = kept & (settled == "")
    splits = settled.astype(f"<U{max(map(len, shares))}")
    drawn = _follow(clusters, np.asarray(patients), free, of_cluster, splits)
    kept &= drawn >= -1
    use = np.flatnonzero(kept)
    if not len(use):
        why = notes.torn(int(twice.sum()), len(twice)) if twice.any() else f"each image is {TIES}; {notes.ANEW}"
        raise InputError(f"no {noun} are left to split: {why}")
    # Settled patients are units by themselves; new ones are tied to each other where nothing settled decides on them.
    units = groups.renumber(np.where(drawn >= 0, drawn, len(splits) + np.unique(np.asarray(patients), return_inverse=True)[1])[use])
    try:
        splits[use] = split.assign(units, labels[use], shares, classes, rng, noun=noun, fixed=splits[use])
    except InputError as error:
        if not twice.any():
            raise
        raise InputError(f"{error}; {notes.torn(int(twice.sum()), len(twice))}") from None
    return splits, np.where(twice, SETTLED_TWICE, np.where(kept, "", TIES)).astype(object)


def against_official(cohort: Cohort, images: Sequence[str], splits: NDArray[np.str_], clusters: NDArray[np.int64]) -> NDArray[np.object_]:
    """Why images cannot be in their official split, ``[n]``: :data:`SETTLED_TWICE`, :data:`ELSEWHERE`, or an empty string where they can.

    An image that is settled is where it is, and a new one would tie its near-duplicates' split to its own. Audit is a part of train.

    Args:
        cohort: what is settled.
        images: pseudonym of every image.
        splits: its official split, ``train``, ``val`` or ``test``.
        clusters: its near-duplicates, as :func:`pipeline.ingest.duplicates.near_duplicates` gives them.
    """
    settled = _settled(cohort, images, images)
    twice = settled == TORN
    settled[twice] = ""
    settled[settled == "audit"] = "train"
    of_cluster = _splits_of(clusters, settled)
    there = [{name} if name else of_cluster.get(cluster, set()) for name, cluster in zip(settled.tolist(), clusters.tolist())]
    elsewhere = [not names <= {split} for names, split in zip(there, splits.tolist())]
    return np.where(twice, SETTLED_TWICE, np.where(elsewhere, ELSEWHERE, "")).astype(object)


def _settled(cohort: Cohort, images: Sequence[str], patients: Sequence[str]) -> NDArray[np.str_]:
    """Settled split of every image's patient, ``[n]``: an empty string where nothing is, :data:`TORN` where what is settled differs."""
    found: dict[str, set[str]] = {}
    for image, patient in zip(images, patients, strict=True):
        names = (cohort.patients.get(patient), cohort.images.get(image))
        found.setdefault(patient, set()).update(name for name in names if name is not None)
    settled = {patient: TORN if len(splits) > 1 else next(iter(splits), "") for patient, splits in found.items()}
    return np.array([settled[patient] for patient in patients])


def _splits_of(clusters: NDArray[np.int64], settled: NDArray[np.str_]) -> dict[int, set[str]]:
    """The splits that the settled images of each cluster are in."""
    found: dict[int, set[str]] = {}
    for cluster, name in zip(clusters.tolist(), settled.tolist()):
        if cluster >= 0 and name:
            found.setdefault(cluster, set()).add(name)
    return found


def _follow(
    clusters: NDArray[np.int64],
    patients: NDArray[np.str_],
    free: NDArray[np.bool_],
    of_cluster: Mapping[int, set[str]],
    splits: NDArray[np.str_],
) -> NDArray[np.int64]:
    """Unit of every new patient's image, ``int64 [n]``: -1 for the others, -2 where its unit touches two splits.

    Writes into ``splits`` where a unit touches one. A cluster with settled images decides by itself, and ties new patients to nothing.
    """
    drawn = np.full(len(splits), -1, np.int64)
    where = np.flatnonzero(free)
    if not len(where):
        return drawn
    loose = np.array([-1 if cluster in of_cluster else cluster for cluster in clusters[where].tolist()], np.int64)
    drawn[where] = split.tie(patients[where].tolist(), loose)
    touched: dict[int, set[str]] = {}
    for unit, cluster in zip(drawn[where].tolist(), clusters[where].tolist()):
        touched.setdefault(unit, set()).update(of_cluster.get(cluster, ()))
    for place in where:
        names = touched[int(drawn[place])]
        if len(names) == 1:
            splits[place] = next(iter(names))
        elif names:
            drawn[place] = -2
    return drawn
