"""How close synthetic images are to real ones that the generator never saw, beside the floor of real against real.

Every measure is asymmetric in the same way: ``reference`` is real and held out, ``candidate`` is synthetic, or for the
floor the other half of the held-out images. Both sides always have the same n and the same classes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.encoder import Kind, train_classifier, train_together
from evaluation.intervals import Interval, percentile_interval, resample_weights, weighted_auc
from evaluation.metrics import Floats

PER_CLASS_MIN = 50
NEIGHBOURS = 5
MANIFOLD = ("precision", "recall", "density", "coverage")


def frechet_distance(x: Floats, y: Floats) -> float:
    """Fréchet distance of the Gaussians fitted to two feature sets ``[n, D]``, ``[m, D]`` (Heusel et al. 2017, eq. 6).

    ``|mu_x - mu_y|^2 + Tr(S_x + S_y - 2 (S_x^1/2 S_y S_x^1/2)^1/2)``: the symmetric form has real, non-negative
    eigenvalues, so that it stays stable for singular covariances (n < D).
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    cov_x, cov_y = (np.atleast_2d(np.cov(z, rowvar=False)) for z in (x, y))
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_y @ root), 0, None)).sum()
    mean = x.mean(axis=0) - y.mean(axis=0)
    return float(max(mean @ mean + np.trace(cov_x) + np.trace(cov_y) - 2 * cross, 0.0))


def kernel_distance(x: Floats, y: Floats) -> float:
    """Unbiased squared MMD with the kernel ``(x.y / D + 1)^3`` (KID: Binkowski et al. 2018, eq. 4); may be negative.

    Between sets of equal class mix it lies below 0 on average even without any difference: read it beside its floor.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)

    def kernel(a: Floats, b: Floats) -> Floats:
        base = np.asarray(a @ b.T / a.shape[1] + 1)
        return np.asarray(base * base * base)  # ten times as fast as a power

    def within(a: Floats) -> float:
        k = kernel(a, a)
        return float((k.sum() - np.trace(k)) / (len(a) * (len(a) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def prdc(candidate: Floats, reference: Floats, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019, eq. 2) and density and coverage (Naeem et al. 2020, eqs. 3, 4).

    Args:
        candidate, reference: features ``[m, D]``, ``[n, D]``; more than ``k`` rows each.
        k: a row's ball reaches to its k-th nearest neighbour among its own set, itself left out.

    Returns:
        ``precision`` and ``recall`` and ``coverage`` in 0..1, ``density`` from 0 (can exceed 1).
    """
    if min(len(candidate), len(reference)) <= k:
        raise ValueError(f"precision and recall with {k} neighbours need more than {k} images on both sides")
    reference_radius, candidate_radius = _radius(reference, k), _radius(candidate, k)
    distance = _distances(reference, candidate)
    inside_reference = distance <= reference_radius[:, None]
    return {
        "precision": float(inside_reference.any(axis=0).mean()),
        "recall": float((distance <= candidate_radius[None, :]).any(axis=1).mean()),
        "density": float(inside_reference.sum(axis=0).mean() / k),
        "coverage": float(inside_reference.any(axis=1).mean()),
    }


def _distances(a: Floats, b: Floats) -> Floats:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.clip(squared, 0, None)))


def _radius(a: Floats, k: int) -> Floats:
    distance = _distances(a, a)
    np.fill_diagonal(distance, np.inf)
    return np.asarray(np.partition(distance, k - 1, axis=1)[:, k - 1])


@dataclass(frozen=True)
class TwoSample:
    """A classifier two-sample test: scores are higher for the candidate; fold f was scored by the network of the other fold."""

    scores: Floats
    is_candidate: NDArray[np.bool_]
    fold: NDArray[np.int64]
    groups: NDArray[np.int64]
    labels: NDArray[np.int64]

    def scored(self, by_fold: Sequence[Floats]) -> TwoSample:
        """With the scores of fold 0's rows and of fold 1's, each by the network of the other fold."""
        scores = np.empty(len(self.labels))
        for f, values in enumerate(by_fold):
            scores[self.fold == f] = values
        return dataclasses.replace(self, scores=scores)

    def areas(self, weights: Floats, label: int | None = None) -> Floats:
        """AUC (0.5: cannot be told apart) under weights ``[B, n]``: ``[B]``, the mean of both folds; within one class if given."""
        keep = np.ones(len(self.labels), dtype=bool) if label is None else self.labels == label
        folds = [keep & (self.fold == f) for f in (0, 1)]
        return np.asarray(np.mean([weighted_auc(self.scores[rows], self.is_candidate[rows], weights[:, rows]) for rows in folds], axis=0))

    def interval(self, rng: np.random.Generator, resamples: int = 500, label: int | None = None) -> Interval:
        """:meth:`areas`, bootstrapped by group."""
        keep = np.ones(len(self.labels), dtype=bool) if label is None else self.labels == label
        if not (self.fold >= 0).any():
            return Interval(math.nan, math.nan, math.nan, int(keep.sum()))
        weights = np.concatenate([np.ones((1, len(self.groups))), resample_weights(self.groups, rng, resamples)])
        areas = self.areas(weights, label)
        return percentile_interval(float(areas[0]), areas[1:], int(keep.sum()))


