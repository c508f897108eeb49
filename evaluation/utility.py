"""What synthetic images are good for: training on them, alone or beside real ones, judged on real test patients.

The arms are those of :mod:`evaluation.arms`, and every one is compared with the same control, which is fixed beforehand. The test set is
scored once per trained network. Intervals hold other patients and other trainings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.arms import CONTROL
from evaluation.comparisons import changes
from evaluation.data import Labelled
from evaluation.intervals import Change, Interval, Spread, interval, share_interval
from evaluation.metrics import (
    Estimate,
    Floats,
    auc_estimate,
    balanced_accuracy_estimate,
    brier_estimate,
    calibration_error,
    macro_auc_estimate,
    recall_estimate,
    share_estimate,
)

SPECIFICITY = 0.9
"""At which sensitivities are compared: one false alarm in ten patients without the finding, which a reader's second look can bear."""
LEAST_NEGATIVES = 20
"""Held-out images without a finding, at the least, that a threshold is set on: two of them lie above it."""
LEAST_PATIENTS = 11
"""Test patients with a finding, and without it, at the least, for a comparison in a subgroup. One of ten patients moves a sensitivity by a
tenth; and the US Centers for Medicare & Medicaid Services let no count of 1 to 10 patients be published."""
MEASURES = ("auc", "sensitivity")
"""Compared by class."""
UNTESTED = Change(Interval(math.nan, math.nan, math.nan, 0), math.nan)

Compared = dict[str, Estimate]
"""By measure."""


@dataclass(frozen=True)
class Scored:
    """One arm's classifiers, scored on held-out images and on test images.

    Attributes:
        choose: probabilities of the real held-out images on which the trainings' length was chosen, ``[S, m, K]``.
        test: of the test images, ``[S, n, K]``.
    """

    choose: Floats
    test: Floats

    def called(self, choose: Labelled, label: int) -> NDArray[np.bool_] | None:
        """Whether each training calls each test image positive for a class, ``[S, n]``, above a threshold of its own.

        It is the lowest one at which at least :data:`SPECIFICITY` of the held-out images without the finding lie at or below it; None
        where they are fewer than :data:`LEAST_NEGATIVES`.
        """
        negatives = np.sort(self.choose[:, choose.findings[:, label] == 0, label], axis=1)
        count = negatives.shape[1]
        if count < LEAST_NEGATIVES:
            return None
        allowed = int(np.floor(count * (1 - SPECIFICITY) + 1e-9))
        return np.asarray(self.test[:, :, label] > negatives[:, [count - 1 - allowed]])


def utility(scored: Mapping[str, Scored], choose: Labelled, test: Labelled, names: tuple[str, ...], *, synthetic: int) -> dict[str, Any]:
    """Every arm's measures on the test patients, and what it changes over the control.

    Differences are paired by patient and by training seed. Those of one measure are tested together, over all arms and classes, and those
    in subgroups over all arms, subgroups and classes (Holm): what a reader sees side by side is one family.

    Args:
        scored: by arm, with the control among them.
        choose: the held-out images, on which thresholds are set.
        test: the test images; ``attributes`` name the subgroups.
        names: of the classes.
        synthetic: how many synthetic images the arms could use.

    Returns:
        ``seeds``, ``n_test``, ``control``, ``specificity`` and ``synthetic``; ``arms``, each with measures and ``per_class``;
        ``differences``, each arm's ``auc``, ``brier`` and ``per_class`` (``auc``, ``sensitivity``); ``subgroups``: by column,
        value and class each arm's ``auc`` and ``sensitivity``, or ``{"few": LEAST_PATIENTS}``. Leaves are :class:`Interval`,
        :class:`Change` and :class:`Spread`.
    """
    labels, groups = test.labels, test.groups
    classes = by_class(scored, choose, test, names)
    whole = {
        "auc": {arm: macro_auc_estimate(one.test, labels, groups) for arm, one in scored.items()},
        "brier": {arm: brier_estimate(one.test, labels, groups) for arm, one in scored.items()},
    }
    overall = {measure: changes({arm: (of[arm], of[CONTROL]) for arm in of if arm != CONTROL}) for measure, of in whole.items()}
    recall = {
        arm: {name: share_interval(recall_estimate(one.test.argmax(axis=2), labels, groups, k)) for k, name in enumerate(names)}
        for arm, one in scored.items()
    }
    return {
        "seeds": len(scored[CONTROL].test),
        "n_test": len(test),
        "control": CONTROL,
        "specificity": SPECIFICITY,
        "synthetic": synthetic,
        "arms": {
            arm: _of_all(one, test)
            | {"auc": interval(whole["auc"][arm]), "brier": interval(whole["brier"][arm])}
            | {"per_class": {name: facts | {"recall": recall[arm][name]} for name, facts in classes.arms[arm].items()}}
            for arm, one in scored.items()
        },
        "differences": {
            arm: {measure: of[arm] for measure, of in overall.items()} | {"per_class": facts} for arm, facts in classes.differences.items()
        },
        "subgroups": classes.subgroups,
    }


