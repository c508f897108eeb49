"""How improbable is so near a match by chance? The lower tail of non-members' distances, and a test of both sides together.

Both compare distances to train with distances to audit, which come from the same source and differ only in that the generator never saw
them:

* **per image**: a p-value from ranks cannot fall below 1/(n + 1), so the lower tail is extrapolated as a power law (nearest-neighbour
  distances behave like r^d, d the local dimension), with the uncertainty of its exponent integrated out;
* **together**: rank the real patients by their nearest synthetic image. If membership does not matter, train and audit patients are
  shuffled; a leading run of L train patients has a probability that is a product of shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TAIL_SHARE = 0.1
"""Share of the distances to audit that counts as their lower tail, at the most."""
TAIL_LEAST = 20
"""Distances that a tail is begun with, at the least."""
SET_ASIDE = 1
"""Smallest distances that do not shape the tail: one near-copy of a sealed image says that the set holds one, not how near chance comes."""
REGIME_LEAST = 3
"""Distances below which no regime of its own is seen."""
REGIME_RATIO = 6.0
"""Log-likelihood ratio from which two exponents fit the tail's spacings better than one; seen by chance in about 1 of 100 tails."""
SMALLEST = 1e-9
"""Distances below count as this one, where nothing else is said: nothing is nearer than the same image."""