def two_sample_halves(candidate: Labelled, reference: Labelled, rng: np.random.Generator) -> tuple[NDArray[np.float32], TwoSample]:
    """The images ``[n, C, H, W]`` of a two-sample test and their halves, drawn by group, before anything is scored (scores are 0).

    No patient is in both halves. With fewer than two groups a side nothing can be held out: no row is in a fold then (-1).
    """
    images = np.concatenate([candidate.unit, reference.unit])
    is_candidate = np.repeat([True, False], [len(candidate), len(reference)])
    groups = _joint_groups(candidate.groups, reference.groups)
    labels = np.concatenate([candidate.labels, reference.labels])
    fold = np.full(len(images), -1, dtype=np.int64)
    if min(len(np.unique(part.groups)) for part in (candidate, reference)) >= 2:
        for side in (True, False):
            rows = np.flatnonzero(is_candidate == side)
            fold[rows] = halve(groups[rows], rng)
    return images, TwoSample(np.zeros(len(images)), is_candidate, fold, groups, labels)


def two_sample_test(
    candidate: Labelled, reference: Labelled, *, kind: Kind, images_seen: int, rng: np.random.Generator, device: str
) -> TwoSample:
    """Train on one half to tell ``candidate`` from ``reference``, score the other, and the other way round (Lopez-Paz & Oquab 2017).

    Halves are those of :func:`two_sample_halves`; where nothing can be held out, the interval is NaN.
    """
    images, test = two_sample_halves(candidate, reference, rng)
    if not (test.fold >= 0).any():
        return test
    jobs = [
        functools.partial(
            train_classifier,
            images[test.fold != f],
            test.is_candidate[test.fold != f].astype(np.int64),
            kind=kind,
            images_seen=images_seen,
            seed=int(rng.integers(2**31)),
            device=device,
        )
        for f in (0, 1)
    ]
    return test.scored([one.predict(images[test.fold == f])[:, 1] for f, one in enumerate(train_together(jobs, device))])


