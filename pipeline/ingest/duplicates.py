"""Near-duplicates: images that show the same picture, as it is or moved, found among all pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from pipeline.ingest.groups import components, groups_of_several
from pipeline.ingest.standardize import fit

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
# Images among which moved ones are sought, at the most: 10 s for 5 856 on two cores, a part of it by the square of their number.
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
        cluster[:] = components(len(images), cluster[left], cluster[right])[cluster]
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
            cluster[:] = components(len(images), cluster[which[left]], cluster[which[right]])[cluster]
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
