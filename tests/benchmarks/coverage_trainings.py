"""How often intervals over several trainings hold the truth, those of subgroups, of several findings and of the stress test; nominal 95 %.

    python -m tests.benchmarks.coverage_trainings --draws 10000 --jobs 2 --out results

Cohorts as in :mod:`tests.benchmarks.coverage`; besides, every training is better or worse than the mean of all by a normal number.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm

from evaluation import comparisons, findings, intervals, metrics
from evaluation.data import Labelled
from evaluation.intervals import Interval
from evaluation.stress import drops
from tests.benchmarks.coverage import Cell, Statistic, main, rows_of, shift_of

APART = 0.25
"""Standard deviation of a training's distance between two classes, in theirs: that of its AUC is about .04."""
NEGATIVES = 60
"""Held-out images without a finding that a threshold is set on."""


def scored(cell: Cell, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scores of each training without a signal ``[S, n]``, which share most of their noise."""
    return math.sqrt(0.7) * noise + math.sqrt(0.3) * rng.standard_normal((cell.seeds, len(noise)))


def trained_auc(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Mean AUC of several trainings."""
    label, patient, noise = rows_of(cell, rng)
    shifts = shift_of(cell.truth) + APART * rng.standard_normal((cell.seeds, 1))
    truth = float(norm.cdf(shift_of(cell.truth) / math.sqrt(2 + APART**2)))
    return intervals.interval(metrics.auc_estimate(scored(cell, noise, rng) + shifts * label, label == 1, patient)), truth


def trained_recall(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Mean share of one class's images that several trainings name right: recall, label fidelity of a class."""
    _, patient, noise = rows_of(cell, rng)
    cut, sd = float(norm.ppf(cell.truth)), 0.4
    hits = scored(cell, noise, rng) < cut + sd * rng.standard_normal((cell.seeds, 1))
    return intervals.share_interval(metrics.share_estimate(hits, patient)), float(norm.cdf(cut / math.sqrt(1 + sd**2)))


def label_fidelity(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Mean recall of several classes, of which each training is better or worse at each."""
    label, patient, noise = rows_of(cell, rng)
    cut, sd, classes = float(norm.ppf(cell.truth)), 0.4, len(cell.patients)
    cuts = cut + sd * rng.standard_normal((cell.seeds, classes))
    named = np.where(scored(cell, noise, rng) < cuts[:, label], label, (label + 1) % classes)
    truth = float(norm.cdf(cut / math.sqrt(1 + sd**2)))
    return intervals.interval(metrics.balanced_accuracy_estimate(named, label, patient, classes)), truth


def sensitivity_change(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Difference of two like arms' sensitivity, each training's threshold set on the same :data:`NEGATIVES` held-out images."""
    _, patient, noise = rows_of(cell, rng)
    held_out, sd = rng.standard_normal(NEGATIVES), 0.15

    def arm() -> metrics.Estimate:
        threshold = np.sort(scored(cell, held_out, rng), axis=1)[:, [NEGATIVES - 1 - NEGATIVES // 10]]
        shifts = shift_of(0.85) + sd * rng.standard_normal((cell.seeds, 1))
        return metrics.share_estimate(scored(cell, noise, rng) + shifts > threshold, patient)

    return comparisons.difference(arm(), arm()), 0.0


def gap(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Sensitivity of all others minus that of a subgroup, which is .8; patients: others, subgroup."""
    label, patient, noise = rows_of(cell, rng)
    hits = noise < norm.ppf(np.where(label == 1, 0.8, 0.8 + cell.truth))
    others, own = (metrics.share_estimate(hits[label == side], patient[label == side]) for side in (0, 1))
    return comparisons.apart(others, own), cell.truth


def several(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Mean AUC of 14 findings that come together, in 3 to 30 % of the patients; their scores share noise by patient and image."""
    count = 14
    member = np.repeat(np.arange(cell.patients[0]), rng.integers(1, cell.images + 1, cell.patients[0]))
    liability = math.sqrt(0.3) * rng.standard_normal((cell.patients[0], 1)) + math.sqrt(0.7) * rng.standard_normal(
        (cell.patients[0], count)
    )
    marks = (liability > norm.isf(np.geomspace(0.03, 0.3, count)))[member].astype(np.int8)
    noise = math.sqrt(cell.common) * rng.standard_normal((cell.patients[0], 1))[member] + math.sqrt(0.3) * rng.standard_normal(
        (len(member), 1)
    )
    own = math.sqrt(0.7 - cell.common) * rng.standard_normal((cell.seeds, len(member), count))
    images = Labelled(np.zeros((len(member), 1, 1, 1), np.uint8), marks, member)
    found = findings.macro(noise + own + shift_of(cell.truth) * marks, images)
    return (Interval(math.nan, math.nan, math.nan, 0) if found is None else intervals.interval(found)), cell.truth


def mean_drop(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Mean drop of AUC over ten conditions, from .95 on clean images to the AUC named."""
    label, patient, noise = rows_of(cell, rng)
    shifts, sd = np.linspace(shift_of(0.95), shift_of(cell.truth), 11), 0.15
    moved = sd * rng.standard_normal((cell.seeds, 1))
    clean, *found = (metrics.auc_estimate(scored(cell, noise, rng) + (one + moved) * label, label == 1, patient) for one in shifts)
    areas = norm.cdf(shifts / math.sqrt(2 + sd**2))
    measured = drops({"auc": clean}, {("some", place): {"auc": one} for place, one in enumerate(found)})
    return measured["mean_drop"]["auc"], float(areas[0] - areas[1:].mean())


STATISTICS: dict[str, Statistic] = {
    function.__name__: function for function in (trained_auc, trained_recall, label_fidelity, sensitivity_change, gap, several, mean_drop)
}
CELLS = (
    Cell("trained_auc", (10, 10), 0.9, seeds=3),
    Cell("trained_auc", (300, 60), 0.85, seeds=3),
    Cell("trained_auc", (400, 400), 0.85, seeds=3),
    Cell("trained_auc", (400, 400), 0.97, seeds=3),
    Cell("trained_auc", (400, 400), 0.97, seeds=5),
    Cell("trained_recall", (43,), 0.8, seeds=3),
    Cell("trained_recall", (325,), 0.8, seeds=3),
    Cell("trained_recall", (325,), 0.97, seeds=3),
    Cell("trained_recall", (325,), 0.8, seeds=5),
    Cell("label_fidelity", (12, 12, 12, 12), 0.7, seeds=3),
    Cell("label_fidelity", (325, 325, 325, 325), 0.7, seeds=3),
    Cell("sensitivity_change", (43,), 0.0, seeds=3),
    Cell("sensitivity_change", (500,), 0.0, seeds=3),
    Cell("sensitivity_change", (500,), 0.0, seeds=5),
    Cell("gap", (100, 11), 0.1),
    Cell("gap", (11, 11), 0.0, 4, 0.7),
    Cell("gap", (300, 30), 0.15),
    Cell("several", (150,), 0.8, 4, 0.3),
    Cell("several", (400,), 0.8, 4, 0.3, seeds=3),
    Cell("mean_drop", (200, 200), 0.7, seeds=3),
    Cell("mean_drop", (60, 12), 0.7, 3, 0.5, seeds=3),
)

if __name__ == "__main__":
    main(STATISTICS, CELLS, "coverage_trainings")