def _joint_groups(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """Integer groups of two sets of which a patient may have images in only one."""
    first, second = (np.unique(x, return_inverse=True)[1].reshape(-1).astype(np.int64) for x in (a, b))
    return np.concatenate([first, second + (first.max(initial=-1) + 1)])


def halve(groups: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """0 or 1 for every row, whole groups at random, so that the halves' row counts differ by less than the largest group."""
    _, member, size = np.unique(groups, return_inverse=True, return_counts=True)
    half, rows = np.empty(len(size), dtype=np.int64), [0, 0]
    for group in rng.permutation(len(size)):
        half[group] = int(rows[0] > rows[1])
        rows[half[group]] += int(size[group])
    return half[member.reshape(-1)]


@dataclass(frozen=True)
class Draw:
    """One repeat's three index arrays of equal length and equal class counts."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    synthetic: NDArray[np.int64]


def draw(audit: Labelled, synthetic_labels: NDArray[np.int64], rng: np.random.Generator, classes: int) -> Draw:
    """Split the held-out images by patient into A and B, and draw synthetic images to match, without repetition.

    Classes keep the mix of the held-out images; n is the largest for which both halves and the synthetic images suffice.
    Raises ValueError where a held-out class has no synthetic image.
    """
    half = halve(audit.groups, rng)
    pools = [[np.flatnonzero((half == side) & (audit.labels == k)) for k in range(classes)] for side in (0, 1)]
    pools.append([np.flatnonzero(synthetic_labels == k) for k in range(classes)])
    real = np.array([min(len(pools[0][k]), len(pools[1][k])) for k in range(classes)])
    made = np.array([len(pool) for pool in pools[2]])
    if not made[real > 0].all():
        raise ValueError("a class of the held-out images has no synthetic image: generate some of every class")
    share = min(1.0, float((made[real > 0] / real[real > 0]).min(initial=1.0)))
    counts = np.floor(real * share + 1e-9).astype(int)
    picked = [np.concatenate([rng.permutation(pool[k])[: counts[k]] for k in range(classes)]) for pool in pools]
    return Draw(*picked)


def fidelity(
    audit: Labelled,
    synthetic: Labelled,
    features: Callable[[NDArray[np.float32]], Floats],
    class_names: tuple[str, ...],
    *,
    kind: Kind,
    images_seen: int,
    rng: np.random.Generator,
    device: str,
    repeats: int = 20,
) -> dict[str, Any]:
    """The protocol: synthetic against half A of the held-out images, beside the floor of half B against A, at equal n and mix.

    Args:
        audit: real images that no generator or encoder saw.
        features: from images ``[n, C, H, W]`` to features ``[n, D]``, of an encoder trained on neither set.
        kind, images_seen, device: of the two-sample classifiers.
        repeats: random halvings. Their 2.5 and 97.5 percentiles are the intervals of all but the two-sample test (which is
            trained once, and bootstrapped by patient): the spread over splits of one cohort.

    Returns:
        ``n`` (images a side), ``repeats``, ``frechet``, ``kid``, ``two_sample``, ``prdc`` and ``per_class``, with
        :class:`Interval` leaves; a class with fewer than 50 images a side is ``{"omitted": reason}``.
    """
    classes = len(class_names)
    real, made = features(audit.unit), features(synthetic.unit)
    draws = [draw(audit, synthetic.labels, rng, classes) for _ in range(repeats)]
    result: dict[str, Any] = {"n": min(len(d.a) for d in draws), "repeats": repeats}
    result |= _compare(draws, real, made)
    first = draws[0]
    reference = audit.take(first.a)
    tests = {
        name: two_sample_test(side, reference, kind=kind, images_seen=images_seen, rng=rng, device=device)
        for name, side in (("synthetic", synthetic.take(first.synthetic)), ("floor", audit.take(first.b)))
    }
    result["two_sample"] = {name: test.interval(rng) for name, test in tests.items()}
    result["per_class"] = {name: _one_class(k, audit, synthetic, real, made, tests, rng, repeats) for k, name in enumerate(class_names)}
    return result


def _one_class(
    k: int,
    audit: Labelled,
    synthetic: Labelled,
    real: Floats,
    made: Floats,
    tests: dict[str, TwoSample],
    rng: np.random.Generator,
    repeats: int,
) -> dict[str, Any]:
    rows, columns = np.flatnonzero(audit.labels == k), np.flatnonzero(synthetic.labels == k)
    single = Labelled.of_classes(audit.images[rows], np.zeros(len(rows), dtype=np.int64), audit.groups[rows], 1)
    n = min(len(rows) // 2, len(columns))
    if n < PER_CLASS_MIN:
        return {"omitted": f"{n} images a side, fewer than {PER_CLASS_MIN}"}
    draws = [draw(single, np.zeros(len(columns), dtype=np.int64), rng, 1) for _ in range(repeats)]
    draws = [Draw(rows[d.a], rows[d.b], columns[d.synthetic]) for d in draws]
    two_sample = {name: test.interval(rng, label=k) for name, test in tests.items()}
    return {"n": min(len(d.a) for d in draws)} | _compare(draws, real, made) | {"two_sample": two_sample}


def _compare(draws: list[Draw], real: Floats, made: Floats) -> dict[str, Any]:
    """Every feature-space measure of synthetic against A and of B against A, with percentiles over the draws."""
    synthetic = measures([(made[d.synthetic], real[d.a]) for d in draws])
    floor = measures([(real[d.b], real[d.a]) for d in draws])
    return compare(synthetic, floor, min(len(d.a) for d in draws))


def measures(pairs: Sequence[tuple[Floats, Floats]]) -> dict[str, Floats]:
    """Feature-space measures of pairs (candidate, reference) of sets ``[n, D]``, each ``[pairs]``.

    They are ``frechet``, ``kid`` and those of :data:`MANIFOLD`; a measure is NaN where the sets are too small for it.
    """
    n = min(len(side) for pair in pairs for side in pair)
    undefined = dict.fromkeys(MANIFOLD, math.nan)
    balls = [prdc(x, y) if n > NEIGHBOURS else undefined for x, y in pairs]
    found = {name: np.array([one[name] for one in balls]) for name in MANIFOLD}
    for name, measure in (("frechet", frechet_distance), ("kid", kernel_distance)):
        found[name] = np.array([measure(x, y) if n >= 2 else math.nan for x, y in pairs])
    return found


def compare(synthetic: dict[str, Floats], floor: dict[str, Floats], n: int) -> dict[str, Any]:
    """:func:`measures` of synthetic sets beside those of the floor: medians with percentiles, and the Fréchet distances' ratio."""

    def spread(values: Floats) -> Interval:
        finite = values[np.isfinite(values)]
        return percentile_interval(float(np.median(finite)) if len(finite) else math.nan, finite, n)

    beside = {name: {"synthetic": spread(values), "floor": spread(floor[name])} for name, values in synthetic.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = synthetic["frechet"] / floor["frechet"]
    return {
        "frechet": beside["frechet"] | {"ratio": spread(ratio)},
        "kid": beside["kid"],
        "prdc": {name: beside[name] for name in MANIFOLD},
    }


def standardised_features(
    encoder: Callable[[NDArray[np.float32]], NDArray[np.float32]], fitted_on: NDArray[np.float32]
) -> Callable[[NDArray[np.float32]], Floats]:
    """An encoder's features with mean 0 and standard deviation 1 on the images that it was trained on; dead ones are dropped."""
    values = encoder(fitted_on).astype(np.float64)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    alive = deviation > 1e-3 * deviation.max()

    def features(images: NDArray[np.float32]) -> Floats:
        return np.asarray((encoder(images).astype(np.float64)[:, alive] - mean[alive]) / deviation[alive])

    return features
