"""The report's tables of what was asked for, generated and released: by class or finding, and by what images have together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.release.results import Results, counted, dig, number

COMMONEST = 20
"""Combinations that have a line of their own; the others have one together."""
NONE = "no finding"

Marks = tuple[int, ...]
"""For each finding 1 (asked for), 0 (asked to be absent) or -1 (left open)."""


def balance(results: Results) -> list[tuple[str, ...]]:
    """Each class or finding, and images without any, as (name, real images for training, images asked for, generated, released).

    Real ones are told to the nearest ten: no small group is described.
    """
    counts, names = dig(results.cohort, "counts.train"), _names(results)
    if not isinstance(counts, Mapping) or not names:
        return []
    asked, each = _planned(results), results.config.generate.per_class
    rows: list[tuple[str, ...]] = [
        (name, _rounded(counts.get(name)), *_cells(results, each or _having(asked, place), _having(results.made, place)))
        for place, name in enumerate(names)
    ]
    none = (0,) * len(names)
    if results.config.ingest.multi_label and (results.made.get(none) or asked.get(none)):
        rows.append((NONE, "–", *_cells(results, each or asked.get(none), results.made.get(none))))
    return rows


def combinations(results: Results) -> list[tuple[str, ...]]:
    """What images were asked to have together as (names, images asked for, generated, released), the commonest first; nothing where an
    image has one class. Of ``generate.per_class`` no combination was asked for by itself."""
    names = _names(results)
    if not results.config.ingest.multi_label or not names:
        return []
    asked, made = _planned(results), results.made
    found = sorted({**made, **asked}, key=lambda marks: (-made.get(marks, 0), marks))
    common, others = found[:COMMONEST], found[COMMONEST:]
    lines = [(named(names, marks), [marks]) for marks in common]
    lines += [(counted(len(others), "further combination"), others)] if others else []
    rows: list[tuple[str, ...]] = []
    for name, kinds in lines:
        wanted, generated = (sum(table.get(marks, 0) for marks in kinds) for table in (asked, made))
        rows.append((name, *_cells(results, wanted if asked else None, generated)))
    return rows


def named(names: list[str], marks: Marks) -> str:
    """A combination in words."""
    said = [name for name, mark in zip(names, marks) if mark == 1]
    if -1 not in marks:
        return " + ".join(said) or NONE
    said += [f"no {name}" for name, mark in zip(names, marks) if mark == 0]
    return f"{' + '.join(said)}, all else left open" if said else "all left open"


def explained(results: Results) -> str:
    """Why the numbers of both tables are as they are."""
    generate, several = results.config.generate, results.config.ingest.multi_label
    if results.config.foreign:
        first = "The set was made elsewhere: what was asked of its generator is not known here."
    elif generate.plan:
        first = f"A plan of {counted(len(generate.plan), 'kind')} was asked for."
    elif several:
        first = (
            f"{counted(generate.per_class or 0, 'image')} of each finding and of none were asked for, rare ones first, in the combinations "
            f"that enough training patients had: a common finding has more where it comes with rarer ones."
        )
    else:
        first = f"{counted(generate.per_class or 0, 'image')} of each class were asked for."
    return f"{first} {'All that were generated are released.' if _passed(results) else 'None is released: the images did not pass.'}"


def _names(results: Results) -> list[str]:
    names = results.cohort.get("classes")
    return [] if not isinstance(names, list) or results.config.ingest.unlabelled else [str(name) for name in names]


def _passed(results: Results) -> bool:
    return bool(dig(results.gate, "images.verdict") == "pass")


def _planned(results: Results) -> Counter[Marks]:
    """How many images a plan asks for, by what it says of the findings; of a model with one class an image, all others are absent."""
    absent = -1 if results.config.ingest.multi_label else 0
    found: Counter[Marks] = Counter()
    for one in results.config.generate.plan:
        marks = (1 if name in one.findings else 0 if name in one.without else absent for name in _names(results))
        found[tuple(marks)] += one.count
    return found


def _having(counts: Mapping[Marks, int], place: int) -> int | None:
    return sum(count for marks, count in counts.items() if marks[place] == 1) if counts else None


def _cells(results: Results, asked: int | None, made: int | None) -> tuple[str, str, str]:
    generated = (made or 0) if results.made else None
    return number(asked), number(generated), number(generated if _passed(results) else 0)


def _rounded(count: Any) -> str:
    if not isinstance(count, int):
        return "–"
    return "fewer than 11" if count < 11 else f"about {round(count, -1):,}"
