"""Percentile bootstraps over whole groups, for the benchmarks of a generator's quality.

What a run reports has the intervals of :mod:`evaluation.intervals`, which hold their level at small numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from evaluation.intervals import Interval
from evaluation.metrics import Floats


def resample_weights(groups: ArrayLike, rng: np.random.Generator, resamples: int = 1000) -> Floats:
    """How often each row occurs in each bootstrap resample of whole groups: float64 ``[resamples, n]``.

    Weights instead of index arrays let the ``weighted_*`` statistics below do all resamples at once.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    count = int(member.max()) + 1
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.asarray(weights[:, member.reshape(-1)], dtype=np.float64)


def weighted_auc(scores: ArrayLike, positives: ArrayLike, weights: Floats) -> Floats:
    """:func:`auc` of every resample: ``[n]``, bool ``[n]``, weights ``[B, n]`` -> ``[B]`` (NaN where a side is empty)."""
    positive = np.asarray(positives, dtype=bool)
    if not positive.any() or positive.all():
        return np.full(len(weights), math.nan)
    _, tie = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    order = np.argsort(tie, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(tie[order]) > 0])
    sorted_weights = weights[:, order]
    pos = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    neg = np.add.reduceat(sorted_weights * ~positive[order], starts, axis=1)
    below = np.cumsum(neg, axis=1) - neg
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (pos * (below + neg / 2)).sum(axis=1) / (pos.sum(axis=1) * neg.sum(axis=1))
    return np.asarray(area, dtype=np.float64)


def interval_of(draws: Floats, n: int) -> Interval:
    """The interval of a metric whose value on the sample is ``draws[0]``, and on its resamples the rest."""
    return percentile_interval(float(draws[0]), draws[1:], n)


def percentile_interval(value: float, draws: ArrayLike, n: int, confidence: float = 0.95) -> Interval:
    """The interval between the tails of bootstrap draws; draws that are NaN (a class was not resampled) are left out."""
    values = np.asarray(draws, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(value, math.nan, math.nan, n)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), n)
