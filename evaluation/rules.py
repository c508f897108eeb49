"""Acceptance rules: a sentence such as ``sensitivity(effusion) >= 0.85 at blur 2``, answered yes, no, or not enough data.

``MEASURE[(CLASS)] >= NUMBER [at SHIFT SEVERITY] [in COLUMN=VALUE]``, or ``<=``. A measure with ``_drop`` is what the shift takes from it,
one with ``_gain`` what the model has beyond the one that it is compared with, both paired by patient.

*Yes* is said where the whole 95 % interval meets the bound. That all rules are met is then as safe as each alone (an intersection-union
test, Berger 1982). *No* is said where the whole interval misses it, at a confidence that holds for all rules together (Bonferroni).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.comparisons import difference
from evaluation.data import Labelled
from evaluation.foreign import Answer, Answers, Condition
from evaluation.intervals import Interval, interval, share_interval
from evaluation.metrics import (
    Estimate,
    Floats,
    auc_estimate,
    balanced_accuracy_estimate,
    brier_estimate,
    macro_auc_estimate,
    recall_estimate,
    share_estimate,
)
from evaluation.shifts import SEVERITIES, SHIFTS
from evaluation.utility import LEAST_PATIENTS

OF_CLASS = ("sensitivity", "specificity", "auc")
OF_ALL = ("auc", "accuracy", "balanced_accuracy", "brier")
SHARES = ("sensitivity", "specificity", "accuracy")
LISTED = 8
"""Values of a column that are offered for one that no case has."""
NEAREST = 2
"""Names that are offered for one that does not exist."""
FORM = "write MEASURE(CLASS) >= NUMBER at SHIFT SEVERITY in COLUMN=VALUE, such as sensitivity(effusion) >= 0.85 at blur 2"
# Wider than what is taken, so that what is wrong can be named.
_RULE = re.compile(
    r"(?P<measure>\w+?)(?P<paired>_drop|_gain)?\s*(?:\(\s*(?P<label>.+?)\s*\))?\s*(?P<sign>[<>=≤≥]+)\s*(?P<value>\S+)"
    r"(?:\s+at\s+(?P<shift>[\w-]+)(?:\s+(?P<severity>(?!in\b)\S+))?)?(?:\s+in\s+(?P<column>\w+)\s*=\s*(?P<part>(?:(?!\sat\s).)+))?"
)


class RuleError(ValueError):
    """A rule that cannot be read, or asks for what there is not; one line."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        text: as it was written.
        measure: one of :data:`OF_CLASS` with a ``label``, or of :data:`OF_ALL` without.
        paired: ``drop``, ``gain`` or empty.
        label: a class, or None.
        least: whether ``value`` is the least that the measure may be; otherwise the most.
        condition: a shift and its severity; None for the images as they are.
        part: a column and its value that the cases are of; None for all.
    """

    text: str
    measure: str
    paired: str
    label: str | None
    least: bool
    value: float
    condition: Condition | None
    part: tuple[str, str] | None


@dataclass(frozen=True)
class Answered:
    """A rule's answer: what was measured, with its 95 % interval, and a sentence that says why."""

    rule: str
    answer: Answer
    measured: Interval
    why: str


def parsed(text: str, names: Sequence[str], shifts: Sequence[str], *, against: bool, columns: Sequence[str] = ()) -> Rule:
    """Read a rule.

    Args:
        names: of the classes; empty where they are not known yet, and any is taken.
        shifts: that a rule can be about.
        against: whether there is a second model.
        columns: by which cases are parted; empty where they are not known, and any is taken.

    Raises:
        RuleError: what is wrong with it, and how to mend it.
    """
    found = _RULE.fullmatch(" ".join(text.split()))
    if found is None:
        raise RuleError(f"rule {text!r} cannot be read: {FORM}")
    measure, paired, label = found["measure"], (found["paired"] or "").lstrip("_"), found["label"]
    allowed = OF_ALL if label is None else OF_CLASS
    if measure not in allowed:
        kind = "of all classes" if label is None else "of one class"
        mend = f"write {measure}(CLASS), or use {', '.join(allowed)}" if label is None and measure in OF_CLASS else _meant(measure, allowed)
        raise RuleError(f"rule {text!r}: {measure} is no measure {kind}: {mend}")
    if label is not None and names and label not in names:
        raise RuleError(f"rule {text!r}: no class {label}: {_meant(label, names)}")
    value = _value(text, found["sign"], found["value"], paired)
    condition = _condition(text, found["shift"], found["severity"], shifts)
    if condition is None and paired == "drop":
        raise RuleError(f"rule {text!r}: a drop needs a shift: end it with at SHIFT SEVERITY")
    if paired == "gain" and not against:
        raise RuleError(f"rule {text!r}: a gain needs a second model: give --against")
    if found["column"] and columns and found["column"] not in columns:
        raise RuleError(f"rule {text!r}: cases are not parted by {found['column']}: {_meant(found['column'], columns)}")
    part = (found["column"], found["part"]) if found["column"] else None
    return Rule(" ".join(text.split()), measure, paired, label, found["sign"] == ">=", value, condition, part)


