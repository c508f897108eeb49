"""How often each interval holds the truth, at the sizes and groupings where it is used; nominal 95 %.

    python -m tests.benchmarks.coverage --draws 10000 --jobs 2 --out results

Scores are simulated: normal within each class, with a share of their variance common to a patient's images. One row a cell: coverage
with its own 95 % interval, how often an interval was given at all, and the mean width.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from evaluation import comparisons, findings, intervals, metrics
from evaluation.data import Labelled
from evaluation.intervals import Interval


@dataclass(frozen=True)
class Cell:
    """A statistic at one size.

    Attributes:
        statistic: a key of :data:`STATISTICS`.
        patients: of each class; or of all, where ``mixed``.
        truth: the statistic's true value, or the effect behind it.
        images: of a patient, 1 to so many.
        common: share of the scores' variance that a patient's images have in common.
        mixed: whether a patient has images of several classes.
        seeds: trainings.
        uneven: whether few patients have many images (log-normal, two at the median, 20 of every hundredth), not 1 to ``images``.
    """

    statistic: str
    patients: tuple[int, ...]
    truth: float
    images: int = 1
    common: float = 0.0
    mixed: bool = False
    seeds: int = 1
    uneven: bool = False


def rows_of(cell: Cell, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, patient and standard normal noise of every image."""
    count = sum(cell.patients)
    sizes = np.maximum(1, rng.lognormal(0.7, 1.0, count).astype(int)) if cell.uneven else rng.integers(1, cell.images + 1, count)
    patient = np.repeat(np.arange(len(sizes)), sizes)
    label = np.repeat(np.repeat(np.arange(len(cell.patients)), cell.patients), sizes)
    if cell.mixed:
        label = rng.choice(len(cell.patients), size=len(patient), p=np.array(cell.patients) / sum(cell.patients))
    noise = math.sqrt(cell.common) * rng.standard_normal(len(sizes))[patient]
    return label, patient, noise + math.sqrt(1 - cell.common) * rng.standard_normal(len(patient))


