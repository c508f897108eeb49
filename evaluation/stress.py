"""Where classifiers break: corrupted images, subgroups, changed prevalence.

The classifiers are any callable from images float32 ``[n, C, H, W]`` in -1..1 to class probabilities: ``[n, K]``, or ``[S, n, K]`` of
several trainings, which are then judged one by one as everywhere else. Intervals hold other patients and, with several trainings, other
trainings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.comparisons import changes, difference
from evaluation.corruptions import CORRUPTIONS, corrupt
from evaluation.data import Labelled
from evaluation.intervals import Interval, interval, predictive_value, share_interval
from evaluation.metrics import Estimate, Floats, balanced_accuracy_estimate, macro_auc_estimate, recall_estimate, share_estimate
from evaluation.utility import LEAST_PATIENTS, parts

Predictor = Callable[[NDArray[np.float32]], Floats]
Measures = Callable[[Floats, Labelled], Mapping[str, Estimate]]
"""Of probabilities and cases."""
PREVALENCE_FACTORS = (0.1, 1.0, 3.0)
WORST = 5
"""Conditions that are named as the worst, at the most."""


def clean(p: Floats, test: Labelled, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Macro AUC, balanced accuracy and recall by class on the test images as they are; ``p`` are their probabilities."""
    predicted = p.argmax(axis=-1)
    recall = {name: share_interval(recall_estimate(predicted, test.labels, test.groups, k)) for k, name in enumerate(class_names)}
    return {measure: interval(one) for measure, one in estimates(p, test).items()} | {"per_class_recall": recall}


def balanced_subset(labels: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most ``size`` row indices: every class up to one common count, so that rare classes are kept whole."""
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        turn[rows] = rng.permutation(len(rows))
    return np.sort(np.argsort(turn, kind="stable")[:size])


def corruption_table(
    predict: Predictor, test: Labelled, rng: np.random.Generator, *, max_images: int = 400, measures: Measures | None = None
) -> dict[str, Any]:
    """Every corruption at severities 1 to 5, on the same images, compared with those images uncorrupted.

    Macro AUC and balanced accuracy do not hang on the mix of classes, so at most ``max_images`` are taken, rare classes, or combinations of
    findings, first. Drops are paired by patient, and those of one measure are tested together over the whole table (Holm). ``measures`` are
    :func:`estimates` by default, or others with ``auc`` among them; where those have nothing to say of the images, no corruption is tried.

    Returns:
        ``n``, ``reference`` (the same images, clean), ``corruptions`` (name -> five rows with ``auc``, ``balanced_accuracy``, ``auc_drop``
        and ``balanced_accuracy_drop``), ``mean_drop`` (the mean over all rows), ``shown`` (how many drops of AUC stand), and ``worst``: the
        five largest drops of AUC among those that stand, largest first; none where none does. Of no corruption, ``n`` alone.
    """
    subset, measured = test.take(balanced_subset(test.strata, max_images, rng)), measures or estimates
    reference = measured(predict(subset.unit), subset)
    if not reference:
        return {"n": len(subset)}
    found = {
        (name, severity): measured(predict(corrupt(subset.unit, name, severity, rng)), subset)
        for name in CORRUPTIONS
        for severity in range(1, 6)
    }
    return {"n": len(subset)} | drops(reference, found)


def drops(reference: Mapping[str, Estimate], found: Mapping[tuple[str, int], Mapping[str, Estimate]]) -> dict[str, Any]:
    """What every condition takes away, paired by patient; the drops of one measure are tested together over all conditions (Holm).

    Args:
        reference: :func:`estimates` of the images as they are.
        found: those of the same images under every condition, by its name and severity.

    Returns:
        What :func:`corruption_table` does, but for ``n``.
    """
    by_measure = {measure: changes({key: (clean_, one[measure]) for key, one in found.items()}) for measure, clean_ in reference.items()}
    table: dict[str, list[dict[str, Any]]] = {}
    for (name, severity), one in found.items():
        table.setdefault(name, []).append(
            {"severity": severity}
            | {measure: interval(estimate) for measure, estimate in one.items()}
            | {f"{measure}_drop": of[name, severity] for measure, of in by_measure.items()}
        )
    standing = sorted(
        ((key, drop) for key, drop in by_measure["auc"].items() if drop.stands and drop.by.value > 0), key=lambda item: -item[1].by.value
    )
    return {
        "reference": {measure: interval(one) for measure, one in reference.items()},
        "corruptions": table,
        "mean_drop": {measure: _mean_drop(one, [row[measure] for row in found.values()]) for measure, one in reference.items()},
        "shown": len(standing),
        "worst": [{"corruption": name, "severity": severity, "auc_drop": drop} for (name, severity), drop in standing[:WORST]],
    }


def subgroups(p: Floats, test: Labelled) -> dict[str, dict[str, dict[str, Any]]]:
    """Macro AUC and balanced accuracy within every value of every attribute.

    A class counts in a subgroup that has :data:`LEAST_PATIENTS` patients with it; a subgroup with fewer than two such classes is left out.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for column, value, rows in parts(test):
        labels, groups = test.labels[rows], test.groups[rows]
        kept = [k for k in range(test.classes) if len(np.unique(groups[labels == k])) >= LEAST_PATIENTS]
        if len(kept) < 2:
            continue
        rows = rows[np.isin(labels, kept)]
        part = test.take(rows)
        measured = {measure: interval(one) for measure, one in estimates(p[..., rows, :], part).items()}
        result.setdefault(column, {})[value] = {"n": len(rows), "classes": len(kept)} | measured
    return result


def changed_prevalence(p: Floats, test: Labelled, class_names: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Each class against the rest where it is rarer or more common than in the test set.

    Sensitivity and specificity stay; the positive predictive value follows by Bayes' theorem. Factors that would bring the prevalence to 1
    are left out.
    """
    predicted = np.atleast_2d(p.argmax(axis=-1))
    result: dict[str, list[dict[str, Any]]] = {}
    for k, name in enumerate(class_names):
        is_class = test.labels == k
        base = float(is_class.mean())
        sensitivity = share_interval(recall_estimate(predicted, test.labels, test.groups, k))
        specificity = share_interval(share_estimate(predicted[:, ~is_class] != k, test.groups[~is_class]))
        result[name] = [
            {
                "factor": factor,
                "prevalence": base * factor,
                "sensitivity": sensitivity,
                "specificity": specificity,
                "ppv": predictive_value(sensitivity, specificity, base * factor),
            }
            for factor in PREVALENCE_FACTORS
            if 0 < base * factor < 1
        ]
    return result


def estimates(p: Floats, test: Labelled) -> dict[str, Estimate]:
    """``auc`` (macro) and ``balanced_accuracy`` of probabilities ``[n, K]`` or ``[S, n, K]``."""
    named = p.argmax(axis=-1)
    return {
        "auc": macro_auc_estimate(p, test.labels, test.groups),
        "balanced_accuracy": balanced_accuracy_estimate(named, test.labels, test.groups, test.classes),
    }


def _mean_drop(reference: Estimate, found: list[Estimate]) -> Interval:
    """Mean over conditions of the drop, paired by patient and by training."""
    mean = dataclasses.replace(
        reference,
        by_seed=np.mean([one.by_seed for one in found], axis=0),
        influence=np.mean([one.influence for one in found], axis=0),
        counts=False,
    )
    return difference(reference, mean)
