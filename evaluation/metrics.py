"""Statistics of classifiers' scores on labelled rows, each with what an interval needs to know of it. All in float64.

Everywhere a higher score means "more positive". A statistic comes as an :class:`Estimate`: its value, and the influence of every row on
it, from which :mod:`evaluation.intervals` finds how much it would vary over other patients and other trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
TOO_FEW = 5
"""Patients of the smaller side under which no interval is given: with so few, every method's coverage hangs on the scores' distribution."""


@dataclass(frozen=True)
class Estimate:
    """A statistic of n rows, of one training or of several.

    Attributes:
        by_seed: its value for each training, ``[S]``.
        influence: of every row on the mean over trainings, ``[n]``, summing to 0: the value's change where a row's share of the sample
            grows by itself (the infinitesimal jackknife; for the AUC the placements of DeLong et al. 1988).
        strata: class of every row ``[n]``: rows of a class are a sample of their own.
        groups: what is drawn together, such as the patient, as integers ``[n]``.
        reference: variance that the statistic would have at a true value, were a group's rows all alike: what few rows do not tell.
        n: rows that it rests on.
        counts: whether each row is a hit or none, so that two of them differ by d only where d of the patients do.
        shares: of which it is the mean, each of a class of its own; none of a statistic that is no mean of shares.
    """

    by_seed: Floats
    influence: Floats
    strata: NDArray[np.int64]
    groups: NDArray[np.int64]
    reference: Callable[[float], float]
    n: int
    counts: bool = False
    shares: tuple[Estimate, ...] = ()

    @property
    def value(self) -> float:
        """Mean over the trainings; NaN where the statistic is not defined."""
        return float(np.mean(self.by_seed))


def auc(scores: ArrayLike, positives: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative) + P(tie)/2 (Mann-Whitney, exact).

    Args:
        scores: ``[n]``, higher means more positive.
        positives: bool ``[n]``. NaN is returned where one of the two sides is empty.
    """
    positive = np.asarray(positives, dtype=bool)
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if not n_pos or not n_neg:
        return math.nan
    _, tie, counts = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((mid_ranks[tie][positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def macro_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean one-versus-rest AUC over the classes that occur in ``labels``.

    Args:
        probabilities: ``[n, K]``.
        labels: class indices ``[n]``.
    """
    p, y = np.asarray(probabilities), np.asarray(labels)
    return float(mean_defined(np.array([auc(p[:, k], y == k) for k in range(p.shape[1])])))


def tpr_at_fpr(scores: ArrayLike, positives: ArrayLike, fpr: float) -> float:
    """The largest true-positive rate among thresholds whose false-positive rate does not exceed ``fpr`` (no interpolation).

    A row is called positive when its score reaches the threshold; the threshold above all scores (rate 0) counts too.
    """
    positive = np.asarray(positives, dtype=bool)
    s = np.asarray(scores, dtype=np.float64)
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if not n_pos or not n_neg:
        return math.nan
    order = np.argsort(-s, kind="stable")
    last_of_tie = np.r_[np.diff(s[order]) != 0, True]
    tp = np.cumsum(positive[order])[last_of_tie]
    fp = np.cumsum(~positive[order])[last_of_tie]
    allowed = tp[fp / n_neg <= fpr]
    return float(allowed.max(initial=0) / n_pos)


def mean_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is. Macro averages skip absent classes so."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0).sum(axis=-1) / defined.sum(axis=-1))


def auc_estimate(scores: ArrayLike, positives: ArrayLike, groups: ArrayLike) -> Estimate:
    """:func:`auc`, of scores ``[n]`` or of several trainings' ``[S, n]``; rows of a group are of one patient.

    The reference variance is that of Hanley & McNeil 1982 in Newcombe's form (2006, "Confidence intervals for an effect size measure based
    on the Mann-Whitney statistic, part 2", method 5).
    """
    table, positive = np.atleast_2d(np.asarray(scores, np.float64)), np.asarray(positives, bool)
    of_groups = _integers(groups)
    found = [_placed(one, positive) for one in table]
    sides = tuple(independent(of_groups[side]) for side in (positive, ~positive))
    return Estimate(
        np.array([value for value, _ in found]),
        np.mean([influence for _, influence in found], axis=0),
        positive.astype(np.int64),
        of_groups,
        lambda value: hanley_mcneil(value, *sides),
        len(positive),
    )


def independent(groups: NDArray[Any]) -> float:
    """As how many groups of one size rows ``[n]`` of groups vary, where those of a group are all alike: Kish's effective number, which is
    that of the groups where they have as many rows each. One patient who has half of the images has half of the weight."""
    sizes = np.unique(groups, return_counts=True)[1]
    return float(sizes.sum() ** 2 / np.square(sizes).sum()) if len(sizes) else 0.0


def counted(labels: ArrayLike, groups: ArrayLike, classes: int) -> list[int]:
    """The classes that a mean over classes is of: those that TOO_FEW patients or more have, and as many have not.

    How much the others' share of the mean varies cannot be told: one patient of a class would leave all of them without an interval.
    Where there is none, all that occur.
    """
    y, of_groups = np.asarray(labels), np.asarray(groups)
    sides = [[len(np.unique(of_groups[(y == k) == side])) for side in (True, False)] for k in range(classes)]
    return [k for k in range(classes) if min(sides[k]) >= TOO_FEW] or [k for k in range(classes) if sides[k][0]]


def macro_auc_estimate(probabilities: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> Estimate:
    """:func:`macro_auc`, of probabilities ``[n, K]`` or of several trainings' ``[S, n, K]``, over the classes that are :func:`counted`.

    The reference takes the classes' areas to be correlated by one half: less than where one class is taken for another, and more than
    where each is taken for anything.
    """
    table, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    table = table[None] if table.ndim == 2 else table
    kept = [k for k in counted(y, groups, table.shape[2]) if not (y == k).all()]
    one_each = [auc_estimate(table[:, :, k], y == k, groups) for k in kept]
    if not one_each:
        return _undefined(len(table), y, groups)
    return Estimate(
        np.mean([one.by_seed for one in one_each], axis=0),
        np.mean([one.influence for one in one_each], axis=0),
        _strata(y, kept),
        one_each[0].groups,
        lambda value: half_correlated([one.reference(value) for one in one_each]),
        len(y),
    )


def share_estimate(hits: ArrayLike, groups: ArrayLike) -> Estimate:
    """Share of rows that are hits: bool or float ``[n]``, or of several trainings ``[S, n]``; NaN without a row."""
    table, of_groups = np.atleast_2d(np.asarray(hits, np.float64)), _integers(groups)
    n, units = table.shape[1], independent(of_groups)
    if not n:
        return _undefined(len(table), of_groups, of_groups)
    by_seed = table.mean(axis=1)
    influence = (table.mean(axis=0) - by_seed.mean()) / n
    counts = bool(np.isin(table, (0, 1)).all())
    return Estimate(by_seed, influence, np.zeros(n, np.int64), of_groups, lambda value: value * (1 - value) / units, n, counts)


def recall_estimate(predicted: ArrayLike, labels: ArrayLike, groups: ArrayLike, label: int) -> Estimate:
    """Recall of the class ``label``: predicted classes ``[n]`` or ``[S, n]``."""
    rows = np.asarray(labels) == label
    return share_estimate(np.atleast_2d(np.asarray(predicted))[:, rows] == label, np.asarray(groups)[rows])


def balanced_accuracy_estimate(predicted: ArrayLike, labels: ArrayLike, groups: ArrayLike, classes: int) -> Estimate:
    """Mean recall of the classes that are :func:`counted`."""
    table, y, of_groups = np.atleast_2d(np.asarray(predicted)), np.asarray(labels), _integers(groups)
    kept = counted(y, of_groups, classes)
    if not kept:
        return _undefined(len(table), y, groups)
    influence = np.zeros(len(y))
    recalls = [recall_estimate(table, y, of_groups, k) for k in kept]
    for k, recall in zip(kept, recalls):
        influence[y == k] = recall.influence / len(kept)
    by_seed = np.mean([recall.by_seed for recall in recalls], axis=0)
    return Estimate(
        by_seed,
        influence,
        _strata(y, kept),
        of_groups,
        lambda value: sum(recall.reference(value) for recall in recalls) / len(recalls) ** 2,
        sum(recall.n for recall in recalls),
        all(recall.counts for recall in recalls),
        tuple(recalls),
    )


def brier_estimate(probabilities: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> Estimate:
    """Brier's score in 0..1, of probabilities ``[n, K]`` or of several trainings' ``[S, n, K]``: lower is better.

    Half the squared distance to the true class (Brier 1950), so that for two classes it is the usual (p − y)². The largest variance that a
    mean of numbers in 0..1 can have is its reference.
    """
    table = np.asarray(probabilities, np.float64)
    distance = (table if table.ndim == 3 else table[None]) - np.eye(table.shape[-1])[np.asarray(labels)]
    return share_estimate(np.square(distance).sum(axis=2) / 2, groups)


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of the largest probability (Guo et al. 2017, eq. 3), of probabilities ``[n, K]``; NaN without a row.

    Mean distance between confidence and accuracy over equal bins of confidence. It is never negative, and the smaller n, the larger it
    comes out, also for a calibrated classifier: compare it at equal n only.
    """
    p = np.asarray(probabilities, np.float64)
    if not len(p):
        return math.nan
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == np.asarray(labels)
    bin_ = np.ceil(confidence * bins).astype(np.int64)
    return float(np.abs(np.bincount(bin_, confidence - hit)).sum() / len(p))


def _integers(groups: ArrayLike) -> NDArray[np.int64]:
    return np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _strata(labels: NDArray[Any], kept: list[int]) -> NDArray[np.int64]:
    """The classes as strata; rows of those that are not counted, negatives of all others, are drawn with the largest that is."""
    largest = max(kept, key=lambda k: int((labels == k).sum()))
    return np.where(np.isin(labels, kept), labels, largest).astype(np.int64)


def _undefined(seeds: int, labels: ArrayLike, groups: ArrayLike) -> Estimate:
    y = np.asarray(labels)
    return Estimate(np.full(seeds, math.nan), np.zeros(len(y)), y.astype(np.int64), _integers(groups), lambda value: math.nan, len(y))


def _placed(scores: Floats, positive: NDArray[np.bool_]) -> tuple[float, Floats]:
    """AUC and the influence of every row: each row's placement among the other side's, about their mean."""
    above, below = scores[positive], scores[~positive]
    if not len(above) or not len(below):
        return math.nan, np.zeros(len(scores))
    influence = np.empty(len(scores))
    for rows, own, other, sign in ((positive, above, np.sort(below), 1), (~positive, below, np.sort(above), -1)):
        lower = (np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")) / 2 / len(other)
        influence[rows] = lower if sign > 0 else 1 - lower
    value = float(influence[positive].mean())
    for rows in (positive, ~positive):
        influence[rows] = (influence[rows] - value) / rows.sum()
    return value, influence


def half_correlated(variances: list[float]) -> float:
    """Variance of the mean of statistics that are correlated by one half."""
    together = sum(math.sqrt(variance) for variance in variances) ** 2
    return (together + sum(variances)) / 2 / len(variances) ** 2


def hanley_mcneil(value: float, positives: float, negatives: float) -> float:
    """Variance of an AUC of this value over that many positives and negatives (Hanley & McNeil 1982, in Newcombe's 2006 form)."""
    more = (positives + negatives) / 2 - 1
    spread = 1 + more * ((1 - value) / (2 - value) + value / (1 + value))
    return value * (1 - value) * spread / (positives * negatives)
