"""Judges of images that can have several findings, or none: one network with an output for each, and what it says of each.

A finding is judged on the images of which it is known; present and absent are the two sides of its AUC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t

from evaluation.data import Labelled
from evaluation.intervals import Interval, interval
from evaluation.metrics import TOO_FEW, Estimate, Floats, auc_estimate, half_correlated
from evaluation.utility import LEAST_PATIENTS

FEWEST = 15
"""Patients with a finding below which its average precision has no interval."""
RAREST = 0.02
"""Share of images with a finding below which it has none either: it hangs on the few others that score highest, and simulated intervals
hold in .93 of cohorts."""


def auc_of(probabilities: Floats, images: Labelled, finding: int) -> Estimate:
    """AUC of one finding over the images of which it is known: probabilities ``[S, n, K]`` of ``n`` images."""
    known = images.findings[:, finding] >= 0
    return auc_estimate(probabilities[:, known, finding], images.findings[known, finding] == 1, images.groups[known])


def counted(images: Labelled, least: int = TOO_FEW) -> list[int]:
    """The findings that are present in ``least`` patients or more, and absent in as many."""
    sides = [[len(np.unique(images.groups[marks == side])) for side in (0, 1)] for marks in images.findings.T]
    return [finding for finding, patients in enumerate(sides) if min(patients) >= least]


def macro(probabilities: Floats, images: Labelled) -> Estimate | None:
    """The mean of the findings' AUC, of those that are :func:`counted`; None where none is.

    Its reference takes the findings' areas to be correlated by one half, as :func:`evaluation.metrics.macro_auc_estimate` does.
    """
    areas, influence = [], np.zeros(len(images))
    for finding in counted(images):
        areas.append(auc_of(probabilities, images, finding))
        influence[images.findings[:, finding] >= 0] += areas[-1].influence
    if not areas:
        return None
    return Estimate(
        np.mean([one.by_seed for one in areas], axis=0),
        influence / len(areas),
        np.zeros(len(images), np.int64),
        np.unique(images.groups, return_inverse=True)[1].ravel().astype(np.int64),
        lambda value: half_correlated([one.reference(value) for one in areas]),
        len(images),
    )


def micro(probabilities: Floats, images: Labelled) -> Estimate:
    """AUC over all pairs of an image and a finding: whether a judge says the right findings of the right images."""
    known = (images.findings >= 0).ravel()
    scores = probabilities.reshape(len(probabilities), -1)[:, known]
    groups = np.repeat(images.groups, images.classes)[known]
    return auc_estimate(scores, images.findings.ravel()[known] == 1, groups)


def average_precision(scores: Floats, positives: NDArray[np.bool_]) -> float:
    """Mean precision at the places of the positives in falling order of score; ties share their precision. NaN without a positive.

    Args:
        scores: ``[n]``, higher means more positive.
        positives: ``[n]``.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positives, scores)) if positives.any() else float("nan")