def _value(text: str, sign: str, value: str, paired: str) -> float:
    """The bound. Raises RuleError for one that no measure of this kind can have."""
    if sign not in (">=", "<="):
        raise RuleError(f"rule {text!r}: {sign} compares nothing here: write >= or <=")
    low = -1 if paired else 0
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", value) is None:
        raise RuleError(f"rule {text!r}: {value} is no number: write one from {low} to 1 with a point, such as 0.85")
    if not low <= float(value) <= 1:
        raise RuleError(f"rule {text!r}: {value} is out of reach: write a share from {low} to 1, such as 0.85")
    if float(value) in (low, 1):
        raise RuleError(f"rule {text!r}: no data can tell {sign} {value}, at the end of the scale: write a share between {low} and 1")
    return float(value)


def _condition(text: str, shift: str | None, severity: str | None, shifts: Sequence[str]) -> Condition | None:
    """The shift and its severity. Raises RuleError where they are not tried."""
    if shift is None:
        return None
    if shift not in shifts:
        if shift in SHIFTS:
            raise RuleError(f"rule {text!r}: {shift} does not fit these images: use {', '.join(shifts)}")
        raise RuleError(f"rule {text!r}: {shift} is no shift: {_meant(shift, shifts)}")
    if severity is None or severity not in map(str, SEVERITIES):
        raise RuleError(f"rule {text!r}: severities are 1 to 5: write at {shift} 3")
    return shift, int(severity)


def _meant(word: str, known: Sequence[str]) -> str:
    """The names that are like a word, as a question, or where none is, all of them."""
    plain = {name.casefold(): name for name in known}
    inside = [name for name in known if word.casefold() in name.casefold().split("_")]
    close = list(dict.fromkeys([*inside, *(plain[one] for one in difflib.get_close_matches(word.casefold(), plain, NEAREST))]))[:NEAREST]
    return f"did you mean {' or '.join(close)}?" if close else f"use {', '.join(known)}"


def answered(
    rules: Sequence[Rule], model: Answers, test: Labelled, names: Sequence[str], against: Answers | None = None, count: int | None = None
) -> list[Answered]:
    """Answer every rule on the test cases; ``count`` is how many are read together, where these are not all."""
    return [_answered(rule, model, test, tuple(names), against, count or len(rules)) for rule in rules]


def unanswered(rules: Sequence[Rule], answer: Answer, why: str) -> list[Answered]:
    """All rules with one answer, for a model whose shifted images were not asked."""
    return [Answered(rule.text, answer, Interval(math.nan, math.nan, math.nan, 0), why) for rule in rules]


def _answered(rule: Rule, model: Answers, test: Labelled, names: tuple[str, ...], against: Answers | None, count: int) -> Answered:
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    rows = np.arange(len(test))
    if rule.part is not None:
        column, value = rule.part
        if column not in test.attributes:
            return Answered(rule.text, "not enough data", nothing, f"the cases have no {column}: give it in the label table")
        of = np.asarray(test.attributes[column], str)
        rows = np.flatnonzero(of == value)
        if not len(rows):
            return Answered(rule.text, "not enough data", nothing, f"no case has {column}={value}: {_values(column, of)}")
    k = names.index(rule.label) if rule.label is not None else None
    short = _too_few(rule, test, rows, k)
    if short is not None:
        return Answered(rule.text, "not enough data", nothing, short)
    cases = test.take(rows)
    one = _estimate(rule.measure, model.at(rule.condition)[rows], cases, k)
    measured, strict = _intervals(rule, one, model, cases, rows, k, against, count)
    sign = 1 if rule.least else -1
    met, missed = (sign * (bound - rule.value) for bound in _ends(rule, measured, strict))
    told = f"{measured.value:z.3f} ({measured.low:z.3f} to {measured.high:z.3f}), n = {measured.n}"
    bound = f"{'at least' if rule.least else 'at most'} {rule.value:g}"
    if met >= 0:
        return Answered(rule.text, "yes", measured, f"{told}: the whole interval is {bound}")
    if missed < 0:
        return Answered(rule.text, "no", measured, f"{told}: the whole interval misses {bound}")
    return Answered(
        rule.text, "not enough data", measured, f"{told}: the interval holds both sides of {rule.value:g}{_more(rule, measured)}"
    )