@dataclass(frozen=True)
class ByClass:
    """What arms score, and change over the control, of each class or finding by itself.

    Attributes:
        arms: by arm and class ``auc``, ``sensitivity`` and the ``specificity`` that its thresholds came to on the test images.
        differences: by every other arm than the control and class ``auc`` and ``sensitivity``.
        subgroups: by column, value, class and arm the same, or ``{"few": LEAST_PATIENTS}``.
    """

    arms: dict[str, dict[str, dict[str, Any]]]
    differences: dict[str, dict[str, dict[str, Change]]]
    subgroups: dict[str, Any]


def by_class(scored: Mapping[str, Scored], choose: Labelled, test: Labelled, names: tuple[str, ...]) -> ByClass:
    """Compare the arms class by class; where an image can have several findings, or none, each on the images of which it is known."""
    called = {arm: [one.called(choose, k) for k in range(len(names))] for arm, one in scored.items()}
    found = {arm: {name: _by_class(one, called[arm], test, k) for k, name in enumerate(names)} for arm, one in scored.items()}
    enough = [name for k, name in enumerate(names) if _enough(test, k)]
    others = [arm for arm in scored if arm != CONTROL]
    changed = {
        measure: changes({(arm, name): (found[arm][name][measure], found[CONTROL][name][measure]) for arm in others for name in enough})
        for measure in MEASURES
    }
    return ByClass(
        {arm: {name: _shown(called[arm][k], found[arm][name], test, k) for k, name in enumerate(names)} for arm in scored},
        {arm: {name: {measure: of.get((arm, name), UNTESTED) for measure, of in changed.items()} for name in names} for arm in others},
        _subgroups(scored, called, test, names),
    )


def _enough(test: Labelled, label: int, rows: Any = slice(None)) -> bool:
    marks, groups = test.findings[rows, label], test.groups[rows]
    return min(len(np.unique(groups[marks == side])) for side in (0, 1)) >= LEAST_PATIENTS


def _by_class(one: Scored, called: list[NDArray[np.bool_] | None], test: Labelled, label: int, within: Any = slice(None)) -> Compared:
    """What is compared of one class, on all test images or on some rows, as far as it is known of them."""
    rows = np.arange(len(test))[within]
    rows = rows[test.findings[rows, label] >= 0]
    positive, groups = test.findings[rows, label] == 1, test.groups[rows]
    above = called[label]
    hits = np.zeros((len(one.test), 0)) if above is None else above[:, rows][:, positive]
    return {
        "auc": auc_estimate(one.test[:, rows, label], positive, groups),
        "sensitivity": share_estimate(hits, groups[positive][: hits.shape[1]]),
    }


def _of_all(one: Scored, test: Labelled) -> dict[str, Any]:
    """Measures of all classes together that are not compared."""
    labels, groups, predicted = test.labels, test.groups, one.test.argmax(axis=2)
    return {
        "accuracy": share_interval(share_estimate(predicted == labels, groups)),
        "balanced_accuracy": interval(balanced_accuracy_estimate(predicted, labels, groups, test.classes)),
        "calibration_error": Spread.of([calibration_error(p, labels) for p in one.test], len(test)),
    }


def _shown(above: NDArray[np.bool_] | None, compared: Compared, test: Labelled, label: int) -> dict[str, Any]:
    """Measures of one class, with the specificity that its thresholds came to on the test images."""
    negative = test.findings[:, label] == 0
    right = np.zeros((1, 0)) if above is None else ~above[:, negative]
    return {
        "auc": interval(compared["auc"]),
        "sensitivity": share_interval(compared["sensitivity"]),
        "specificity": share_interval(share_estimate(right, test.groups[negative][: right.shape[1]])),
    }


def _subgroups(
    scored: Mapping[str, Scored], called: Mapping[str, list[NDArray[np.bool_] | None]], test: Labelled, names: tuple[str, ...]
) -> dict[str, Any]:
    """Differences to the control within every value of every attribute."""
    pairs: dict[str, dict[tuple[str, ...], tuple[Estimate, Estimate]]] = {measure: {} for measure in MEASURES}
    result: dict[str, Any] = {}
    for column, value, rows in parts(test):
        for k, name in enumerate(names):
            place = result.setdefault(column, {}).setdefault(value, {})
            if not _enough(test, k, rows):
                place[name] = {"few": LEAST_PATIENTS}
                continue
            place[name] = {}
            found = {arm: _by_class(one, called[arm], test, k, rows) for arm, one in scored.items()}
            for arm, measure in itertools.product(found, MEASURES):
                if arm != CONTROL:
                    pairs[measure][column, value, name, arm] = (found[arm][measure], found[CONTROL][measure])
    for measure, of in pairs.items():
        for (column, value, name, arm), change in changes(of).items():
            result[column][value][name].setdefault(arm, {})[measure] = change
    return result


def parts(test: Labelled) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Every attribute's values, as (column, value, rows); what is empty or the same for all is no subgroup, nor what fewer than
    :data:`LEAST_PATIENTS` patients have: that there are such would tell of them."""
    for column, values in test.attributes.items():
        text = np.array(["" if value is None or value != value else str(value) for value in values])
        found = [str(value) for value in np.unique(text) if value]
        for value in found if len(found) > 1 else []:
            rows = np.flatnonzero(text == value)
            if len(np.unique(test.groups[rows])) >= LEAST_PATIENTS:
                yield column, value, rows
