"""What shifts do to somebody's classifier, from its probabilities alone: fitness, drops, silent errors, calibration, a second model.

All figures are on the same images as they are and shifted, paired by patient. Those that a reader sees side by side are tested together
(Holm). A model that is not fit on clean images is said to be so, and its drops are not looked at: there is nothing to lose.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from evaluation.comparisons import apart, changes, difference, holm, p_apart, p_value
from evaluation.data import Labelled
from evaluation.intervals import FAMILY, Change, Interval, interval, share_interval
from evaluation.judges import LEAST_AUC
from evaluation.metrics import (
    Estimate,
    Floats,
    auc_estimate,
    brier_estimate,
    calibration_error,
    macro_auc_estimate,
    recall_estimate,
    share_estimate,
)
from evaluation.stress import Measures, changed_prevalence, clean, drops, estimates, subgroups
from evaluation.utility import LEAST_PATIENTS, parts

Answer = Literal["yes", "no", "not enough data"]
Condition = tuple[str, int]
"""A shift's name and its severity."""
ABSTAINED = 0.2
"""Share of the clean images on which the model abstains, the least confident ones: as many as a second reader could take over."""
MOVED = 0.05
"""Change of a class's mean probability that a marker may make: no letter beside a patient changes what the patient has."""


@dataclass(frozen=True)
class Answers:
    """A model's probabilities.

    Attributes:
        clean: of the images as they are, ``[n, K]``.
        shifted: of the same images under every condition, each ``[n, K]``; empty where only clean ones were asked.
    """

    clean: Floats
    shifted: Mapping[Condition, Floats]

    def at(self, condition: Condition | None) -> Floats:
        """Probabilities under a condition; of the images as they are for None."""
        return self.clean if condition is None else self.shifted[condition]


@dataclass(frozen=True)
class Fit:
    """Whether a model is worth a stress test.

    Attributes:
        answer: ``yes``, ``no`` or ``not enough data``.
        why: a sentence.
    """

    answer: Answer
    why: str


def labels_only(findings: NDArray[np.int8], groups: NDArray[Any], attributes: Mapping[str, NDArray[Any]] | None = None) -> Labelled:
    """Cases whose pixels stay elsewhere: their images are of one pixel."""
    return Labelled(np.zeros((len(findings), 1, 1, 1), np.uint8), findings, groups, attributes or {})


def fit(p: Floats, test: Labelled, names: Sequence[str]) -> Fit:
    """Whether the macro AUC on clean images is :data:`evaluation.judges.LEAST_AUC` or more, and more than chance."""
    sizes = {names[k]: len(np.unique(test.groups[test.labels == k])) for k in np.unique(test.labels)}
    if len(sizes) < 2:
        return Fit("not enough data", f"all cases are of one class, {', '.join(sizes)}")
    if few := [f"{name} ({n})" for name, n in sizes.items() if n < LEAST_PATIENTS]:
        return Fit("not enough data", f"of {', '.join(few)} there are fewer than {LEAST_PATIENTS} patients: give more of them, or none")
    return worth(interval(macro_auc_estimate(p, test.labels, test.groups)), "clean images")


def worth(found: Interval, where: str) -> Fit:
    """Whether an AUC is that of a model worth a stress test."""
    told = f"AUC {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) on {where}"
    if found.value >= LEAST_AUC and found.low > 0.5:
        return Fit("yes", told)
    if found.high >= LEAST_AUC:
        return Fit("not enough data", f"{told}, which may be below {LEAST_AUC} and may be above it")
    return Fit("no", f"{told}: below {LEAST_AUC}, there is nothing to lose")


def other_order(p: Floats, test: Labelled) -> tuple[int, ...] | None:
    """The class of each output, where the cases speak for another order than the one in which they were declared; None where they do not.

    Of all orders it is the one of the largest mean AUC (an assignment: Kuhn 1955). Every class that it moves must be ranked better by the
    output that it is moved to than by its own: a paired difference, at 5 % over all pairs of a class and an output (Bonferroni).

    Args:
        p: probabilities ``[n, K]`` of exclusive classes, or of findings of which an image may have several.
    """
    known = [test.findings[:, k] >= 0 for k in range(test.classes)]

    def area(output: int, k: int) -> Estimate:
        return auc_estimate(p[known[k], output], test.findings[known[k], k] == 1, test.groups[known[k]])

    areas = np.array([[area(output, k).value for k in range(test.classes)] for output in range(test.classes)])
    own = 1e-9 * np.eye(test.classes)  # between orders that are alike, as of classes without cases
    outputs = linear_sum_assignment(-(np.nan_to_num(areas, nan=0.5) + own).T)[1]
    moved = [(int(output), k) for k, output in enumerate(outputs) if output != k]
    sure = 1 - FAMILY / (test.classes * (test.classes - 1))
    gains = [difference(area(output, k), area(k, k), sure) for output, k in moved]
    if not moved or not all(gain.low > 0 for gain in gains):
        return None
    return tuple(int(k) for k in np.argsort(outputs))