def without_each(scores: Floats, positives: NDArray[np.bool_]) -> Floats:
    """:func:`average_precision` of all images but one, ``[n]``, for each of them; NaN where no positive is left.

    Args:
        scores, positives: as for :func:`average_precision`.
    """
    _, group = np.unique(-scores, return_inverse=True)
    group = group.ravel()
    found = np.bincount(group, positives).astype(np.float64)
    true, false = found.cumsum(), np.bincount(group, ~positives).astype(np.float64).cumsum()

    def sums(less_true: int, less_false: int) -> tuple[Floats, Floats]:
        """Precisions at every score with so many fewer at and above it, and their sum over the positives from there on down."""
        precision = (true - less_true) / np.maximum(true - less_true + false - less_false, 1)
        return precision, (found * precision)[::-1].cumsum()[::-1]

    whole = sums(0, 0)[1]
    above = whole[0] - whole  # of the positives that score higher than each group
    (_, negative), (precision, positive) = sums(0, 1), sums(1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(positives, ((above + positive - precision) / (true[-1] - 1))[group], ((above + negative) / true[-1])[group])
    return left if positives.any() else np.full(len(scores), np.nan)


def precision_interval(probabilities: Floats, images: Labelled, finding: int) -> Interval:
    """:func:`average_precision` of one finding, the mean over trainings, with a 95 % interval over patients.

    On the logit, by Student's t with a degree for each patient with the finding but one. Its variance is the larger of the jackknife's over
    patients and that of as many coins as patients have it (Boyd, Eng & Page 2013, section 4.1), which is not zero at 1. No bounds below
    :data:`FEWEST` and :data:`RAREST`.
    """
    known = images.findings[:, finding] >= 0
    scores, positive = probabilities[:, known, finding], images.findings[known, finding] == 1
    patients, member = np.unique(images.groups[known], return_inverse=True)
    value = float(np.mean([average_precision(one, positive) for one in scores]))
    having = len(np.unique(member[positive]))
    if having < FEWEST or positive.mean() < RAREST or positive.all():
        return Interval(value, float("nan"), float("nan"), int(known.sum()))
    moved = np.mean([without_each(one, positive) for one in scores], axis=0) - value
    by_patient = np.bincount(member.ravel(), moved)
    jackknife = (len(patients) - 1) * float(by_patient.var())
    share = (value * having + 0.5) / (having + 1)
    spread = share * (1 - share)
    reach = float(t.ppf(0.975, having - 1)) * math.sqrt(max(jackknife / spread**2, 1 / (having * spread)))
    low, high = (float(expit(logit(share) + side * reach)) for side in (-1, 1))
    return Interval(value, min(low, value), max(high, value), int(known.sum()))


def judged(probabilities: Floats, images: Labelled, names: Sequence[str]) -> dict[str, Any]:
    """What a judge scores: ``auc`` (macro, over the findings of ``auc_over``), ``micro_auc``, and ``per_class`` with ``auc``,
    ``average_precision`` and ``prevalence``."""
    whole = macro(probabilities, images)
    per_class = {
        name: {
            "auc": interval(auc_of(probabilities, images, finding)),
            "average_precision": precision_interval(probabilities, images, finding),
            "prevalence": prevalence(images.findings[:, finding]),
        }
        for finding, name in enumerate(names)
    }
    found = {} if whole is None else {"auc": interval(whole), "auc_over": [names[finding] for finding in counted(images)]}
    return found | {"micro_auc": interval(micro(probabilities, images)), "per_class": per_class}


def prevalence(finding: NDArray[np.int8]) -> float:
    """Share of the images that have it, of those of which it is known; NaN of none."""
    known = finding >= 0
    return float((finding[known] == 1).mean()) if known.any() else float("nan")


def together(findings: NDArray[np.int8], patients: NDArray[Any] | None = None) -> Floats:
    """How often findings come together, ``[K, K]``: row i, column j the share of images with i that have j too; NaN where nobody knows.

    Of real images ``patients [n]`` are whose each is: what fewer than LEAST_PATIENTS have, but not nobody, is NaN too, since it would
    describe them, and so is the row of a finding that so few have.
    """
    present, known = (findings == 1).astype(np.float64), (findings >= 0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.asarray((present.T @ present) / (present.T @ known))
    if patients is not None:
        people, person = np.unique(patients, return_inverse=True)
        for first, second in np.ndindex(shares.shape):
            have = np.bincount(person.ravel(), present[:, first] * present[:, second], len(people)) > 0
            if 0 < have.sum() < LEAST_PATIENTS:
                shares[first if first == second else (first, second)] = np.nan
    return shares


def rogan_gladen(called: Interval, sensitivity: Interval, specificity: Interval) -> Interval:
    """The share of images that have a finding, from the share in which an imperfect judge calls it (Rogan & Gladen 1978,
    doi:10.1093/oxfordjournals.aje.a112510): (called + specificity − 1) / (sensitivity + specificity − 1), within 0..1.

    Bounds take in how sure the judge's errors are: the distances to the bounds of all three add up as variances do, each by its weight in
    the share (Zou & Donner 2008, doi:10.1002/sim.3095).

    Raises:
        ValueError: the judge is no better than chance.
    """
    better = sensitivity.value + specificity.value - 1
    if better <= 0:
        raise ValueError(f"a judge of sensitivity {sensitivity.value:g} and specificity {specificity.value:g} tells nothing")
    value = min(1.0, max(0.0, (called.value + specificity.value - 1) / better))
    below = called.value - called.low, value * (sensitivity.high - sensitivity.value), (1 - value) * (specificity.value - specificity.low)
    above = called.high - called.value, value * (sensitivity.value - sensitivity.low), (1 - value) * (specificity.high - specificity.value)
    return Interval(value, max(0.0, value - math.hypot(*below) / better), min(1.0, value + math.hypot(*above) / better), called.n)
