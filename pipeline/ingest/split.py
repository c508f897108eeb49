"""Splits by patient, with near-duplicates clustered first so that no image has a twin on the other side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import InputError
from pipeline.images import duplicate_groups
from pipeline.ingest.standardize import fit

if TYPE_CHECKING:
    import pandas as pd

# Normalised cross-correlation of two images' fine structure from which they count as the same picture. Measured at 28 px: among the
# 5856 chest radiographs of PneumoniaMNIST, whose coarse anatomy correlates up to .98 between patients, no two different ones exceed .88
# here and every repeat is above .99; in BreastMNIST, whose source is known for repeats, all pairs above .90 show the same picture,
# cropped, re-compressed, or acquired a moment later.
NEAR_DUPLICATE = 0.90
DESCRIPTOR_SIDE = 32
DETAIL = 5
BLOCK = 1024
# Principal axes of the bound, and rows that they are fitted to.
AXES = 128
SAMPLE = 1024
# Bytes of images that are worked on at once.
PART = 16 << 20
# Every class needs so many patients in each split: below, neither an interval nor a stratified statistic has a meaning.
MIN_PATIENTS = 2
# Draws of a split, at the most: of many findings, one draw in some leaves a split without one of them.
DRAWS = 50
# Images among which moved ones are sought, at the most: 25 s for 5 856 on two cores, a part of it by the square of their number.
ALIGNED = 20_000


def near_duplicates(
    images: NDArray[np.uint8] | NDArray[np.uint16],
    threshold: float = NEAR_DUPLICATE,
    moved: bool = True,
    report: Callable[[int], None] = lambda done: None,
) -> NDArray[np.int64]:
    """Cluster of every image, ``int64 [n]``: numbered from 0 in order of first appearance, -1 where an image has no twin.

    Twins are pixel-identical, or correlate by at least ``threshold`` in their fine structure: what a 5x5 mean leaves of the image at 32 px.
    Coarse structure is left out because it is that of the anatomy, which patients share. Every pair is so compared, at first by a bound
    that needs an eighth of the work (:func:`_twins`). Where ``moved``, one of each cluster is then compared with the few that are most like
    it once they are aligned (:mod:`pipeline.ingest.moved`). Clusters are closed transitively. Volumes are compared by three of their
    slices, and not aligned. Memory is two kilobytes an image.

    Args:
        images: ``[n, C, H, H]``, or ``[n, C, D, H, H]``; may be a memory map.
        threshold: of the correlation of images as they are.
        moved: whether to look for pictures that were moved. Exposures of a patient who lay otherwise look as they do: not where patients
            are known, who keep their images together.
        report: called with the number of clusters that are aligned, of ``len(images)`` at the most.
    """
    cluster = identical(images)
    for left, right in _twins(images, np.flatnonzero(cluster == np.arange(len(images))), threshold, cluster):
        cluster[:] = _components(len(images), cluster[left], cluster[right])[cluster]
    if images.ndim == 4 and moved:
        _join_moved(images, cluster, report)
    return groups_of_several(cluster)


def _join_moved(images: NDArray[Any], cluster: NDArray[np.int64], report: Callable[[int], None]) -> None:
    """Join in place the clusters ``[n]`` that hold one picture, moved: one of each is compared, and of what was joined one again."""
    from pipeline.ingest.moved import moved_twins

    asked = which = first = np.sort(np.unique(cluster, return_index=True)[1])
    small = np.concatenate([_small(images, part) for part in _parts(which, images)])
    while len(asked):
        for left, right in moved_twins(small[np.searchsorted(first, which)], np.searchsorted(which, asked), report):
            cluster[:] = _components(len(images), cluster[which[left]], cluster[which[right]])[cluster]
        parts = np.bincount(cluster[which])
        which = np.sort(np.unique(cluster, return_index=True)[1])
        asked = which[parts[cluster[which]] > 1]


def identical(images: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Number of the first image with the same pixels, ``int64 [n]``."""
    digests = np.empty((len(images), 2), np.uint64)
    for digest, image in zip(digests, images):
        digest[:] = np.frombuffer(hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest(), np.uint64)
    _, first, inverse = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()], np.int64)