def judged(answers: Answers, test: Labelled, names: tuple[str, ...]) -> dict[str, Any]:
    """All that is said of one model.

    Returns:
        ``clean``, ``subgroups`` and ``prevalence`` as :mod:`evaluation.stress` has them, and :func:`gaps`; where there are shifted answers
        its drops
        (``reference``, ``corruptions``, ``mean_drop``, ``shown``, ``worst``), :func:`sensitivities`, :func:`harm` as ``harm``,
        :func:`calibration` as ``calibration``, and :func:`marker` as ``marker``.
    """
    found: dict[str, Any] = {
        "clean": clean(answers.clean, test, names) | {"calibration_error": calibration_error(answers.clean, test.labels)},
        "subgroups": subgroups(answers.clean, test),
        "gaps": gaps(answers.clean, test, names),
        "prevalence": changed_prevalence(answers.clean, test, names),
    }
    if answers.shifted:
        found |= drops(estimates(answers.clean, test), {key: estimates(p, test) for key, p in answers.shifted.items()})
        found["sensitivities"] = sensitivities(answers, test, names)
        found["harm"] = harm(answers, test)
        found["calibration"] = calibration(answers, test)
        found["marker"] = marker(answers, test, names)
    return found


def sensitivities(answers: Answers, test: Labelled, names: tuple[str, ...]) -> dict[str, Any]:
    """By class, the drop of sensitivity under every condition, tested together over classes and conditions.

    A class of fewer than :data:`evaluation.utility.LEAST_PATIENTS` patients has ``{"few": ...}``; others are lists of ``shift``,
    ``severity``, ``sensitivity`` and ``drop``, those of one condition in the order of ``answers.shifted``.
    """

    def recall(p: Floats, k: int) -> Estimate:
        return recall_estimate(p.argmax(axis=1), test.labels, test.groups, k)

    enough = [k for k in range(len(names)) if len(np.unique(test.groups[test.labels == k])) >= LEAST_PATIENTS]
    found = {(k, key): recall(p, k) for k in enough for key, p in answers.shifted.items()}
    dropped = changes({place: (recall(answers.clean, place[0]), one) for place, one in found.items()})
    return {
        name: {"few": LEAST_PATIENTS}
        if k not in enough
        else [
            {"shift": key[0], "severity": key[1], "sensitivity": share_interval(found[k, key]), "drop": dropped[k, key]}
            for key in answers.shifted
        ]
        for k, name in enumerate(names)
    }


