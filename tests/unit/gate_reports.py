"""Made-up audits for the tests of the gate: an honest one with power, and how it is judged."""

from __future__ import annotations

import copy
from typing import Any

from privacy import gate, limits
from privacy.judgements import DRAWN

Report = dict[str, Any]


def interval(value: float, low: float | None, high: float | None, n: int = 1000) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def row(kind: str, found: int, planted: int = 100, strength: float | None = None) -> dict[str, Any]:
    return {"kind": kind, "strength": strength, "planted": planted, "found": found}


def honest() -> Report:
    """An audit that passes, as :func:`privacy.audit.summarise` makes it."""
    return {
        "unit": "patient",
        "drawn": DRAWN[0],
        "pixels": 32,
        "n": {"train": 1300, "audit": 1300, "synthetic": 1500, "holdout_units": 600},
        "copies": {
            **{"flagged": 0, "undecided": 0, "twins": 0},
            **{"leading_run": 1, "run_p": 0.5, "repeats": 0, "explained": 0, "constants": 0},
        },
        "power": [*(row(kind, 99) for kind in limits.required_kinds(32)), row("jpeg_15", 3), row("regenerated", 40, strength=0.25)],
        "membership": {"auc": interval(0.52, 0.50, 0.54)},
        "split_bias": interval(0.5, 0.47, 0.53),
    }


def shadows() -> dict[str, Any]:
    """Attacks that find nothing, with enough behind them to say so."""
    found = {"auc": interval(0.51, 0.49, 0.53), "tpr_at_1pct_fpr": interval(0.011, 0.005, 0.02)}
    sides = {subject: copy.deepcopy(found) for subject in ("images", "weights")}
    return {"trainings": 15, "members": 1300, "non_members": 1300, **sides}


def foreign(report: Report, drawn: str) -> Report:
    """The same of a set that came without its weights."""
    return {key: value for key, value in copy.deepcopy(report).items() if key != "membership"} | {"drawn": drawn}


def changed(report: Report, change: dict[str, dict[str, Any]]) -> Report:
    """A copy with other values in some of its sections."""
    report = copy.deepcopy(report)
    for section, values in change.items():
        report[section].update(values)
    return report


def decide(report: Report, max_copy_rate: float | None = None, attempt: int = 1, earlier: float | None = None) -> dict[str, Any]:
    return gate.decide(gate.checks(report, max_copy_rate, attempt=attempt, earlier_recall=earlier), attempt=attempt)


def find(report: Report, name: str, subject: str = "images", **given: Any) -> dict[str, Any]:
    return next(check for check in gate.checks(report, **given) if (check["name"], check["subject"]) == (name, subject))