def _twins(
    images: NDArray[Any], which: NDArray[np.int64], threshold: float, cluster: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of the images ``which`` whose fine structure correlates by ``threshold`` or more: none is missed that would join two clusters.

    With P the projection on a few principal axes and r the length of the rest, Cauchy and Schwarz give a.b <= Pa.Pb + r_a r_b: the bound is
    one product of short vectors, and only pairs that pass it are multiplied out. The axes are those of an even sample. ``cluster [n]`` is
    the caller's, who joins the clusters of every pair: those that are joined already need no further pair, and memory does not grow with
    the number of twins.
    """
    short = _bounds(images, which)
    for top in range(0, len(which), BLOCK):
        for left in range(top, len(which), BLOCK):
            rows, columns = np.nonzero(short[top : top + BLOCK] @ short[left : left + BLOCK].T >= threshold - 1e-4)
            ahead = rows + top < columns + left
            for pair in _parts(np.stack([which[rows[ahead] + top], which[columns[ahead] + left]], axis=1), images):
                pair = pair[cluster[pair[:, 0]] != cluster[pair[:, 1]]]
                if not len(pair):
                    continue
                used, place = np.unique(pair, return_inverse=True)
                details = _details(images, used)
                one, two = place.reshape(pair.shape).T
                pair = pair[np.einsum("nd,nd->n", details[one], details[two]) >= threshold]
                if len(pair):
                    pair = pair[_throughout(images, pair)]
                    yield pair[:, 0], pair[:, 1]


def _throughout(images: NDArray[Any], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs of images, ``int64 [n, 2]``, are alike in local contrast as well (:func:`pipeline.ingest.moved.throughout`)."""
    import torch

    from pipeline.ingest.moved import throughout, unit

    used, place = np.unique(pairs, return_inverse=True)
    small, found = _small(images, used), np.zeros(len(pairs), bool)
    place = place.reshape(pairs.shape)
    for start in range(0, len(pairs), BLOCK):
        part = slice(start, start + BLOCK)
        found[part] = throughout(*(unit(torch.from_numpy(small[which])) for which in place[part].T)).numpy()
    return found


def _bounds(images: NDArray[Any], which: NDArray[np.int64]) -> NDArray[np.float32]:
    """The short vectors of :func:`_twins`, ``[len(which), axes + 1]``."""
    even = np.linspace(0, len(which) - 1, min(SAMPLE, len(which))).astype(np.int64)
    sample = _details(images, which[even]).astype(np.float64)
    values, vectors = np.linalg.eigh(sample @ sample.T)
    chosen = np.flatnonzero(values > 1e-6 * max(values[-1], 1e-12))[-AXES:]
    basis = np.linalg.qr(sample.T @ vectors[:, chosen])[0].astype(np.float32)
    short = np.empty((len(which), basis.shape[1] + 1), np.float32)
    filled = 0
    for part in _parts(which, images):
        short[filled : filled + len(part)] = _bounding(_details(images, part), basis)
        filled += len(part)
    return short


def _parts(index: NDArray[np.int64], images: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
    """``index`` in parts of at most BLOCK rows and about :data:`PART` bytes of images."""
    step = max(1, min(BLOCK, PART // max(images[0].nbytes, 1)))
    for start in range(0, len(index), step):
        yield index[start : start + step]


def _bounding(details: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[n, axes + 1]``, whose products are the bound of :func:`_twins`."""
    projected = details @ basis
    rest = np.maximum(np.square(details).sum(1) - np.square(projected).sum(1), 0)
    return np.concatenate([projected, np.sqrt(rest)[:, None]], axis=1)


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
    return renumber(_components(n + offset + int(clusters.max()) + 1, left, right)[:n])


def kept_together(rows: pd.DataFrame) -> NDArray[np.int64]:
    """:func:`tie` of an image set's rows: patients, and near-duplicates where the rows tell of them."""
    return tie(rows["patient"].tolist(), duplicate_groups(rows))


def assign(
    units: NDArray[np.int64],
    labels: NDArray[Any],
    shares: Mapping[str, float],
    classes: Sequence[str],
    rng: np.random.Generator,
    noun: str = "patients",
    fixed: NDArray[np.str_] | None = None,
) -> NDArray[np.str_]:
    """Split of every image: at random by unit, stratified by class.

    A unit with images of several classes is drawn with the one that fewest units have, so that rare classes are spread most evenly, and
    counts for all of them. Where an image itself can have several findings, all of them are spread evenly (:func:`_iteratively`).

    Args:
        units: what stays together, ``int64 [n]``, as :func:`tie` gives it.
        labels: class indices ``int64 [n]``, or which of several findings each image has, ``bool [n, K]``.
        shares: share of each split; they sum to 1.
        classes: class names.
        rng: source of the drawing.
        noun: what a unit is called in the error.
        fixed: the split that an image has already, and with it its unit; an empty string where it has none. The others fill up what each
            split lacks of its share.

    Raises:
        InputError: a class has fewer than :data:`MIN_PATIENTS` units for each split.
    """
    present = _present(units, labels, len(classes))
    counts = present.sum(axis=0)
    needed = MIN_PATIENTS * len(shares)
    if (counts < needed).any():
        lacking = ", ".join(f"class {classes[index]} has {counts[index]}" for index in np.flatnonzero(counts < needed).tolist())
        raise InputError(
            f"too few {noun} to split: {lacking}; {needed} of every class are needed ({MIN_PATIENTS} in each of {', '.join(shares)}): "
            f"add {noun}, or leave the class out"
        )
    settled = np.zeros(len(present), np.array(list(shares)).dtype)
    if fixed is not None:
        settled[units[fixed != ""]] = fixed[fixed != ""]
    draw = _iteratively if labels.ndim == 2 else _by_rarest
    for _ in range(DRAWS):
        chosen = settled.copy()
        draw(present, chosen, shares, rng)
        short = _lacking(present, chosen, list(shares))
        if short is None:
            return chosen[units]
    assert short is not None
    index, missing = short
    new, stay = ("new ", f", and earlier {noun} stay where they are") if (settled != "").any() else ("", "")
    raise InputError(
        f"too few {new}{noun} to split: class {classes[index]} lacks {missing}{stay}: add {noun}, or leave the class out of ingest.classes"
    )


def _lacking(present: NDArray[np.bool_], chosen: NDArray[np.str_], names: Sequence[str]) -> tuple[int, str] | None:
    """The first class of which a split has too few units, and what each lacks; None where there is none."""
    for index in range(present.shape[1]):
        there = [int((chosen[present[:, index]] == split).sum()) for split in names]
        if missing := [f"{MIN_PATIENTS - count} in {name}" for name, count in zip(names, there) if count < MIN_PATIENTS]:
            return index, " and ".join(missing)
    return None


def _by_rarest(present: NDArray[np.bool_], chosen: NDArray[np.str_], shares: Mapping[str, float], rng: np.random.Generator) -> None:
    """As :func:`_iteratively`, of the units of each class by themselves; a unit of several counts for the one that fewest have."""
    stratum, names = _strata(present), np.array(list(shares))
    for index in range(present.shape[1]):
        members = np.flatnonzero(stratum == index)
        taken = np.array([(chosen[members] == split).sum() for split in names])
        free = rng.permutation(members[chosen[members] == ""])
        chosen[free] = np.repeat(names, _apportion(len(free), list(shares.values()), taken))


def _iteratively(present: NDArray[np.bool_], chosen: NDArray[np.str_], shares: Mapping[str, float], rng: np.random.Generator) -> None:
    """Fill in the split of the units that have none yet: iterative stratification (Sechidis et al. 2011,
    doi:10.1007/978-3-642-23808-6_10, algorithm 1).

    The finding that the fewest of them have comes first, and each unit with it goes where this finding is wanted most, of several such
    splits where units are, and else by chance. A split that lacks :data:`MIN_PATIENTS` of the finding has precedence.

    Args:
        present: which findings the units have, ``[units, K]``.
        chosen: split of each unit, ``[units]``, an empty string where it is to be filled in.
    """
    names, share = np.array(list(shares)), np.array(list(shares.values()))
    there = np.array([present[chosen == name].sum(axis=0) for name in names]).reshape(len(names), -1)
    units = np.array([(chosen == name).sum() for name in names])
    lack, room = share[:, None] * present.sum(axis=0) - there, share * len(present) - units
    free = rng.permutation(np.flatnonzero(chosen == ""))
    while len(free):
        left = present[free].sum(axis=0)
        if not left.any():
            break
        finding = int(np.where(left > 0, left, len(present) + 1).argmin())
        for unit in free[present[free, finding]]:
            short = there[:, finding] < MIN_PATIENTS
            order = np.lexsort((rng.random(len(names)), -room, -lack[:, finding], ~short))
            _put(int(order[0]), present[unit], lack, room, there)
            chosen[unit] = names[order[0]]
        free = free[~present[free, finding]]
    for unit in free:
        place = int(np.lexsort((rng.random(len(names)), -room))[0])
        _put(place, present[unit], lack, room, there)
        chosen[unit] = names[place]


def _put(split: int, findings: NDArray[np.bool_], lack: NDArray[np.float64], room: NDArray[np.float64], there: NDArray[np.int64]) -> None:
    """Count a unit in a split."""
    lack[split] -= findings
    there[split] += findings
    room[split] -= 1


def _present(units: NDArray[np.int64], labels: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """Which classes the images of each unit have, ``[units, classes]``."""
    present = np.zeros((int(units.max()) + 1, classes), bool)
    if labels.ndim == 2:
        np.logical_or.at(present, units, labels)
    else:
        present[units, labels] = True
    return present


def _strata(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Class by which each unit is drawn: of those that it has, the one that fewest units have."""
    return np.asarray(np.where(present, present.sum(axis=0), len(present) + 1).argmin(axis=1), np.int64)


def _apportion(total: int, shares: Sequence[float], taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers that sum to ``total`` and bring ``taken`` near the ``shares`` (largest remainders), and to MIN_PATIENTS if possible."""
    lack = (total + taken.sum()) * np.asarray(shares, np.float64) - taken
    more = np.zeros(len(lack), np.int64)
    for _ in range(total):
        more[(lack - more).argmax()] += 1
    while ((lacking := taken + more < MIN_PATIENTS) & (more.sum() > 0)).any():
        spare = np.where((more > 0) & (taken + more > MIN_PATIENTS), taken + more, -1)
        if spare.max() < 0:
            break
        more[spare.argmax()] -= 1
        more[np.where(lacking, taken + more, total + 1).argmin()] += 1
    return more


def _details(images: NDArray[Any], index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Unit vectors ``float32 [n, d]`` of what a local mean leaves of these images; zero where it leaves nothing."""
    vectors = []
    for chosen in _parts(index, images):
        small = _small(images, chosen).astype(np.float32)
        detail = (small - uniform_filter(small, (0, 0, DETAIL, DETAIL), mode="nearest")).reshape(len(small), -1)
        norm = np.linalg.norm(detail, axis=1, keepdims=True)
        # One grey level of detail in every pixel is rounding, not structure.
        vectors.append(np.where(norm > np.sqrt(detail.shape[1]), detail / np.maximum(norm, 1e-6), 0).astype(np.float32))
    return np.concatenate(vectors)


def _small(images: NDArray[Any], index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """These images ``[n, C, side, side]``, of :data:`DESCRIPTOR_SIDE` pixels at the most; three slices of a volume as channels."""
    part = np.asarray(images[index])
    if part.ndim == 5:
        depth = part.shape[2]
        part = part[:, :, [depth // 4, depth // 2, 3 * depth // 4]].reshape(len(part), -1, *part.shape[3:])
    part = (part // 256).astype(np.uint8) if part.dtype == np.uint16 else part
    return fit(part, DESCRIPTOR_SIDE) if part.shape[-1] > DESCRIPTOR_SIDE else part


def _components(n: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def groups_of_several(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups numbered as by :func:`renumber`, -1 for those of a single member."""
    known = groups >= 0
    sizes = np.bincount(groups[known], minlength=1)
    return renumber(np.where(known & (sizes[np.where(known, groups, 0)] > 1), groups, -1))


def renumber(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number groups from 0 in order of first appearance; -1 stays."""
    values, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    known = values >= 0
    rank = np.full(len(values), -1, np.int64)
    rank[known] = np.argsort(np.argsort(first[known]))
    return rank[inverse]
