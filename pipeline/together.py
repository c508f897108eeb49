"""What training patients had together: values of attributes, with findings and with each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        together: nothing that is part of another.

        Args:
            findings: of images, ``[n, K]``.
            columns: values of each listed attribute, ``[n]``; an empty text is unknown.
            patients: whose each is, ``[n]``.
            least: patients who must have it, at the least: what fewer have would tell who they are.
            several: whether an image can have several findings.
        """
        found: list[Together] = []
        held: set[tuple[tuple[int, ...], tuple[str, ...]]] = set()
        people = _codes(patients)
        levels = [(rows, has[rows], _codes(has[rows])) for rows, has in _levels(findings, several)] if columns else []
        told = [_codes(column) for column in columns]
        for size in range(len(columns), 0, -1):
            for chosen in itertools.combinations(range(len(columns)), size):
                known = np.all([columns[place] != "" for place in chosen], axis=0)
                for rows, has, cell in levels:
                    some = known[rows]
                    keys = np.stack([cell, *(told[place][rows] for place in chosen), people[rows]])[:, some]
                    for first in _common(keys, least):
                        row = np.flatnonzero(rows)[some][first]
                        values = tuple(str(column[row]) if place in chosen else "" for place, column in enumerate(columns))
                        one = cls(tuple(has[some][first].tolist()), values)
                        if (one.findings, one.values) not in held:
                            found.append(one)
                            held.update(one._parts())
        return tuple(found)

    def _parts(self) -> Iterator[tuple[tuple[int, ...], tuple[str, ...]]]:
        """What has been seen with it, as :meth:`learned` looks for it."""
        anything = (-1,) * len(self.findings)
        single = [tuple(1 if place == k else -1 for place in range(len(anything))) for k, one in enumerate(self.findings) if one == 1]
        for values in itertools.product(*({value, ""} for value in self.values)):
            yield from ((has, values) for has in (self.findings, *single, anything))


def _codes(table: NDArray[Any]) -> NDArray[np.int64]:
    """Number of the distinct value, or row, that each entry is, ``[n]``."""
    return np.asarray(np.unique(table, axis=0, return_inverse=True)[1].ravel(), np.int64)


def _levels(findings: NDArray[np.int8], several: bool) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int8]]]:
    """Rows, and their findings: all of them, each that is present by itself where an image can have several, and any."""
    whole = np.asarray((findings >= 0).all(axis=1), np.bool_)
    yield whole, findings
    for k in range(findings.shape[1] if several else 0):
        yield findings[:, k] == 1, np.where(np.arange(findings.shape[1]) == k, findings, np.int8(-1))
    yield np.ones(len(findings), bool), np.full_like(findings, -1)


def _common(keys: NDArray[np.int64], least: int) -> list[int]:
    """Of cells that ``least`` people have, the first column each: ``keys`` are those of the cells, the people last, ``[k, n]``."""
    if not keys.shape[1]:
        return []
    sizes = keys.max(axis=1) + 1
    cells = _codes(np.ravel_multi_index(tuple(keys[:-1]), tuple(sizes[:-1])))
    pairs = np.unique(cells * sizes[-1] + keys[-1]) // sizes[-1]
    first = np.unique(cells, return_index=True)[1]
    return [int(first[cell]) for cell in np.flatnonzero(np.bincount(pairs) >= least)]
