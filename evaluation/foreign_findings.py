"""What shifts do to a classifier of images that can have several findings, or none: each is a question of its own, present or absent.

A finding is asked about on the images of which it is known (:func:`of_finding`), and called present where its probability is one half or
more. What is said of all findings is the mean of their AUC, or goes over all pairs of an image and a finding (:func:`pairs`). What a table
shows of all findings is tested together: within a finding by Holm, over the findings by Bonferroni.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import findings, foreign
from evaluation.data import Labelled
from evaluation.foreign import Answers, Fit, worth
from evaluation.intervals import Change, interval, share_interval
from evaluation.metrics import Estimate, Floats, calibration_error, recall_estimate
from evaluation.rules import Answered, Rule
from evaluation.rules import answered as rules_of_classes
from evaluation.stress import changed_prevalence, drops
from evaluation.utility import LEAST_PATIENTS, parts

ABSENT = ""
"""The other class of a finding, which no finding is named."""
PRESENT = "present"
FEW = f"no finding is present in {LEAST_PATIENTS} patients and absent in as many"
"""Why nothing is said of all findings together, where :func:`estimates` has nothing."""


def of_finding(answers: Answers, test: Labelled, finding: int) -> tuple[Answers, Labelled, NDArray[np.int64]]:
    """One finding as two classes, absent and present: the answers, the cases of which it is known, and their rows."""
    rows = np.flatnonzero(test.findings[:, finding] >= 0)
    cases = _two_classes(test.findings[rows, finding], test.groups[rows], {name: of[rows] for name, of in test.attributes.items()})
    own = Answers(_sides(answers.clean[..., rows, finding]), {key: _sides(p[..., rows, finding]) for key, p in answers.shifted.items()})
    return own, cases, rows


def pairs(answers: Answers, test: Labelled) -> tuple[Answers, Labelled]:
    """All pairs of an image and a finding that is known, as cases of two classes; those of a patient's images are the patient's."""
    known = (test.findings >= 0).ravel()
    each = {name: np.repeat(of, test.classes)[known] for name, of in test.attributes.items()}
    cases = _two_classes(test.findings.ravel()[known], np.repeat(test.groups, test.classes)[known], each)
    flat = {key: _sides(p.reshape(-1)[known]) for key, p in answers.shifted.items()}
    return Answers(_sides(answers.clean.reshape(-1)[known]), flat), cases


def fit(p: Floats, test: Labelled, names: Sequence[str]) -> Fit:
    """Whether the mean AUC of the findings on clean images is :data:`evaluation.judges.LEAST_AUC` or more, and more than chance."""
    area = estimates(p, test).get("auc")
    if area is None:
        return Fit("not enough data", f"of {', '.join(names)} {FEW}")
    return worth(interval(area), f"clean images, mean of {len(enough(test))} findings")


def enough(test: Labelled) -> list[int]:
    """The findings that are present in :data:`LEAST_PATIENTS` patients, and absent in as many."""
    return findings.counted(test, LEAST_PATIENTS)


def judged(answers: Answers, test: Labelled, names: Sequence[str]) -> dict[str, Any]:
    """All that is said of one model, under the names that :func:`evaluation.foreign.judged` has for one class an image.

    Returns:
        ``several``; ``clean`` (see there, with ``calibration_error`` over pairs), ``subgroups``, ``gaps`` and ``prevalence``; with shifted
        answers ``reference``, ``corruptions``, ``mean_drop``, ``shown`` and ``worst`` of the mean AUC, ``sensitivities`` and ``marker`` by
        finding, and over pairs ``harm`` and ``calibration``.
    """
    each = {name: of_finding(answers, test, finding)[:2] for finding, name in enumerate(names)}
    together, cases = pairs(answers, test)
    found: dict[str, Any] = {
        "several": True,
        "clean": clean(answers.clean, test, names) | {"calibration_error": calibration_error(together.clean, cases.labels)},
        "subgroups": subgroups(answers.clean, test),
        "gaps": _present([row for name, (own, of) in each.items() for row in foreign.gaps(own.clean, of, (ABSENT, name))], names, "gap"),
        "prevalence": prevalence(answers.clean, test, names),
    }
    if answers.shifted:
        found |= drops(estimates(answers.clean, test), {key: estimates(p, test) for key, p in answers.shifted.items()})
        found["sensitivities"] = {
            name: told if isinstance(told := foreign.sensitivities(*one, (ABSENT, name))[name], dict) else _of_all(told, names, "drop")
            for name, one in each.items()
        }
        found["harm"] = foreign.harm(together, cases)
        found["calibration"] = foreign.calibration(together, cases)
        found["marker"] = _present([row for name, one in each.items() for row in foreign.marker(*one, (ABSENT, name))], names, "change")
    return found


def clean(p: Floats, test: Labelled, names: Sequence[str]) -> dict[str, Any]:
    """What is scored on images as they are.

    Args:
        p: probabilities ``[n, K]``, or ``[S, n, K]`` of several trainings.

    Returns:
        ``auc``, the findings' mean; ``micro_auc``; and by finding ``per_class_auc``, ``per_class_recall`` and ``per_class_specificity``.
    """
    by_training = p if p.ndim == 3 else p[None]
    found: dict[str, Any] = {measure: interval(one) for measure, one in estimates(p, test).items()}
    found["micro_auc"] = interval(findings.micro(by_training, test))
    for finding, name in enumerate(names):
        own, cases, _ = of_finding(Answers(p, {}), test, finding)
        called = own.clean.argmax(axis=-1)
        found.setdefault("per_class_auc", {})[name] = interval(findings.auc_of(by_training, test, finding))
        for key, label in (("per_class_recall", 1), ("per_class_specificity", 0)):
            found.setdefault(key, {})[name] = share_interval(recall_estimate(called, cases.labels, cases.groups, label))
    return found


def estimates(p: Floats, test: Labelled) -> dict[str, Estimate]:
    """``auc``: the mean over the findings that :func:`enough` patients have and have not; nothing where there is none."""
    kept = enough(test)
    if not kept:
        return {}
    area = findings.macro((p if p.ndim == 3 else p[None])[..., kept], dataclasses.replace(test, findings=test.findings[:, kept]))
    assert area is not None
    return {"auc": area}


def subgroups(p: Floats, test: Labelled) -> dict[str, dict[str, dict[str, Any]]]:
    """The mean AUC within every value of every attribute, over the findings that :func:`enough` patients there have and have not."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for column, value, rows in parts(test):
        part = test.take(rows)
        for area in estimates(p[..., rows, :], part).values():
            found.setdefault(column, {})[value] = {"n": len(rows), "classes": len(enough(part)), "auc": interval(area)}
    return found


