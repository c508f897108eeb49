"""Splits by patient, with near-duplicates clustered first so that no image has a twin on the other side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import InputError
from pipeline.ingest.standardize import fit

# Normalised cross-correlation of two images' fine structure from which they count as the same picture. Measured at 28 px: among the
# 5856 chest radiographs of PneumoniaMNIST, whose coarse anatomy correlates up to .98 between patients, no two different ones exceed .88
# here and every repeat is above .99; in BreastMNIST, whose source is known for repeats, all pairs above .90 show the same picture,
# cropped, re-compressed, or acquired a moment later.
NEAR_DUPLICATE = 0.90
DESCRIPTOR_SIDE = 32
DETAIL = 5
BLOCK = 1024
# Every class needs so many patients in each split: below, neither an interval nor a stratified statistic has a meaning.
MIN_PATIENTS = 2


def near_duplicates(images: NDArray[np.uint8], threshold: float = NEAR_DUPLICATE) -> NDArray[np.int64]:
    """Cluster of every image, ``int64 [n]``: numbered from 0 in order of first appearance, -1 where an image has no twin.

    Twins are pixel-identical, or correlate by at least ``threshold`` in their fine structure: what a 5x5 mean leaves of the image at 32 px.
    Coarse structure is left out because it is that of the anatomy, which patients share. Clusters are closed transitively.
    Time is O(n^2) in blocks (one matrix product), memory O(n).

    Args:
        images: ``uint8 [n, C, H, H]``.
    """
    n = len(images)
    _, same = np.unique(images.reshape(n, -1).view(np.dtype((np.void, images[0].size))).ravel(), return_inverse=True)
    first = np.full(same.max() + 1, n, np.int64)
    np.minimum.at(first, same, np.arange(n))
    pairs = [np.stack([first[same], np.arange(n)])]
    details = _details(images)
    for start in range(0, n, BLOCK):
        block = details[start : start + BLOCK]
        left, right = np.nonzero(block @ details[start:].T >= threshold)
        pairs.append(np.stack([left, right]) + start)
    left, right = np.concatenate(pairs, axis=1)
    cluster = _components(n, left, right)
    sizes = np.bincount(cluster)[cluster]
    return _renumber(np.where(sizes > 1, cluster, -1))


def tie(patients: Sequence[str], clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """What must stay together, ``int64 [n]``: images of one patient, and patients that share a near-duplicate.

    Args:
        patients: patient of every image.
        clusters: as :func:`near_duplicates` gives them.
    """
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    n, offset = len(patient), int(patient.max()) + 1
    twins = np.flatnonzero(clusters >= 0)
    left = np.concatenate([np.arange(n), twins])
    right = np.concatenate([n + patient, n + offset + clusters[twins]])
    return _renumber(_components(n + offset + int(clusters.max()) + 1, left, right)[:n])


def assign(
    units: NDArray[np.int64],
    labels: NDArray[np.int64],
    shares: Mapping[str, float],
    classes: Sequence[str],
    rng: np.random.Generator,
    noun: str = "patients",
) -> NDArray[np.str_]:
    """Split of every image: at random by unit, stratified by class.

    A unit with images of several classes counts for the one that fewest units have, so that rare classes are spread most evenly.

    Args:
        units: what stays together, ``int64 [n]``, as :func:`tie` gives it.
        labels: class indices ``int64 [n]``.
        shares: share of each split; they sum to 1.
        classes: class names.
        rng: source of the drawing.
        noun: what a unit is called in the error.

    Raises:
        InputError: a class has fewer than :data:`MIN_PATIENTS` units for each split.
    """
    number = int(units.max()) + 1
    present = np.zeros((number, len(classes)), bool)
    present[units, labels] = True
    rarity = np.where(present, present.sum(axis=0), number + 1)
    stratum = rarity.argmin(axis=1)
    counts = np.bincount(stratum, minlength=len(classes))
    needed = MIN_PATIENTS * len(shares)
    if (counts < needed).any():
        lacking = ", ".join(f"class {classes[index]} has {counts[index]}" for index in np.flatnonzero(counts < needed).tolist())
        raise InputError(
            f"too few {noun} to split: {lacking}; {needed} of every class are needed ({MIN_PATIENTS} in each of {', '.join(shares)}): "
            f"add {noun}, or leave the class out"
        )
    names = np.array(list(shares))
    chosen = np.empty(number, names.dtype)
    for index in range(len(classes)):
        members = rng.permutation(np.flatnonzero(stratum == index))
        chosen[members] = np.repeat(names, _apportion(len(members), list(shares.values())))
    return chosen[units]


def _apportion(total: int, shares: Sequence[float]) -> NDArray[np.int64]:
    """Whole numbers near ``total * shares`` that sum to ``total`` (largest remainders), none below MIN_PATIENTS."""
    exact = total * np.asarray(shares, np.float64)
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    while (counts < MIN_PATIENTS).any():
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    return counts


def _details(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit vectors ``float32 [n, d]`` of what a local mean leaves of each image; zero where it leaves nothing."""
    small = fit(images, DESCRIPTOR_SIDE) if images.shape[-1] > DESCRIPTOR_SIDE else images
    vectors = np.empty((len(small), small[0].size), np.float32)
    for start in range(0, len(small), BLOCK):
        part = small[start : start + BLOCK].astype(np.float32)
        detail = (part - uniform_filter(part, (0, 0, DETAIL, DETAIL), mode="nearest")).reshape(len(part), -1)
        norm = np.linalg.norm(detail, axis=1, keepdims=True)
        # One grey level of detail in every pixel is rounding, not structure.
        vectors[start : start + BLOCK] = np.where(norm > np.sqrt(detail.shape[1]), detail / np.maximum(norm, 1e-6), 0)
    return vectors


def _components(n: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _renumber(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number groups from 0 in order of first appearance; -1 stays."""
    values, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    known = values >= 0
    rank = np.full(len(values), -1, np.int64)
    rank[known] = np.argsort(np.argsort(first[known]))
    return rank[inverse]
