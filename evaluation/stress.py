"""Where a classifier breaks: corrupted images, subgroups, synthetic rare classes, changed prevalence.

The classifier is any callable from images float32 ``[n, C, H, W]`` in -1..1 to class probabilities ``[n, K]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.corruptions import CORRUPTIONS, corrupt
from evaluation.data import Labelled
from evaluation.intervals import Interval, clopper_pearson, interval_of, percentile_interval, resample_weights, resampled_metrics
from evaluation.metrics import Floats, mean_defined

Predictor = Callable[[NDArray[np.float32]], Floats]
SUBGROUP_MIN = 30
PREVALENCE_FACTORS = (0.1, 1.0, 3.0)
RESAMPLES = 300


def clean(p: Floats, test: Labelled, class_names: tuple[str, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Macro AUC, balanced accuracy and per-class recall on the test images as they are; ``p`` are their probabilities [n, K]."""
    metrics = resampled_metrics(p, test.labels, resample_weights(test.groups, rng, RESAMPLES))
    recall = {name: interval_of(metrics.class_recall[:, k], int((test.labels == k).sum())) for k, name in enumerate(class_names)}
    n = len(test)
    return {"auc": interval_of(metrics.auc, n), "balanced_accuracy": interval_of(metrics.balanced_accuracy, n), "per_class_recall": recall}


def balanced_subset(labels: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most ``size`` row indices: every class up to one common count, so that rare classes are kept whole."""
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        turn[rows] = rng.permutation(len(rows))
    return np.sort(np.argsort(turn, kind="stable")[:size])


def corruption_table(predict: Predictor, test: Labelled, rng: np.random.Generator, *, max_images: int = 400) -> dict[str, Any]:
    """Every corruption at severities 1 to 5, on the same images, compared with those images uncorrupted.

    Macro AUC and balanced accuracy do not hang on the mix of classes, so at most ``max_images`` are taken, rare classes first.

    Returns:
        ``n``, ``reference`` (the same images, clean), ``corruptions`` (name -> five rows), ``mean_drop`` (the mean over all
        rows of reference - corrupted), ``worst`` (the five rows with the largest drop of AUC, largest first).
    """
    subset = test.take(balanced_subset(test.labels, max_images, rng))
    weights = resample_weights(subset.groups, rng, RESAMPLES)

    def row(images: NDArray[np.float32]) -> dict[str, Interval]:
        metrics = resampled_metrics(predict(images), subset.labels, weights)
        return {name: interval_of(getattr(metrics, name), len(subset)) for name in ("auc", "balanced_accuracy")}

    reference = row(subset.unit)
    table: dict[str, list[dict[str, Any]]] = {
        name: [{"severity": severity} | row(corrupt(subset.unit, name, severity, rng)) for severity in range(1, 6)] for name in CORRUPTIONS
    }
    lines = [(name, line) for name, rows in table.items() for line in rows]
    drops = {key: np.array([reference[key].value - line[key].value for _, line in lines]) for key in reference}
    worst = [
        {"corruption": lines[i][0], "severity": lines[i][1]["severity"], "auc_drop": float(drops["auc"][i])}
        for i in np.argsort(-drops["auc"], kind="stable")[:5]
    ]
    mean_drop = {key: float(mean_defined(values)) for key, values in drops.items()}
    return {"n": len(subset), "reference": reference, "corruptions": table, "mean_drop": mean_drop, "worst": worst}


def subgroups(
    p: Floats, test: Labelled, columns: Mapping[str, NDArray[Any]], rng: np.random.Generator
) -> dict[str, dict[str, dict[str, Any]]]:
    """Macro AUC and balanced accuracy within every value of every column (site, sex, age band) with 30 images or more."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for column, values in columns.items():
        text = np.array([str(value) for value in values])
        for value in np.unique(text):
            rows = np.flatnonzero(text == value)
            if len(rows) < SUBGROUP_MIN:
                continue
            weights = resample_weights(test.groups[rows], rng, RESAMPLES)
            metrics = resampled_metrics(p[rows], test.labels[rows], weights)
            result.setdefault(column, {})[str(value)] = {
                "n": len(rows),
                "auc": interval_of(metrics.auc, len(rows)),
                "balanced_accuracy": interval_of(metrics.balanced_accuracy, len(rows)),
            }
    return result


def synthetic_recalls(p: Floats, labels: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, Interval]:
    """Recall of every class on synthetic images, of which rare classes have as many as common ones; Clopper-Pearson."""
    predicted = p.argmax(axis=1)
    counts = ((int((predicted[labels == k] == k).sum()), int((labels == k).sum())) for k in range(len(class_names)))
    return {name: clopper_pearson(hits, n) for name, (hits, n) in zip(class_names, counts, strict=True)}


def changed_prevalence(
    p: Floats, test: Labelled, class_names: tuple[str, ...], rng: np.random.Generator
) -> dict[str, list[dict[str, Any]]]:
    """Each class against the rest where it is rarer or more common than in the test set.

    Sensitivity and specificity stay; the positive predictive value follows by Bayes' theorem:
    ``ppv = sens prev / (sens prev + (1 - spec) (1 - prev))``. Factors that would bring the prevalence to 1 are left out.
    """
    predicted = p.argmax(axis=1)
    weights = np.concatenate([np.ones((1, len(test))), resample_weights(test.groups, rng, RESAMPLES)])
    result: dict[str, list[dict[str, Any]]] = {}
    for k, name in enumerate(class_names):
        is_class, called = test.labels == k, predicted == k
        with np.errstate(invalid="ignore", divide="ignore"):
            sensitivity = (weights @ (is_class & called)) / (weights @ is_class)
            specificity = (weights @ ~(is_class | called)) / (weights @ ~is_class)
        base = float(is_class.mean())
        result[name] = []
        for factor in PREVALENCE_FACTORS:
            prevalence = base * factor
            if prevalence >= 1:
                continue
            with np.errstate(invalid="ignore", divide="ignore"):
                true = sensitivity * prevalence
                ppv = true / (true + (1 - specificity) * (1 - prevalence))
            result[name].append(
                {
                    "factor": factor,
                    "prevalence": prevalence,
                    "sensitivity": interval_of(sensitivity, int(is_class.sum())),
                    "specificity": interval_of(specificity, int((~is_class).sum())),
                    "ppv": percentile_interval(float(ppv[0]), ppv[1:], len(test)),
                }
            )
    return result