def prevalence(p: Floats, test: Labelled, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Each finding where it is rarer or more common than in the test set, as :func:`evaluation.stress.changed_prevalence`."""
    views = {name: of_finding(Answers(p, {}), test, finding) for finding, name in enumerate(names)}
    return {
        name: changed_prevalence(own.clean, cases, (ABSENT, name))[name] if len(cases) else [] for name, (own, cases, _) in views.items()
    }


def answered(rules: Sequence[Rule], model: Answers, test: Labelled, names: Sequence[str], against: Answers | None) -> list[Answered]:
    """Answer every rule: one of a finding on the images of which that is known, one of all over all pairs of an image and a finding."""
    told = []
    for rule in rules:
        if rule.label is None:
            (one, cases), other = pairs(model, test), None if against is None else pairs(against, test)[0]
        else:
            finding = names.index(rule.label)
            one, cases, _ = of_finding(model, test, finding)
            other = None if against is None else of_finding(against, test, finding)[0]
        told += rules_of_classes([rule], one, cases, (ABSENT, rule.label or PRESENT), other, len(rules))
    return told


def _two_classes(marks: NDArray[np.int8], groups: NDArray[Any], attributes: Mapping[str, NDArray[Any]]) -> Labelled:
    return Labelled.of_classes(np.zeros((len(marks), 1, 1, 1), np.uint8), marks.astype(np.int64), groups, 2, attributes)


def _sides(p: Floats) -> Floats:
    """Absent and present; at one half absent is the float below, so that the largest of the two says present there and nowhere else."""
    return np.stack([np.where(p == 0.5, np.nextafter(0.5, 0), 1 - p), p], axis=-1)


def _present(rows: Sequence[dict[str, Any]], names: Sequence[str], change: str) -> list[dict[str, Any]]:
    """The rows of findings, without those of their absence."""
    return _of_all([row for row in rows if row["class"] != ABSENT], names, change)


def _of_all(rows: Sequence[dict[str, Any]], names: Sequence[str], change: str) -> list[dict[str, Any]]:
    """Rows of one finding, their p-values made those of all findings together."""
    return [row | {change: Change(row[change].by, float(np.minimum(1.0, row[change].p * len(names))))} for row in rows]
