"""Numbers with their confidence intervals. All in float64.

Rows that belong together (images of one patient) share a group, and count together: otherwise intervals would be too narrow.
``tests/benchmarks/coverage.py`` simulates how often each interval holds the truth, at the sizes where it is used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from evaluation.metrics import Estimate, Floats, auc_estimate, independent, share_estimate, tpr_at_fpr
from evaluation.variation import Variation, correlations, student_t, variation


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


@dataclass(frozen=True)
class Change:
    """A paired difference that is read beside others.

    Attributes:
        by: the difference with the interval that it has alone.
        p: Holm's adjusted p-value of no difference, over all that are read together; NaN where it was not tested.
    """

    by: Interval
    p: float

    @property
    def stands(self) -> bool:
        """Whether it is shown at the 5 % level that all have together."""
        return self.p < FAMILY

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """For JSON: the interval's, with ``p`` and ``stands``."""
        return {**self.by.to_dict(), "p": float(self.p) if math.isfinite(self.p) else None, "stands": self.stands}


@dataclass(frozen=True)
class Spread:
    """A median with how far it ranges over repeats on the same images, which is no confidence interval: it holds no other patients.

    Attributes:
        value: the median; NaN where it is not defined.
        low, high: the 2.5 and 97.5 percentiles of the repeats.
        repeats: their number.
        n: images a side.
    """

    value: float
    low: float
    high: float
    repeats: int
    n: int

    @classmethod
    def of(cls, values: ArrayLike, n: int) -> Spread:
        """Of the finite ones among repeats ``[R]``."""
        finite = np.asarray(values, np.float64)
        finite = finite[np.isfinite(finite)]
        if not len(finite):
            return cls(math.nan, math.nan, math.nan, 0, n)
        low, value, high = (float(x) for x in np.quantile(finite, [0.025, 0.5, 0.975]))
        return cls(value, low, high, len(finite), n)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``{"value", "spread": [low, high], "repeats", "n"}``, with None for what is not finite."""
        value, low, high = (float(x) if math.isfinite(x) else None for x in (self.value, self.low, self.high))
        return {"value": value, "spread": [low, high], "repeats": self.repeats, "n": int(self.n)}


def to_json(value: Any) -> Any:
    """Nested dicts and lists with :class:`Interval`, :class:`Change` and :class:`Spread` leaves as plain JSON values.

    NaN and infinities become None.
    """
    if isinstance(value, Interval | Change | Spread):
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


def _check(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials: k must lie in 0..n")


def _lower(k: int, n: int, tail: float) -> float:
    _check(k, n)
    return 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))


def _upper(k: int, n: int, tail: float) -> float:
    _check(k, n)
    return 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))


FAMILY = 0.05
"""Probability that any of the differences that are read together is called shown where there is none."""
CROSS_FITTED = 2.0
"""How many times larger the variance of a cross-fitted AUC is than that of as many rows scored by a fixed model. Without an effect, two
folds' statistics are one inner product, of the difference within the one and within the other, divided by either's length: they vary as
one, not as two. Simulated: 1.8 to 2.2 for 2 to 10 folds."""


def interval(estimate: Estimate, confidence: float = 0.95) -> Interval:
    """The interval of a statistic in 0..1 over other patients and other trainings.

    It holds every true value whose distance to the estimate is at most t standard errors *at that value* (a score interval, as Wilson's
    for a proportion and Newcombe's 2006 for the AUC), so that it keeps its level next to 0 and 1. The standard error's dependence on the
    value is the statistic's reference; its size is that of the rows' influences summed by patient (Obuchowski 1997 for the AUC), shrunk
    towards the reference where patients are few, or few of them carry a smaller variance. t has Welch–Satterthwaite's degrees of freedom
    over classes. Trainings add their own variance, as it is, with the t of their own number (:meth:`Variation.reach`). The bounds are NaN
    with fewer than TOO_FEW patients on a side. A mean of shares has the interval that its shares have together (:func:`_mean_of_shares`).
    """
    value = estimate.value
    spread = variation(estimate)
    if spread is None or not math.isfinite(value):
        return Interval(value, math.nan, math.nan, estimate.n)
    if estimate.shares:
        return _mean_of_shares(estimate, spread, confidence)
    expected = estimate.reference(value)
    reach = spread.shrunk(estimate, expected).reach(confidence) if expected > 0 else student_t(confidence, spread.freedom)
    ratio = reach / math.sqrt(expected) if expected > 0 else reach

    def holds(truth: float) -> bool:
        return abs(truth - value) <= ratio * math.sqrt(estimate.reference(truth))

    return Interval(value, edge(holds, value, 0.0), edge(holds, value, 1.0), estimate.n)


def share_interval(estimate: Estimate, confidence: float = 0.95) -> Interval:
    """The interval of a share: Clopper and Pearson's at the number of independent rows that vary as much (Korn & Graubard 1998).

    As with their surveys of few clusters, that number is what makes an interval as wide as t says, which few trainings make wide. Without a
    row there are no bounds.
    """
    value, spread = estimate.value, variation(estimate)
    if not math.isfinite(value) or not estimate.n:
        return Interval(math.nan, math.nan, math.nan, 0)
    rows, expected = independent(estimate.groups), estimate.reference(value)
    if spread is not None and expected > 0:
        like = student_t(confidence, spread.freedom) ** 2 * expected
        rows = min(rows * like / max(spread.shrunk(estimate, expected).reach(confidence) ** 2, 1e-9 * like), float(estimate.n))
    tail, hits = (1 - confidence) / 2, value * rows
    low = 0.0 if hits <= 0 else float(betaincinv(hits, rows - hits + 1, tail))
    high = 1.0 if hits >= rows else float(betaincinv(hits + 1, rows - hits, 1 - tail))
    return Interval(value, low, high, estimate.n)


def cross_fitted(scores: Floats, positives: NDArray[np.bool_], groups: ArrayLike, fold: NDArray[np.int64]) -> Interval:
    """The interval of :func:`cross_fitted_estimate`; without a row in a fold its value and bounds are NaN."""
    if not (fold >= 0).any():
        return Interval(math.nan, math.nan, math.nan, len(scores))
    return interval(cross_fitted_estimate(scores, positives, groups, fold))


def cross_fitted_estimate(scores: Floats, positives: NDArray[np.bool_], groups: ArrayLike, fold: NDArray[np.int64]) -> Estimate:
    """Mean over folds of the AUC within each, where each fold was scored by a model of the others; see :data:`CROSS_FITTED`.

    Args:
        scores, positives, groups: of every row ``[n]``.
        fold: which fold scored it ``[n]``; rows of none are -1.
    """
    parts = [fold == number for number in np.unique(fold) if number >= 0]
    estimates = [auc_estimate(scores[rows], positives[rows], np.asarray(groups)[rows]) for rows in parts]
    influence = np.zeros(len(scores))
    for rows, one in zip(parts, estimates):
        influence[rows] = one.influence * math.sqrt(CROSS_FITTED) / len(parts)
    whole = auc_estimate(scores, positives, groups)
    value = float(np.mean([one.value for one in estimates])) if estimates else math.nan
    return dataclasses.replace(
        whole, by_seed=np.array([value]), influence=influence, reference=lambda truth: CROSS_FITTED * whole.reference(truth)
    )


def tpr_interval(scores: Floats, positives: NDArray[np.bool_], groups: ArrayLike, fpr: float, confidence: float = 0.95) -> Interval:
    """The true-positive rate at a false-positive rate, with an interval over other positives and other negatives.

    Which threshold has that false-positive rate is itself uncertain: every threshold counts whose own rate's interval holds ``fpr``, and so
    does the interval of the true-positive rate at each. Both have half of the error (after Campbell 1994, "Advances in statistical
    methodology for the evaluation of diagnostic and laboratory tests", fixed-width bands), so that the interval holds more often than it
    says. With fewer independent negatives than 4.4 / fpr (437 for 1 %) no threshold is high enough to be excluded: the lower bound is 0.
    """
    positive, of_groups = np.asarray(positives, bool), np.asarray(groups)
    value = tpr_at_fpr(scores, positive, fpr)
    if not math.isfinite(value):
        return Interval(value, 0.0, 1.0, len(positive))
    half = (1 + confidence) / 2
    thresholds = [math.inf, *np.unique(scores[~positive])[::-1]]
    first, last = 0, 0
    for number, threshold in enumerate(thresholds):
        false = share_interval(share_estimate(scores[~positive] > threshold, of_groups[~positive]), half)
        if false.high < fpr:
            first = number
        if false.low > fpr:
            break
        last = number
    # The true threshold lies below the last one that is too high.
    least, most = (
        share_interval(share_estimate(scores[positive] > thresholds[number], of_groups[positive]), half) for number in (first, last)
    )
    return Interval(value, min(value, least.low), max(value, most.high), len(positive))


def predictive_value(sensitivity: Interval, specificity: Interval, prevalence: float) -> Interval:
    """Positive predictive value at a prevalence, by Bayes: logit(ppv) = log(sens) − log(1 − spec) + logit(prevalence).

    The difference of logarithms has the interval that the two have apart (MOVER: Zou & Donner 2008; Li, Koval & Donner 2010).
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"a prevalence lies between 0 and 1, not {prevalence}")

    def logs(*shares: float) -> list[float]:
        return [math.log(max(share, 1e-12)) for share in shares]

    hit, least_hit, most_hit = logs(sensitivity.value, sensitivity.low, sensitivity.high)
    false, least_false, most_false = logs(1 - specificity.value, 1 - specificity.high, 1 - specificity.low)
    ratio = hit - false
    below, above = math.hypot(hit - least_hit, most_false - false), math.hypot(most_hit - hit, false - least_false)
    shift = math.log(prevalence) - math.log1p(-prevalence)
    value, low, high = (1 / (1 + math.exp(-(x + shift))) for x in (ratio, ratio - below, ratio + above))
    return Interval(value, low, high, min(sensitivity.n, specificity.n))


def _mean_of_shares(estimate: Estimate, spread: Variation, confidence: float) -> Interval:
    """The interval of a mean of shares of different classes: each share's distance to its own bound, added as standard errors of such
    correlations are (Zou & Donner 2008), and what trainings vary by besides. One variance for all of them misses what is lopsided: of 11
    patients at a recall of .99 one missed is more than it allows for. Patients with images of several classes correlate their shares; that
    some seem to be opposed makes no interval narrower."""
    count, alike = len(estimate.shares), np.maximum(correlations(estimate), 0)
    of_one_training = (dataclasses.replace(one, by_seed=np.array([one.value])) for one in estimate.shares)
    each = [share_interval(one, confidence) for one in of_one_training]
    trained = dataclasses.replace(spread, patients=0.0).reach(confidence)
    below, above = (np.array([one.value - one.low for one in each]) / count, np.array([one.high - one.value for one in each]) / count)
    low, high = (math.sqrt(trained**2 + float(side @ alike @ side)) for side in (below, above))
    return Interval(estimate.value, max(0.0, estimate.value - low), min(1.0, estimate.value + high), estimate.n)


def edge(holds: Callable[[float], bool], inside: float, end: float) -> float:
    """The last value between ``inside`` and ``end`` that holds, by bisection."""
    if holds(end) or inside == end:
        return end
    for _ in range(50):
        middle = (inside + end) / 2
        inside, end = (middle, end) if holds(middle) else (inside, middle)
    return inside
