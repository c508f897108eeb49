"""What training patients had together: values of attributes, with findings and with each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SETS, CELLS = 4096, 100_000
"""Sets of attributes, and combinations of their values, that are counted at the most: where most are frequent, both double with every
attribute. Six attributes are counted whole with 14 findings, ten to three at a time."""
FINDING_SETS = 1024
"""Sets of findings that are counted at the most where an image does not tell of all, or not enough patients have all of them alike: ten
findings whole, 14 to three at a time, 44 to two."""
Cell = tuple[tuple[int, ...], int, NDArray[np.int64]]


@dataclass(frozen=True)
class Together:
    """What enough training patients had together: findings, 1 or 0 or -1 for any, and a value of each listed attribute, empty for any."""

    findings: tuple[int, ...]
    values: tuple[str, ...]

    def has(self, findings: Sequence[int], values: Sequence[str]) -> bool:
        """Whether that is all that is asked for, where -1 and an empty text ask for nothing."""
        pairs = (*zip(findings, self.findings), *zip(values, self.values))
        return all(asked in (-1, "", there) for asked, there in pairs)

    @classmethod
    def learned(
        cls, findings: NDArray[np.int8], columns: Sequence[NDArray[Any]], patients: NDArray[Any], least: int, *, several: bool
    ) -> tuple[Together, ...]:
        """Values of some of the attributes with all findings, with one that is present, or with any, the most that ``least`` patients had
        together: nothing that is part of another. Of as many attributes at a time as :data:`SETS` and :data:`CELLS` leave room for; of more
        together nothing is known, as of what nobody had.

        Args:
            findings: of images, ``[n, K]``.
            columns: values of each listed attribute, ``[n]``; an empty text is unknown.
            patients: whose each is, ``[n]``.
            least: patients who must have it, at the least: what fewer have would tell who they are.
            several: whether an image can have several findings.
        """
        told = {place: np.where(column != "", _codes(column), -1) for place, column in enumerate(columns)}
        people = _codes(patients)
        levels = list(_levels(findings, several)) if columns else []
        wholes = [_enough(np.where(rows, _codes(has), -1), people, least) for rows, has in levels]
        cells = _as_many(wholes, told, people, least, SETS)
        found: list[Together] = []
        held: set[tuple[tuple[int, ...], tuple[str, ...]]] = set()
        # The largest first: what is held is then part of what was found.
        for chosen, level, first in sorted(cells, key=lambda one: (-len(one[0]), *one[:2])):
            for row in first:
                values = tuple(str(column[row]) if place in chosen else "" for place, column in enumerate(columns))
                one = cls(tuple(levels[level][1][row].tolist()), values)
                if (one.findings, one.values) not in held:
                    found.append(one)
                    held.update(one._parts())
        return tuple(found)

    @classmethod
    def of_some(
        cls, findings: NDArray[np.int8], attributes: int, patients: NDArray[Any], least: int, known: Sequence[Sequence[int]]
    ) -> tuple[Together, ...]:
        """Some of several findings, present or absent, the most that ``least`` patients had together, whatever else they have or nobody
        knows of them: nothing that is part of another, or of what is ``known`` of all findings. As many at a time as
        :data:`FINDING_SETS` leaves room for.

        Args:
            findings, patients, least: as for :meth:`learned`.
            attributes: how many listed attributes there are, of which this says nothing.
            known: findings that enough patients had together, each of all.
        """
        held = np.array(known, np.int8).reshape(-1, findings.shape[1])
        # What an image of a known combination has is part of that: the others alone can show more.
        rest = ~_rows_in(findings, held)
        findings, patients = findings[rest], patients[rest]
        told = {place: column.astype(np.int64) for place, column in enumerate(findings.T)} if len(findings) else {}
        cells = _as_many([np.zeros(len(findings), np.int64)], told, _codes(patients), least, FINDING_SETS)
        found: list[tuple[int, ...]] = []
        for chosen, _, first in sorted(cells, key=lambda one: (-len(one[0]), one[0])):
            new = findings[first][:, chosen]
            new = new[[not (held[:, chosen] == row).all(axis=1).any() for row in new]]
            table = np.full((len(new), findings.shape[1]), -1, np.int8)
            table[:, chosen] = new
            held = np.concatenate([held, table])
            found += map(tuple, table.tolist())
        return tuple(cls(one, ("",) * attributes) for one in found)

    def _parts(self) -> Iterator[tuple[tuple[int, ...], tuple[str, ...]]]:
        """What has been seen with it, as :meth:`learned` looks for it."""
        anything = (-1,) * len(self.findings)
        single = [tuple(1 if place == k else -1 for place in range(len(anything))) for k, one in enumerate(self.findings) if one == 1]
        for values in itertools.product(*({value, ""} for value in self.values)):
            yield from ((has, values) for has in (self.findings, *single, anything))


def _codes(table: NDArray[Any]) -> NDArray[np.int64]:
    """Number of the distinct value, or row, that each entry is, ``[n]``."""
    return np.asarray(np.unique(table, axis=0, return_inverse=True)[1].ravel(), np.int64)


def _rows_in(table: NDArray[np.int8], others: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Whether each row is one of the others, ``[n]``."""
    there = set(map(bytes, others))
    return np.array([bytes(row) in there for row in np.ascontiguousarray(table)], bool)