def auc(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """AUC of one class against another."""
    label, patient, noise = rows_of(cell, rng)
    return intervals.interval(metrics.auc_estimate(noise + shift_of(cell.truth) * label, label == 1, patient)), cell.truth


def macro(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Macro AUC of several classes, each of whose score is raised in its own images."""
    label, patient, noise = rows_of(cell, rng)
    classes = len(cell.patients)
    scores = rng.standard_normal((len(label), classes)) * math.sqrt(1 - cell.common) + math.sqrt(cell.common) * noise[:, None]
    scores[np.arange(len(label)), label] += shift_of(cell.truth)
    return intervals.interval(metrics.macro_auc_estimate(scores, label, patient)), cell.truth


def recall(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Share of one class's images that are named right."""
    _, patient, noise = rows_of(cell, rng)
    return intervals.share_interval(metrics.share_estimate(noise < norm.ppf(cell.truth), patient)), cell.truth


def balanced(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Mean recall of several classes."""
    label, patient, noise = rows_of(cell, rng)
    named = np.where(noise < norm.ppf(cell.truth), label, (label + 1) % len(cell.patients))
    return intervals.interval(metrics.balanced_accuracy_estimate(named, label, patient, len(cell.patients))), cell.truth


def shift_of(area: float) -> float:
    """Distance between two normal classes of standard deviation 1 whose AUC is ``area``."""
    return math.sqrt(2) * float(norm.ppf(area))


def paired(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Difference of two arms' AUC on the same images; each training has its own shift, and scores that share most of their noise."""
    label, patient, noise = rows_of(cell, rng)
    sd = 0.15  # of the shift over trainings

    def arm(distance: float) -> np.ndarray:
        own = rng.standard_normal((cell.seeds, len(label)))
        shifts = distance + sd * rng.standard_normal((cell.seeds, 1))
        return math.sqrt(0.7) * noise + math.sqrt(0.3) * own + shifts * label

    base, better = shift_of(0.85), shift_of(0.85 + cell.truth)
    expected = [float(norm.cdf(distance / math.sqrt(2 + sd**2))) for distance in (base, better)]
    one, other = (metrics.auc_estimate(arm(distance), label == 1, patient) for distance in (better, base))
    return comparisons.difference(one, other), expected[1] - expected[0]


def drop(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Drop of one model's AUC from .95 to ``truth`` under a change of the same images, as a stress test has it."""
    label, patient, noise = rows_of(cell, rng)
    before, after = (
        metrics.auc_estimate(
            math.sqrt(0.7) * noise + math.sqrt(0.3) * rng.standard_normal(len(label)) + shift_of(area) * label, label == 1, patient
        )
        for area in (0.95, cell.truth)
    )
    return comparisons.difference(before, after), 0.95 - cell.truth


def paired_recall(cell: Cell, rng: np.random.Generator, base: float = 0.8) -> tuple[Interval, float]:
    """Difference of two arms' recall of one class on the same images."""
    _, patient, noise = rows_of(cell, rng)

    def hits(share: float) -> np.ndarray:
        own = rng.standard_normal((cell.seeds, len(noise)))
        return math.sqrt(0.7) * noise + math.sqrt(0.3) * own < norm.ppf(share)

    one, other = (metrics.share_estimate(hits(share), patient) for share in (base + cell.truth, base))
    return comparisons.difference(one, other), cell.truth


def paired_high_recall(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """The same from a recall of .95 up: few patients differ, or none."""
    return paired_recall(cell, rng, 0.95)


def paired_agreeing(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """The same where all trainings of an arm miss the same patients, and those whom the better one misses the other misses too."""
    _, patient, noise = rows_of(cell, rng)
    every = np.tile(noise, (cell.seeds, 1))
    one, other = (metrics.share_estimate(every < norm.ppf(share), patient) for share in (0.95 + cell.truth, 0.95))
    return comparisons.difference(one, other), cell.truth


def fitted(cell: Cell, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Class, patient, fold and score of every image, by logistic regressions of six features on the other folds."""
    label, patient, _ = rows_of(cell, rng)
    features = rng.standard_normal((len(label), 6))
    features[:, 0] += cell.truth * label
    folds = 5
    of_patient = rng.permutation(int(patient.max()) + 1) % folds
    fold, scores = of_patient[patient], np.zeros(len(label))
    for number in range(folds):
        rows = fold == number
        scores[rows] = LogisticRegression().fit(features[~rows], label[~rows]).decision_function(features[rows])
    return label, patient, fold, scores


def cross_fitted(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """AUC of a logistic regression fitted on the other folds, of six features without or with an effect; the truth is simulated."""
    label, patient, fold, scores = fitted(cell, rng)
    return intervals.cross_fitted(scores, label == 1, patient, fold), math.nan


def tpr(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """True-positive rate at 1 % false positives of fixed scores, whose AUC is ``truth``."""
    label, patient, noise = rows_of(cell, rng)
    shift = shift_of(cell.truth)
    return intervals.tpr_interval(noise + shift * label, label == 1, patient, 0.01), float(norm.sf(norm.isf(0.01) - shift))


def cross_fitted_tpr(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """The same of a logistic regression fitted on the other folds; without an effect it is the false-positive rate."""
    label, patient, _, scores = fitted(cell, rng)
    return intervals.tpr_interval(scores, label == 1, patient, 0.01), 0.01 if cell.truth == 0 else math.nan


def brier(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Brier's score of two classes' calibrated probabilities whose AUC is ``truth``; the truth is simulated."""
    label, patient, noise = rows_of(cell, rng)
    shift, prior = shift_of(cell.truth), cell.patients[1] / sum(cell.patients)
    log_odds = shift * (noise + shift * label) - shift**2 / 2 + math.log(prior / (1 - prior))
    p = 1 / (1 + np.exp(-log_odds))
    return intervals.interval(metrics.brier_estimate(np.stack([1 - p, p], axis=1), label, patient)), math.nan


def precision(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Average precision of a finding whose AUC is ``truth``, against that of infinitely many images in the same proportion."""
    label, patient, noise = rows_of(cell, rng)
    shift, share = shift_of(cell.truth), cell.patients[1] / sum(cell.patients)
    images = Labelled(np.zeros((len(label), 1, 1, 1), np.uint8), label[:, None].astype(np.int8), patient)
    at = np.linspace(shift - 9, shift + 9, 20001)
    true, false = share * norm.sf(at - shift), (1 - share) * norm.sf(at)
    expected = float(np.trapezoid(true / (true + false) * norm.pdf(at - shift), at))
    return findings.precision_interval((noise + shift * label)[None, :, None], images, 0), expected


def predictive(cell: Cell, rng: np.random.Generator) -> tuple[Interval, float]:
    """Positive predictive value at a prevalence of .05, of a test with sensitivity ``truth`` and specificity .9."""
    positives, negatives = cell.patients
    specificity, prevalence = 0.9, 0.05
    hit, right = rng.random(positives) < cell.truth, rng.random(negatives) < specificity
    found = [intervals.share_interval(metrics.share_estimate(rows, np.arange(len(rows)))) for rows in (hit, right)]
    true = cell.truth * prevalence
    return intervals.predictive_value(*found, prevalence), true / (true + (1 - specificity) * (1 - prevalence))


Statistic = Callable[[Cell, np.random.Generator], tuple[Interval, float]]
"""Of one simulated cohort: the interval, and the true value."""
STATISTICS: dict[str, Statistic] = {
    function.__name__: function
    for function in (
        *(auc, macro, recall, balanced, paired, drop, paired_recall, paired_high_recall, paired_agreeing),
        *(cross_fitted, tpr, cross_fitted_tpr, brier, precision, predictive),
    )
}
CELLS = (
    *(Cell("auc", (192, 8), truth) for truth in (0.7, 0.9, 0.98)),
    Cell("auc", (5, 5), 0.8),
    Cell("auc", (5, 5), 0.9, 3, 0.6),
    Cell("auc", (10, 10), 0.7, 3, 0.6),
    Cell("auc", (100, 10), 0.95, 4, 0.8),
    Cell("auc", (20, 20), 0.98, 2, 0.6),
    Cell("auc", (300, 43), 0.95),
    Cell("auc", (300, 43), 0.8, 4, 0.6, mixed=True),
    Cell("auc", (200, 200), 0.5),
    Cell("auc", (390, 234), 0.97),
    Cell("auc", (30, 30), 0.995),
    Cell("macro", (150, 40, 40, 30, 20), 0.9, 3, 0.5),
    Cell("macro", (114, 42), 0.9),
    Cell("macro", (20, 20, 8), 0.95),
    Cell("recall", (30,), 0.95),
    Cell("recall", (43,), 0.02),
    Cell("recall", (43,), 0.5, 4, 0.7),
    Cell("recall", (20,), 0.9, 4, 0.9),
    Cell("recall", (200,), 0.99, 3, 0.5),
    Cell("balanced", (150, 40, 40, 30, 20), 0.8, 3, 0.5),
    Cell("balanced", (30, 10), 0.95),
    Cell("paired", (300, 60), 0.0, 3, 0.5, seeds=3),
    Cell("paired", (300, 60), 0.05, 3, 0.5, seeds=3),
    Cell("paired", (300, 60), 0.0, seeds=5),
    Cell("paired", (40, 10), 0.0, seeds=3),
    Cell("paired", (390, 234), 0.02, seeds=5),
    Cell("paired_recall", (43,), 0.0, seeds=3),
    Cell("paired_recall", (43,), 0.1, 3, 0.5, seeds=5),
    Cell("paired_recall", (10,), 0.0, seeds=3),
    Cell("paired_recall", (500,), 0.05, seeds=5),
    Cell("cross_fitted", (100, 100), 0.0),
    Cell("cross_fitted", (400, 400), 0.0),
    Cell("cross_fitted", (200, 200), 0.3),
    Cell("cross_fitted", (100, 60), 0.0, 3, 0.0),
    Cell("predictive", (30, 200), 0.9),
    Cell("predictive", (43, 300), 0.5),
    Cell("predictive", (20, 60), 0.95),
    Cell("tpr", (100, 100), 0.8),
    Cell("tpr", (800, 800), 0.5),
    Cell("tpr", (800, 800), 0.8),
    Cell("tpr", (400, 400), 0.8, 3, 0.6),
    Cell("cross_fitted_tpr", (100, 100), 0.0),
    Cell("cross_fitted_tpr", (800, 800), 0.0),
    Cell("brier", (30, 30), 0.8),
    Cell("brier", (192, 8), 0.9),
    Cell("brier", (390, 234), 0.97, 3, 0.5),
    Cell("precision", (60, 20), 0.8),
    Cell("precision", (585, 15), 0.7),
    Cell("precision", (585, 15), 0.9),
    Cell("precision", (780, 20), 0.8, 3, 0.5),
    Cell("precision", (300, 43), 0.9),
    Cell("precision", (300, 43), 0.98, 3, 0.5),
    Cell("precision", (570, 40), 0.8, 4, 0.7),
    Cell("precision", (200, 200), 0.95, 2, 0.5),
    *(Cell("auc", patients, truth) for patients in ((20, 20), (48, 48), (20, 200)) for truth in (0.99, 0.995, 0.999)),
    Cell("auc", (200, 200), 0.999),
    Cell("auc", (48, 48), 0.995, 4, 0.9),
    Cell("auc", (990, 10), 0.9, 4, 0.6),
    Cell("auc", (990, 10), 0.9, 4, 0.6, mixed=True),
    Cell("paired_recall", (12,), 0.1, seeds=3),
    *(Cell("balanced", (200, few), 0.99) for few in (8, 11, 20, 200)),
    *(Cell("paired_high_recall", (count,), 0.04) for count in (20, 60, 120, 300)),
    Cell("paired_high_recall", (60,), 0.04, seeds=3),
    *(Cell("drop", (each, each), truth) for each in (20, 60, 300) for truth in (0.9, 0.7, 0.55)),
    *(Cell("paired_agreeing", (count,), truth, seeds=3) for count, truth in ((60, 0.04), (300, 0.01))),
    Cell("balanced", (50, 50), 0.8, 4, 0.5, mixed=True),
    Cell("balanced", (75, 75, 75, 75), 0.7, 4, 0.9, mixed=True),
    *(Cell("recall", (count,), 0.8, common=0.9, uneven=True) for count in (12, 44, 300)),
    *(Cell("auc", (count, count), 0.9, common=0.9, uneven=True) for count in (12, 44, 300)),
    Cell("macro", (150, 40, 40, 30, 20), 0.9, common=0.5, uneven=True),
    Cell("balanced", (150, 40, 40, 30, 20), 0.8, common=0.5, uneven=True),
    Cell("paired", (44, 44), 0.0, common=0.5, seeds=3, uneven=True),
    Cell("paired_recall", (44,), 0.1, common=0.5, seeds=3, uneven=True),
)


def simulate(statistic: Statistic, cell: Cell, draws: int, seed: tuple[int, int]) -> dict[str, Any]:
    """The row of one cell; a truth of NaN is the mean of the estimates."""
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    found = [statistic(cell, rng) for _ in range(draws)]
    given = [(one, truth) for one, truth in found if math.isfinite(one.low)]
    mean = float(np.mean([one.value for one, _ in given])) if given else math.nan
    held = sum(one.low <= (mean if math.isnan(truth) else truth) <= one.high for one, truth in given)
    coverage = intervals.clopper_pearson(held, len(given))
    width = float(np.mean([one.high - one.low for one, _ in given])) if given else math.nan
    row = asdict(cell) | {"draws": draws, "given": len(given) / draws, "coverage": coverage.to_dict(), "width": width}
    print(
        f"{cell.statistic:<14} {'+'.join(map(str, cell.patients)):<18} truth {cell.truth:<5} images 1-{cell.images} common {cell.common:<4}"
        f" seeds {cell.seeds}  coverage {coverage.value:.3f} [{coverage.low:.3f}, {coverage.high:.3f}]  given {len(given) / draws:.3f}"
        f"  width {width:.3f}  ({time.monotonic() - started:.0f} s)",
        flush=True,
    )
    return row


def main(statistics: Mapping[str, Statistic], every: Sequence[Cell], name: str) -> None:
    """Run the cells and write the table of that name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="statistics, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    cells = [cell for cell in every if not options.only or cell.statistic in options.only.split(",")]
    with ProcessPoolExecutor(options.jobs) as pool:
        tasks = [
            pool.submit(simulate, statistics[cell.statistic], cell, options.draws, (options.seed, every.index(cell))) for cell in cells
        ]
        rows = [task.result() for task in tasks]
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {"machine": platform.processor() or platform.machine(), "date": time.strftime("%Y-%m-%d"), "draws": options.draws}
    (options.out / f"{name}.json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=1))
    missed = [row for row in rows if row["coverage"]["high"] < 0.94]
    print(f"{len(missed)} of {len(rows)} cells whose coverage lies below .94")


if __name__ == "__main__":
    main(STATISTICS, CELLS, "coverage")
