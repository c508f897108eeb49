"""How much a statistic of labelled rows varies, over other patients and other trainings: what every interval and every test rests on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from evaluation.metrics import TOO_FEW, Estimate, independent

TRUSTED = 20
"""Patients of the smaller side at which the variance that the rows show weighs as much as the one expected of such a statistic."""
CARRIED = 5
"""How many patients one counts for that carries the variance which the rows show, where they show less than is expected. Next to a perfect
AUC few rows are out of order, and that the others are not is no evidence of how much it varies (Obuchowski & Lieber 2002, "Confidence
bounds when the estimated ROC area is 1.0"). Where all patients counted, intervals about AUCs of .99 to .9995 held in .74 to .90 of cohorts.
"""


@dataclass(frozen=True)
class Variation:
    """How much a statistic varies.

    Attributes:
        patients: its variance over patients.
        freedom: the degrees of freedom that this was estimated with.
        carriers: how many patients carry it (Kish's effective number, of the squares of their influences).
        few: patients of the smallest class.
        trainings: its variance over trainings.
        seeds: their number.
    """

    patients: float
    freedom: float
    carriers: float
    few: int
    trainings: float
    seeds: int

    def reach(self, confidence: float) -> float:
        """Half of an interval: what patients and trainings would have alone, added as variances are (Howe 1974; Zou & Donner 2008).

        One t for the sum, with Welch–Satterthwaite's degrees of freedom, holds less often than it says: where three trainings happen to lie
        close together, it takes their variance for small *and* for well known.
        """
        alone = student_t(confidence, self.freedom) ** 2 * self.patients
        return math.sqrt(alone + (student_t(confidence, self.seeds - 1) ** 2 * self.trainings if self.trainings > 0 else 0.0))

    def shrunk(self, estimate: Estimate, expected: float) -> Variation:
        """With the patients' variance shrunk in logarithm towards the one expected of such a statistic. Where every row is in order it is
        that: Newcombe's method."""
        if self.patients <= 0:
            return dataclasses.replace(self, patients=expected)
        known = min(self.few, CARRIED * self.carriers) if self.patients < expected else self.few
        weight = known / (known + TRUSTED)
        return dataclasses.replace(self, patients=expected * math.exp(weight * math.log(max(self.patients / expected, 1e-3))))


def variation(estimate: Estimate, imaginary: bool = False) -> Variation | None:
    """How much a statistic varies over patients and trainings; None where a side has too few patients."""
    strata = [estimate.strata == label for label in np.unique(estimate.strata)]
    sizes = np.array([len(np.unique(estimate.groups[rows])) for rows in strata])
    if not len(sizes) or sizes.min() < TOO_FEW:
        return None
    parts = _by_patient(estimate, estimate.influence)
    squares = np.square(parts)
    by_class = squares.sum(axis=1)
    carriers = float(squares.sum() ** 2 / max(np.square(squares).sum(), 1e-300))
    across = float(np.square(parts.sum(axis=0)).sum() - by_class.sum())
    seeds, freedoms = len(estimate.by_seed), sizes - 1.0
    if imaginary:
        known = np.array([independent(estimate.groups[rows]) for rows in strata])
        by_class, freedoms = by_class + 2 * np.square(1 / (2 * len(strata) * known)) / seeds, known + 1
    variances = by_class * (freedoms + 1) / freedoms
    total, below = float(variances.sum()), float((np.square(variances) / freedoms).sum())
    return Variation(
        max(total + across, 0.25 * total),
        max(total**2 / below, 1.0) if below > 0 else float(sizes.min() - 1),
        carriers,
        int(sizes.min()),
        float(np.var(estimate.by_seed, ddof=1)) / seeds if seeds > 1 else 0.0,
        seeds,
    )


def correlations(estimate: Estimate) -> NDArray[np.float64]:
    """How the classes' parts of a statistic are correlated by patients who have images of several, ``[classes, classes]``. Where one of two
    does not vary, which is no evidence that they are apart: as they would be were all images of a patient alike."""
    found, alike = (_cosines(_by_patient(estimate, rows)) for rows in (estimate.influence, np.ones(len(estimate.groups))))
    varies = np.diag(found) > 0
    return np.where(varies[:, None] & varies, found, alike)


def _cosines(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between rows ``[k, n]``; 0 with one that is 0 but for rounding."""
    lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-12)
    return np.asarray(unit @ unit.T, np.float64)


def _by_patient(estimate: Estimate, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What rows have of ``values [n]``, summed by class and patient, ``[classes, patients]``."""
    count = int(estimate.groups.max()) + 1
    parts = (np.where(estimate.strata == label, values, 0.0) for label in np.unique(estimate.strata))
    return np.array([np.bincount(estimate.groups, one, count) for one in parts])


def student_t(confidence: float, freedom: float) -> float:
    """Student's t, two-sided."""
    return float(-stdtrit(freedom, (1 - confidence) / 2))
