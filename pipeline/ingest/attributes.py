"""Attributes of a label table that a model may be told of: numbers, and texts out of a closed list, so that nothing else comes in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.clinical_text import LISTED, closed, coverage, vocabulary
from pipeline.errors import InputError
from pipeline.ingest import patients
from pipeline.ingest.table import Table, folded

if TYPE_CHECKING:
    from pipeline.config.ingest import AttributeKind

LITTLE = 0.5
"""Share of the reports' words that are read, below which a person is told."""
Value = str | float | None
"""A text or a number; an empty text or None where it is unknown."""


def stated(found: Table, kinds: Mapping[str, AttributeKind], report: str | None) -> tuple[list[dict[str, Value]], list[str]]:
    """The attributes of every row, with its text in closed vocabulary, and how many values are none.

    Raises:
        InputError: the table lacks a column.
    """
    told, notes = _listed(found, {name: kind for name, kind in kinds.items() if kind != ()})
    if report is not None:
        if folded(report) not in found.columns:
            raise InputError(f"{found.name} has no column {report!r}, which ingest.report names: add it, or leave it out there")
        reports = found.values(folded(report))
        words = frozenset(LISTED)
        if "patient_id" in found.columns:
            words = frozenset(vocabulary(reports, [patients.canonical(one) for one in found.values("patient_id")]))
        else:
            notes += [
                f"{found.name} has no column patient_id, so that nobody can count whose reports have a word: they are read in the closed "
                f"list of clinical terms alone"
            ]
        for row, text in zip(told, reports):
            row["text"] = closed(text, words)
        if (share := coverage(reports, words)) < LITTLE:
            notes.append(
                f"{found.name}: {share:.0%} of the words of its reports are in the clinical vocabulary, which lists English terms and adds "
                f"what many patients' reports have in small letters: the model reads nothing else of them"
            )
        empty = sum(not row["text"] for row in told)
        notes += [f"{found.name}: {empty} reports hold no word of the clinical vocabulary, and say nothing"] if empty else []
    return told, notes


def _listed(found: Table, kinds: Mapping[str, AttributeKind]) -> tuple[list[dict[str, Value]], list[str]]:
    if missing := [name for name in kinds if folded(name) not in found.columns]:
        raise InputError(f"{found.name} has no column {missing[0]!r}, which ingest.attributes names: add it, or leave it out there")
    told: list[dict[str, Value]] = [{} for _ in found.rows]
    notes = []
    for name, kind in kinds.items():
        odd = 0
        for row, text in zip(told, found.values(folded(name))):
            row[name] = value = _value(text, kind)
            odd += bool(text) and value in (None, "")
        notes += [f"{found.name}: {odd} values of its column {name!r} are not as ingest.attributes says, and are unknown"] if odd else []
    return told, notes


def unknown(kinds: Mapping[str, AttributeKind]) -> dict[str, Value]:
    """What is said of an image that the table does not know."""
    return {name: None if kind == "number" else "" for name, kind in kinds.items()}


def merged(one: Mapping[str, Value], other: Mapping[str, Value]) -> dict[str, Value]:
    """Two rows of one image: what one says counts where the other says nothing, and nothing where they differ."""
    return {name: _agreed(value, other[name]) for name, value in one.items()}


def _agreed(one: Value, other: Value) -> Value:
    if one == other or other in (None, ""):
        return one
    if one in (None, ""):
        return other
    return "" if isinstance(one, str) else None


def _value(text: str, kind: AttributeKind) -> Value:
    if kind != "number":
        return next((value for value in kind if folded(value) == folded(text)), "")
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