@dataclass(frozen=True)
class Tail:
    """The lower tail of the distances to audit: P(d < r) = share · (1 + ln(edge / r) / total)^−n for r below the edge.

    That is the power law share · (r / edge)^exponent whose exponent is known from n spacings of the logarithms, which add up to ``total``:
    under the power law ln(edge / r) is exponential, ``total`` is Gamma(n) of the same scale, and their ratio has this law exactly, over the
    draws of both (Pareto's, of the second kind). As n grows, it is Hill's estimate (1975), exponent = n / total.

    Attributes:
        edge: the largest distance of the tail.
        share: probability of a distance below it, (k + 1) / (all + 1) for the k of them.
        total: sum of the normalised spacings i · ln(d_(i+1) / d_(i)) (Rényi 1953), without those of the ``SET_ASIDE`` smallest distances.
        n: spacings in that sum.
        smallest: distances below count as this one.
    """

    edge: float
    share: float
    total: float
    n: int
    smallest: float = SMALLEST

    def p_value(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of a distance at most this small, one non-member comparison; 1 above the edge."""
        apart = np.maximum(np.asarray(distance, dtype=np.float64), self.smallest)
        depth = np.log(self.edge / np.minimum(apart, self.edge))
        return np.where(apart < self.edge, self.share * (1 + depth / self.total) ** -self.n, 1.0)

    def threshold(self, probability: float) -> float:
        """The distance whose :meth:`p_value` is ``probability`` (at most the share); 0 where no distance is so improbable."""
        depth = self.total * ((max(1.0, self.share / probability)) ** (1 / self.n) - 1)
        found = self.edge * math.exp(-min(depth, 700.0))
        return found if found > self.smallest else 0.0


def lower_tail(distances: NDArray[np.float64], smallest: float = SMALLEST) -> Tail:
    """Fit the tail to non-members' distances ``[n]``, n >= 20; infinite ones count as farther than all others.

    The tail begins as the :data:`TAIL_SHARE` smallest. Where its lower part follows another exponent than the rest, as in a cohort some of
    whose images have twins, only that part is kept.

    Raises:
        ValueError: fewer than 20 finite distances.
    """
    ordered = np.maximum(np.sort(np.asarray(distances, dtype=np.float64)), smallest)
    finite = int(np.isfinite(ordered).sum())
    if finite < TAIL_LEAST:
        raise ValueError(f"{finite} distances are too few to fit a tail: at least {TAIL_LEAST} are needed")
    count = min(finite - 1, max(TAIL_LEAST, math.ceil(TAIL_SHARE * len(ordered))))
    while (lower := _regime(_spacings(ordered, count))) < count:
        count = lower
    return _of_spacings(ordered, count, SET_ASIDE, smallest)


def tail_with_twins(distances: NDArray[np.float64], real: NDArray[np.float64], twin: NDArray[np.bool_], smallest: float = SMALLEST) -> Tail:
    """The tail of non-members' distances in a cohort of which some images are seen to have twins, whatever a generator does.

    Of a few distances, one near a sealed image may be a copy of it, and none says little: rare twins are not seen in them. Real images that
    would be called copies of each other show them. Then nothing is set aside, and the tail is what lies no farther than those do.

    Args:
        distances: of the images that are judged, ``[n]``, n >= 20.
        real: each non-member's to the nearest other real image of somebody else, each pair once, ``[m]``; infinite where there is none.
        twin: which of those would be called copies, by this distance or another, ``[m]``; where none lies in the tail, that stays as it is.
        smallest: distances below count as this one.

    Raises:
        ValueError: fewer than 20 finite distances.
    """
    tail = lower_tail(distances, smallest)
    near = real[twin & (real < tail.edge)]
    if not len(near):
        return tail
    ordered = np.maximum(np.sort(np.concatenate([distances, real])), smallest)
    count = int(np.searchsorted(ordered, max(near.max(), smallest), side="right"))
    return _of_spacings(ordered, count, 0, smallest)


def beyond_twins(near: int, n: int, twins: int, sealed: int) -> float:
    """Probability that so many of n images, or more, come as near to train as a copy does, if they did it as often as sealed images do.

    Were the set drawn as the sealed images were, each of its images would have a twin in train as probably as each of them. Given how many
    have one on both sides together, those of the set are Binomial(near + twins, n / (n + sealed)), whatever that probability is
    (Przyborowski & Wilenski 1940), or vary less.

    Args:
        near: of the set.
        twins: of the ``sealed`` ones; more than lie beside train make the probability larger.
    """
    from scipy.special import bdtrc

    return float(bdtrc(near - 1, near + twins, n / (n + sealed))) if near else 1.0


def _spacings(ordered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Normalised spacings i · ln(d_(i+1) / d_(i)), i = 1 … count, of ordered distances (Rényi 1953)."""
    return np.asarray(np.arange(1.0, count + 1) * np.diff(np.log(ordered[: count + 1])))


def _of_spacings(ordered: NDArray[np.float64], count: int, set_aside: int, smallest: float) -> Tail:
    """The tail that the ``count`` smallest of all distances are."""
    kept = _spacings(ordered, count)[set_aside:]
    return Tail(float(ordered[count]), (count + 1) / (len(ordered) + 1), max(float(kept.sum()), 1e-9), len(kept), smallest)


def _regime(spacings: NDArray[np.float64]) -> int:
    """How many of the lowest distances follow one exponent that is smaller than that of the rest; all, where none are seen to.

    Under one power law the spacings are independent exponentials of one mean; the likelihood ratio of two means is taken at every place.
    """
    kept = spacings[SET_ASIDE:]
    low = np.arange(REGIME_LEAST, len(kept) - REGIME_LEAST + 1)
    if not len(low):
        return len(spacings)
    total, below = kept.sum(), np.cumsum(kept)[low - 1]
    means = [np.maximum(part, 1e-12) for part in (below / low, (total - below) / (len(kept) - low), total / len(kept))]
    ratio = len(kept) * np.log(means[2]) - low * np.log(means[0]) - (len(kept) - low) * np.log(means[1])
    best = int(np.where(means[0] > means[1], ratio, -np.inf).argmax())
    if ratio[best] > REGIME_RATIO and means[0][best] > means[1][best]:
        return int(low[best]) + SET_ASIDE
    return len(spacings)


@dataclass(frozen=True)
class LeadingRun:
    """How many train patients lead the ranking by nearest synthetic image before the first audit patient, and its probability."""

    length: int
    p_value: float


def leading_run(train_nearest: NDArray[np.float64], audit_nearest: NDArray[np.float64]) -> LeadingRun:
    """Test of both sides' distances together, one distance a *patient* (its images are not independent).

    P(at least L leading) = prod_{i<L} (n_train − i) / (n − i): the sampling of patients without replacement.
    """
    first_audit = np.min(audit_nearest) if len(audit_nearest) else math.inf
    length = int((train_nearest < first_audit).sum())
    members, everyone = len(train_nearest), len(train_nearest) + len(audit_nearest)
    logs = [math.log((members - i) / (everyone - i)) for i in range(length)]
    return LeadingRun(length, math.exp(sum(logs)))


def nearest_by_patient(index: NDArray[np.int64], distance: NDArray[np.float64], patients: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each patient's smallest distance to any synthetic image that is nearest to one of the patient's images; inf where none is.

    Args:
        index: the nearest image of every synthetic one, ``[n]``, into ``patients``.
        distance: its distance, ``[n]``.
        patients: of every image.
    """
    names, member = np.unique(patients, return_inverse=True)
    nearest = np.full(len(names), np.inf)
    np.minimum.at(nearest, member.reshape(-1)[index], distance)
    return nearest
