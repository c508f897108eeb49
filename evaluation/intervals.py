"""Numbers with their intervals: proportions, rank statistics, and the bootstrap by patient. All in float64.

Everywhere a higher score means "more positive". Rows that belong together (images of one patient) share a group, and
are resampled together: otherwise the interval would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval.

    Attributes:
        value: the estimate; NaN where it is not defined.
        low, high: the bounds, in the value's unit.
        n: how many rows (images, trials) it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON: ``{"value", "low", "high", "n"}``, with None for what is not finite."""
        value, low, high = (float(x) if math.isfinite(x) else None for x in (self.value, self.low, self.high))
        return {"value": value, "low": low, "high": high, "n": int(self.n)}


def to_json(value: Any) -> Any:
    """Nested dicts and lists with :class:`Interval` leaves as plain JSON values, with None for NaN and infinities."""
    if isinstance(value, Interval):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact two-sided interval of a proportion of ``k`` successes in ``n`` trials (Clopper & Pearson 1934).

    ``n = 0`` gives the value NaN and the interval 0..1. Raises ValueError unless 0 <= k <= n.
    """
    tail = (1 - confidence) / 2
    return Interval(k / n if n else math.nan, _lower(k, n, tail), _upper(k, n, tail), n)


def clopper_pearson_upper(k: int, n: int, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound of a proportion: 0 of n gives 1 - (1 - confidence)^(1/n), about 3/n at 95 %."""
    return _upper(k, n, 1 - confidence)


def clopper_pearson_lower(k: int, n: int, confidence: float = 0.95) -> float:
    """Exact one-sided lower bound of a proportion: n of n gives (1 - confidence)^(1/n)."""
    return _lower(k, n, 1 - confidence)


def _check(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials: k must lie in 0..n")


def _lower(k: int, n: int, tail: float) -> float:
    _check(k, n)
    return 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))


def _upper(k: int, n: int, tail: float) -> float:
    _check(k, n)
    return 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))


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


def weighted_recalls(predicted: ArrayLike, labels: ArrayLike, classes: int, weights: Floats) -> Floats:
    """Recall of each class in every resample: class indices ``[n]``, weights ``[B, n]`` -> ``[B, K]`` (NaN where absent)."""
    y = np.asarray(labels)
    one_hot = np.eye(classes)[y]
    hit = (np.asarray(predicted) == y)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ (one_hot * hit)) / (weights @ one_hot), dtype=np.float64)


def mean_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is. Macro averages skip absent classes so."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0).sum(axis=-1) / defined.sum(axis=-1))


@dataclass(frozen=True)
class Resampled:
    """One classifier's metrics on the sample itself (row 0) and on its B resamples.

    Attributes:
        auc: macro one-versus-rest AUC ``[1 + B]``.
        accuracy: share named right ``[1 + B]``.
        balanced_accuracy: mean recall of the classes ``[1 + B]``.
        class_auc, class_recall: ``[1 + B, K]``, NaN where a class is absent.
    """

    auc: Floats
    accuracy: Floats
    balanced_accuracy: Floats
    class_auc: Floats
    class_recall: Floats


def resampled_metrics(probabilities: Floats, labels: NDArray[np.int64], weights: Floats) -> Resampled:
    """Metrics of probabilities ``[n, K]`` against classes ``[n]`` under :func:`resample_weights` ``[B, n]``."""
    weights = np.concatenate([np.ones((1, weights.shape[1])), weights])
    classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    class_auc = np.stack([weighted_auc(probabilities[:, k], labels == k, weights) for k in range(classes)], axis=1)
    class_recall = weighted_recalls(predicted, labels, classes, weights)
    accuracy = np.asarray(weights @ (predicted == labels) / weights.sum(axis=1))
    return Resampled(mean_defined(class_auc), accuracy, mean_defined(class_recall), class_auc, class_recall)


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


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    groups: ArrayLike,
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap of any statistic, resampling whole groups (Efron & Tibshirani 1993, chapters 8 and 13).

    Args:
        statistic: from an index array of rows (repeated as often as they were drawn) to a number.
        groups: the group of every row ``[n]``, such as the patient; rows of one group are drawn together.
        rng: the only source of randomness.
    """
    rows = np.arange(len(np.asarray(groups)), dtype=np.int64)
    weights = resample_weights(groups, rng, resamples).astype(np.int64)
    draws = [statistic(np.repeat(rows, weight)) for weight in weights]
    return percentile_interval(statistic(rows), draws, len(rows), confidence)
