"""How close synthetic images are to real ones that the generator never saw, beside the floor of real against real.

Every measure is asymmetric in the same way: ``reference`` is real and held out, ``candidate`` is synthetic, or for the
floor the other half of the held-out images. Both sides always have the same n and the same classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled, halve
from evaluation.intervals import Spread
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
    spaces: Sequence[Callable[[NDArray[np.float32]], Floats]],
    class_names: tuple[str, ...],
    *,
    rng: np.random.Generator,
    repeats: int = 20,
) -> dict[str, Any]:
    """The protocol: synthetic against half A of the held-out images, beside the floor of half B against A, at equal n and mix.

    Args:
        audit: real images that no generator or encoder saw.
        spaces: each from images ``[n, C, H, W]`` to features ``[n, D]``, of encoders trained on neither set; halvings take them in turn, so
            that the spread holds the luck of the encoder, too.
        repeats: random halvings, whose percentiles are given as a spread: that over splits of one cohort, and no interval.

    Returns:
        ``n`` (images a side), ``repeats``, ``frechet``, ``kid``, ``prdc`` and ``per_class``, with :class:`Spread` leaves; a class with
        fewer than 50 images a side is ``{"omitted": reason}``.
    """
    classes = len(class_names)
    seen = [(space(audit.unit), space(synthetic.unit)) for space in spaces]
    draws = [draw(audit, synthetic.labels, rng, classes) for _ in range(repeats)]
    result: dict[str, Any] = {"n": min(len(d.a) for d in draws), "repeats": repeats}
    result |= _compare(draws, seen)
    result["per_class"] = {name: _one_class(k, audit, synthetic, seen, rng, repeats) for k, name in enumerate(class_names)}
    return result


def _one_class(
    k: int, audit: Labelled, synthetic: Labelled, seen: Sequence[tuple[Floats, Floats]], rng: np.random.Generator, repeats: int
) -> dict[str, Any]:
    rows, columns = np.flatnonzero(audit.labels == k), np.flatnonzero(synthetic.labels == k)
    single = Labelled.of_classes(audit.images[rows], np.zeros(len(rows), dtype=np.int64), audit.groups[rows], 1)
    n = min(len(rows) // 2, len(columns))
    if n < PER_CLASS_MIN:
        return {"omitted": f"{n} images a side, fewer than {PER_CLASS_MIN}"}
    draws = [draw(single, np.zeros(len(columns), dtype=np.int64), rng, 1) for _ in range(repeats)]
    draws = [Draw(rows[d.a], rows[d.b], columns[d.synthetic]) for d in draws]
    return {"n": min(len(d.a) for d in draws)} | _compare(draws, seen)


def _compare(draws: Sequence[Draw], seen: Sequence[tuple[Floats, Floats]]) -> dict[str, Any]:
    """Every feature-space measure of synthetic against A and of B against A; ``seen`` are the features of both sets by space."""
    turns = list(zip(draws, itertools.cycle(seen)))
    synthetic = measures([(made[d.synthetic], real[d.a]) for d, (real, made) in turns])
    floor = measures([(real[d.b], real[d.a]) for d, (real, _) in turns])
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
    """:func:`measures` of synthetic sets beside those of the floor: medians and spreads, and the Fréchet distances' ratio."""
    beside = {name: {"synthetic": Spread.of(values, n), "floor": Spread.of(floor[name], n)} for name, values in synthetic.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = synthetic["frechet"] / floor["frechet"]
    return {
        "frechet": beside["frechet"] | {"ratio": Spread.of(ratio, n)},
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