def _levels(findings: NDArray[np.int8], several: bool) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int8]]]:
    """Rows, and their findings: all of them, each that is present by itself where an image can have several, and any."""
    whole = np.asarray((findings >= 0).all(axis=1), np.bool_)
    yield whole, findings
    for k in range(findings.shape[1] if several else 0):
        yield findings[:, k] == 1, np.where(np.arange(findings.shape[1]) == k, findings, np.int8(-1))
    yield np.ones(len(findings), bool), np.full_like(findings, -1)


def _as_many(
    wholes: Sequence[NDArray[np.int64]], told: Mapping[int, NDArray[np.int64]], people: NDArray[np.int64], least: int, sets: int
) -> list[Cell]:
    """:func:`_counted` with as many attributes at a time as there is room for."""
    cells: list[Cell] = []
    for most in range(1, len(told) + 1):
        further = _counted(wholes, told, people, least, most, sets)
        if further is None or len(further) == len(cells):
            break
        cells = further
    return cells


def _counted(
    wholes: Sequence[NDArray[np.int64]],
    told: Mapping[int, NDArray[np.int64]],
    people: NDArray[np.int64],
    least: int,
    most: int,
    sets: int,
) -> list[Cell] | None:
    """The sets of up to ``most`` attributes that :func:`_frequent` finds at each level, and the first image of each of their cells; None
    where they are more than ``sets``, or their cells more than :data:`CELLS`; single attributes are counted whatever they are."""
    found: list[Cell] = []
    cells = 0
    for level, whole in enumerate(wholes):
        for chosen, grown in _frequent((), whole, told, people, least, most):
            found.append((chosen, level, _first(grown)))
            cells += len(found[-1][-1])
            if most > 1 and (len(found) > sets or cells > CELLS):
                return None
    return found


def _frequent(
    chosen: tuple[int, ...],
    cells: NDArray[np.int64],
    told: Mapping[int, NDArray[np.int64]],
    people: NDArray[np.int64],
    least: int,
    most: int,
) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """Every set of attributes beyond ``chosen`` that ``least`` people have values of together, and the cells that they form, ``[n]``.

    A combination cannot have enough people where a part of it has not (Agrawal and Srikant 1994, Fast algorithms for mining association
    rules): only what has enough with each of two attributes is counted with both.

    Args:
        chosen: attributes of ``cells``.
        cells: number of the cell that each image is in, ``[n]``; -1 for none that enough people have.
        told: of further attributes, by their places: the same with each of them alone, or its value; -1 for unknown.
        people: whose each image is, ``[n]``.
        least: people, at the least.
        most: attributes that are added, at the most.
    """
    pairs = ((place, np.where((cells >= 0) & (other >= 0), cells * (other.max() + 1) + other, -1)) for place, other in told.items())
    grown = {place: more for place, pair in pairs if ((more := _enough(pair, people, least)) >= 0).any()}
    for place, more in grown.items():
        yield (*chosen, place), more
        if most > 1:
            later = {other: grown[other] for other in grown if other > place}
            yield from _frequent((*chosen, place), more, later, people, least, most - 1)


def _enough(cells: NDArray[np.int64], people: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """The cells that ``least`` people have, numbered anew in their order, ``[n]``; -1 for images in no such cell."""
    rows = np.flatnonzero(cells >= 0)
    kept = np.full(len(cells), -1, np.int64)
    if len(rows):
        codes, size = _codes(cells[rows]), people.max() + 1
        many = np.bincount(np.unique(codes * size + people[rows]) // size) >= least
        kept[rows] = np.where(many[codes], codes, -1)
    return kept


def _first(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first image of each cell, in the cells' order."""
    rows = np.flatnonzero(cells >= 0)
    return np.asarray(rows[np.unique(cells[rows], return_index=True)[1]], np.int64)