def gaps(p: Floats, test: Labelled, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Subgroups whose patients with a finding are missed more often, or less, than all others': tested together over what is listed.

    Each has the subgroup's ``sensitivity`` for a class, and ``gap``, that of the others minus it, on images as they are. A subgroup needs
    :data:`evaluation.utility.LEAST_PATIENTS` patients with the finding, and so do the others of known value.
    """
    pairs: dict[tuple[str, str, int], tuple[Estimate, Estimate]] = {}
    known = {column: np.array([str(value) != "" for value in values]) for column, values in test.attributes.items()}
    for column, value, rows in parts(test):
        inside = np.zeros(len(test), bool)
        inside[rows] = True
        for k in range(len(names)):
            of = np.flatnonzero((test.labels == k) & known[column])
            sides = inside[of]
            if min(len(np.unique(test.groups[of[side]])) for side in (sides, ~sides)) >= LEAST_PATIENTS:
                hits = p[of].argmax(axis=1) == k
                others, own = (share_estimate(hits[side], test.groups[of[side]]) for side in (~sides, sides))
                pairs[column, value, k] = (others, own)
    adjusted = holm([p_apart(*pair) for pair in pairs.values()])
    return [
        {
            "column": column,
            "value": value,
            "class": names[k],
            "sensitivity": share_interval(pair[1]),
            "gap": Change(apart(*pair), float(p)),
        }
        for ((column, value, k), pair), p in zip(pairs.items(), adjusted, strict=True)
    ]


def marker(answers: Answers, test: Labelled, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Whether the model reads the letter of a marker: how it moves the mean probability of each class, on the same images without it.

    That alone may be what any bright thing there does. So it is asked as well beside a soft patch of as much light at the same place, which
    is no letter. A row *stands* where the letter raises the probability by more than :data:`MOVED`, and more than the patch does: the
    larger p-value of the two counts (an intersection-union test, Berger 1982), over all rows together (Holm).

    Returns:
        By class and severity ``class``, ``severity``, ``change`` (with its interval, p and ``stands``) and ``patch``, the patch's change;
        none where the modality has no markers.
    """
    severities = [severity for name, severity in answers.shifted if name == "marker" and ("patch", severity) in answers.shifted]
    keys = [(k, severity) for k in range(len(names)) for severity in severities]
    ps, by, beside = [], [], []
    for k, severity in keys:
        clean, letter, patch = (
            share_estimate(answers.at(at)[:, k], test.groups) for at in (None, ("marker", severity), ("patch", severity))
        )
        least = dataclasses.replace(clean, by_seed=clean.by_seed + MOVED)
        raised = letter.value > max(least.value, patch.value)
        ps.append(max(p_value(letter, least), p_value(letter, patch)) if raised else 1.0)
        by.append(difference(letter, clean))
        beside.append(difference(patch, clean))
    return [
        {"class": names[k], "severity": severity, "change": Change(change, float(p)), "patch": patch}
        for (k, severity), change, p, patch in zip(keys, by, holm(ps), beside)
    ]


def harm(answers: Answers, test: Labelled) -> dict[str, Any]:
    """Errors that nobody is warned of: the model is wrong, and as confident as on the clean images that it would not abstain from.

    The threshold of confidence (the largest probability) is the one under which :data:`ABSTAINED` of the clean images lie.

    Returns:
        ``abstained``; ``threshold``; ``clean`` (``kept``: share of images that it does not abstain from, ``accuracy`` on them, ``silent``:
        share of all images that are silent errors); ``conditions``: the same of each with ``shift``, ``severity`` and ``more``, the change
        of silent errors, those that stand first, by the least harm that their interval allows.
    """
    threshold = float(np.quantile(answers.clean.max(axis=1), ABSTAINED))

    def silent(p: Floats) -> Estimate:
        return share_estimate((p.argmax(axis=1) != test.labels) & (p.max(axis=1) >= threshold), test.groups)

    def shown(p: Floats) -> dict[str, Any]:
        kept = p.max(axis=1) >= threshold
        right = p.argmax(axis=1)[kept] == test.labels[kept]
        return {
            "kept": share_interval(share_estimate(kept, test.groups)),
            "accuracy": share_interval(share_estimate(right, test.groups[kept])),
            "silent": share_interval(silent(p)),
        }

    more = changes({key: (silent(p), silent(answers.clean)) for key, p in answers.shifted.items()})
    order = sorted(answers.shifted, key=lambda key: (not _grew(more[key]), -_least(more[key])))
    rows = [
        {"shift": key[0], "severity": key[1], "more": more[key], "stands": _grew(more[key])} | shown(answers.shifted[key]) for key in order
    ]
    return {"abstained": ABSTAINED, "threshold": threshold, "clean": shown(answers.clean), "conditions": rows}


def calibration(answers: Answers, test: Labelled) -> list[dict[str, Any]]:
    """Brier score and calibration error under every condition, with the change of the score, tested together.

    The calibration error is a point: at one n it compares conditions, and has no interval.
    """

    def brier(p: Floats) -> Estimate:
        return brier_estimate(p, test.labels, test.groups)

    grown = changes({key: (brier(p), brier(answers.clean)) for key, p in answers.shifted.items()})
    return [
        {
            "shift": key[0],
            "severity": key[1],
            "brier": interval(brier(p)),
            "more": grown[key],
            "calibration_error": calibration_error(p, test.labels),
        }
        for key, p in answers.shifted.items()
    ]


def compared(one: Answers, other: Answers, test: Labelled, measures: Measures = estimates) -> list[dict[str, Any]]:
    """Two models on the same cases: ``auc`` of each and the first's ``gain``, as they are and under every condition, tested together.

    Args:
        measures: of probabilities and cases, ``auc`` among them; where they have nothing to say of the cases, there are no rows.
    """
    keys: list[Condition | None] = [None, *one.shifted] if measures(one.clean, test) else []
    pairs = {key: (measures(one.at(key), test)["auc"], measures(other.at(key), test)["auc"]) for key in keys}
    gains = changes(pairs)
    return [
        {
            "shift": key[0] if key else None,
            "severity": key[1] if key else None,
            "auc": interval(pairs[key][0]),
            "against": interval(pairs[key][1]),
            "gain": gains[key],
        }
        for key in keys
    ]


def _grew(change: Change) -> bool:
    return bool(change.stands and change.by.value > 0)


def _least(change: Change) -> float:
    return change.by.low if math.isfinite(change.by.low) else -1.0