def _values(column: str, of: NDArray[np.str_]) -> str:
    """What the cases have in a column, in words."""
    known = [value for value in np.unique(of).tolist() if value][:LISTED]
    return f"write {column}={f' or {column}='.join(known)}" if known else f"give {column} in the label table"


def _ends(rule: Rule, measured: Interval, strict: Interval) -> tuple[float, float]:
    """The bound that must meet the rule's value for a yes, and the one that must miss it for a no; NaN meets and misses nothing."""
    ends = (measured.low, strict.high) if rule.least else (measured.high, strict.low)
    worst = -math.inf if rule.least else math.inf
    return (ends[0] if math.isfinite(ends[0]) else worst, ends[1] if math.isfinite(ends[1]) else -worst)


def _intervals(
    rule: Rule, one: Estimate, model: Answers, cases: Labelled, rows: Any, k: int | None, against: Answers | None, count: int
) -> tuple[Interval, Interval]:
    """The 95 % interval, and the one that holds for all rules together."""
    strict = 1 - 0.05 / max(count, 1)
    if rule.paired:
        assert rule.paired == "drop" or against is not None
        p = model.clean if rule.paired == "drop" else against.at(rule.condition)  # type: ignore[union-attr]
        other = _estimate(rule.measure, p[rows], cases, k)
        first, second = (other, one) if rule.paired == "drop" else (one, other)
        return difference(first, second), difference(first, second, strict)
    of: Callable[..., Interval] = share_interval if rule.measure in SHARES else interval
    return of(one), of(one, strict)


def _estimate(measure: str, p: Floats, cases: Labelled, k: int | None) -> Estimate:
    labels, groups, predicted = cases.labels, cases.groups, p.argmax(axis=1)
    if measure == "sensitivity":
        assert k is not None
        return recall_estimate(predicted, labels, groups, k)
    if measure == "specificity":
        return share_estimate(predicted[labels != k] != k, groups[labels != k])
    if measure == "auc":
        return macro_auc_estimate(p, labels, groups) if k is None else auc_estimate(p[:, k], labels == k, groups)
    if measure == "accuracy":
        return share_estimate(predicted == labels, groups)
    if measure == "balanced_accuracy":
        return balanced_accuracy_estimate(predicted, labels, groups, cases.classes)
    return brier_estimate(p, labels, groups)


def _too_few(rule: Rule, test: Labelled, rows: Any, k: int | None) -> str | None:
    """Why a measure has too few patients, or None."""
    labels, groups = test.labels[rows], test.groups[rows]
    sides = {"cases": np.ones(len(rows), bool)}
    if k is not None:
        sides = {f"with {rule.label}": labels == k, f"without {rule.label}": labels != k}
        sides = {
            name: rows_of
            for name, rows_of in sides.items()
            if not (name.startswith("without") and rule.measure == "sensitivity")
            and not (name.startswith("with ") and rule.measure == "specificity")
        }
    for name, of in sides.items():
        patients = len(np.unique(groups[of]))
        if patients < LEAST_PATIENTS:
            return f"{patients} patients {name}: at least {LEAST_PATIENTS} are needed"
    return None


def _more(rule: Rule, measured: Interval) -> str:
    """How many times as many cases would decide, if the value stayed; nothing where that is no help."""
    apart = measured.value - rule.value if rule.least else rule.value - measured.value
    reach = (measured.value - measured.low) if (apart > 0) == rule.least else (measured.high - measured.value)
    if not math.isfinite(reach) or abs(apart) < 1e-6 or (times := math.ceil((reach / apart) ** 2)) > 100:
        return ""
    return f"; about {max(times, 2)} times as many patients would decide it, if the value stays"
