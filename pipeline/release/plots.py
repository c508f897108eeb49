"""Plots of a report: what the templates draw as SVG, dots with their intervals on one axis."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.release.curve import round_ticks
from pipeline.release.figures import ARMS
from pipeline.release.results import dig, planted
from pipeline.release.words import title

PLOTTED = {arm: ARMS[arm] for arm in ("real+augmentation", "synthetic", "real+synthetic")}
"""Arms that are drawn; the table has all."""
LABEL = 28
"""Letters of common width that have room beside an axis."""


@dataclass(frozen=True)
class Row:
    """One line of a dot-and-whisker plot; ``tone`` is its colour's name, an empty label continues the group above."""

    label: str
    value: float
    low: float
    high: float
    tone: str = "synthetic"

    @property
    def short(self) -> str:
        """The label where it fits beside the axis; otherwise its beginning and its end, since classes of long names often differ there."""
        if _width(self.label) <= LABEL:
            return self.label
        first, last = self.label, self.label
        while _width(first) > LABEL // 2:
            first = first[:-1]
        while _width(last) > LABEL - LABEL // 2 - 1:
            last = last[1:]
        return f"{first.rstrip()}…{last.lstrip()}"


@dataclass(frozen=True)
class Plot:
    """Dots with their intervals on one axis, drawn by the template as SVG.

    Attributes:
        rows: the lines, top to bottom.
        low, high: ends of the axis, in the values' unit.
        ticks: labelled positions.
        reference: where a dashed line stands (chance, no difference), or None.
    """

    rows: tuple[Row, ...]
    low: float
    high: float
    ticks: tuple[float, ...]
    reference: float | None = None

    def x(self, value: float) -> float:
        """Position on the axis, 0..1, clipped to its ends."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def _width(text: str) -> float:
    """In letters of common width."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1.2 if c.isupper() or c in "mw" else 1 for c in text)


def power_plot(power: Any) -> Plot | None:
    """Recall of the planted copies by transformation, on 0..1."""
    rows = {planted(row): row.get("recall") for row in power or [] if isinstance(row, Mapping)}
    return whiskers(rows, axis=(0.0, 1.0))


def change_plot(utility: Any) -> Plot | None:
    """What the arms changed of the AUC on real test images, in differences to the control: over all classes first, then by class."""
    groups: dict[str, dict[str, Any]] = {"all classes": {}}
    for arm, facts in (dig(utility, "differences") or {}).items():
        if arm not in PLOTTED:
            continue
        groups["all classes"][arm] = dig(facts, "auc")
        for name, measure in (dig(facts, "per_class") or {}).items():
            groups.setdefault(str(name), {})[arm] = dig(measure, "auc")
    rows: list[Row] = []
    for name, group in groups.items():
        measured = [_row("", measure, arm) for arm, measure in group.items()]
        drawn = [row for row in measured if row is not None]
        rows += [replace(row, label=name if index == 0 else "") for index, row in enumerate(drawn)]
    return _plot(rows, reference=0.0) if rows else None


def legend(utility: Any) -> list[tuple[str, str]]:
    """The colour's name and the arm's, of those that :func:`change_plot` draws."""
    return [(_tone(arm), name) for arm, name in PLOTTED.items() if arm in (dig(utility, "differences") or {})]


def label_plot(label_fidelity: Any, *, reference: float | None) -> Plot | None:
    """Share of the synthetic images of each class that are named right, and of the real test images below it."""
    pairs = [
        row
        for name, measure in (dig(label_fidelity, "per_class") or {}).items()
        for row in (_row(str(name), measure), _row("", (dig(label_fidelity, "real") or {}).get(name), "real"))
        if row is not None and isinstance(dig(measure, "value"), float | int)
    ]
    return _plot(pairs, reference=reference) if pairs else None


def subgroup_plot(subgroups: Any) -> Plot | None:
    """AUC within every subgroup, such as each site."""
    groups = {column: values for column, values in (subgroups or {}).items() if isinstance(values, Mapping)}
    return whiskers({f"{title(column)} {value}": dig(facts, "auc") for column, values in groups.items() for value, facts in values.items()})


def whiskers(named: Any, *, axis: tuple[float, float] | None = None) -> Plot | None:
    """A plot of named measures; None where nothing can be drawn."""
    found = [_row(title(str(name)), measure) for name, measure in (named or {}).items()]
    rows = [row for row in found if row is not None]
    return _plot(rows, reference=None, axis=axis) if rows else None


def _row(label: str, measure: Any, tone: str = "synthetic") -> Row | None:
    if not isinstance(value := dig(measure, "value"), float | int):
        return None
    low, high = (bound if isinstance(bound := dig(measure, end), float | int) else value for end in ("low", "high"))
    return Row(label, float(value), float(low), float(high), _tone(tone))


def _tone(name: str) -> str:
    """An arm's name as a part of a class of the style sheet."""
    return re.sub(r"[^a-z]", "", name)


def _plot(rows: Sequence[Row], reference: float | None, axis: tuple[float, float] | None = None) -> Plot:
    """Choose the axis: as given, or round ends around all rows and the reference, with about five ticks."""
    ends = [reference] if reference is not None else []
    ticks = round_ticks(*(axis or (min([row.low for row in rows] + ends), max([row.high for row in rows] + ends))))
    return Plot(tuple(rows), ticks[0], ticks[-1], ticks, reference)
