"""A cohort as every judge and every attack takes it: images with their findings, what belongs together, and what else is known."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


@dataclass(frozen=True)
class Labelled:
    """Images with what is known of them; images, rows of findings, groups and attributes are in one order.

    Attributes:
        images: ``[n, C, H, W]``, or volumes ``[n, C, D, H, W]``: uint8 0..255, uint16 0..65535 or float32 −1..1, from black to white.
        findings: ``int8 [n, K]``: 1 present, 0 absent, −1 unknown.
        groups: what must stay together, such as the patient, ``[n]`` of any sortable type.
        attributes: further columns by name, such as site, sex or age band, each ``[n]``.
        asked: what a generator can be asked for beside findings, by name: numbers ``[n]``, NaN for unknown, or texts, "" for unknown.

    Raises:
        ValueError: shapes that do not match, another dtype, or findings other than 1, 0 and −1.
    """

    images: NDArray[Any]
    findings: NDArray[np.int8]
    groups: NDArray[Any]
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    asked: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = (self.findings, self.groups, *self.attributes.values(), *self.asked.values())
        if self.images.ndim not in (4, 5) or self.findings.ndim != 2 or any(len(column) != len(self.images) for column in columns):
            raise ValueError(f"images {self.images.shape}, findings {self.findings.shape} and groups {self.groups.shape} do not match")
        if self.images.dtype not in DTYPES:
            raise ValueError(f"images must be uint8, uint16 or float32, not {self.images.dtype}")
        if self.findings.dtype != np.int8 or not np.isin(self.findings, (-1, 0, 1)).all():
            raise ValueError("findings must be int8 of 1 (present), 0 (absent) and -1 (unknown)")

    @classmethod
    def of_classes(
        cls,
        images: NDArray[Any],
        labels: NDArray[np.int64],
        groups: NDArray[Any],
        classes: int,
        attributes: Mapping[str, NDArray[Any]] | None = None,
    ) -> Labelled:
        """Images of one class each, given by its index in ``0..classes - 1``. Raises ValueError for an index beyond them."""
        labels = np.asarray(labels)
        if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(f"labels must lie in 0..{classes - 1}, not {labels.min()}..{labels.max()}")
        return cls(images, (labels[:, None] == np.arange(classes)).astype(np.int8), groups, attributes or {})

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> int:
        """Number of findings K."""
        return int(self.findings.shape[1])

    @functools.cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every image, ``int64 [n]``. Raises ValueError where an image has several findings, none, or an unknown one."""
        if not ((self.findings == 1).sum(axis=1) == 1).all() or (self.findings == -1).any():
            raise ValueError("some images have several findings, none, or an unknown one: one class an image is needed here")
        return np.asarray(self.findings.argmax(axis=1), np.int64)

    @functools.cached_property
    def unit(self) -> NDArray[np.float32]:
        """The images as every network takes them: float32 −1..1, in the shape of ``images``."""
        return to_unit(self.images)

    def take(self, index: Any) -> Labelled:
        """The rows that an integer index, a slice or a boolean mask selects, in its order."""
        columns = [{name: column[index] for name, column in known.items()} for known in (self.attributes, self.asked)]
        return Labelled(self.images[index], self.findings[index], self.groups[index], *columns)

    def halves(self, seed: int) -> tuple[Labelled, Labelled]:
        """Two halves that share no group, the same for the same seed: of ``val``, *learn* (for encoders) and *choose* (for plateaus).

        Every finding is spread over both as evenly as whole groups allow.
        """
        side = halve(self.groups, np.random.default_rng(seed), rarest(self.findings == 1))
        return self.take(side == 0), self.take(side == 1)


def rarest(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of the findings that each image has, the one that fewest images have, ``int64 [n]``; K where it has none. Of one class, the class.

    Args:
        present: ``bool [n, K]``.
    """
    rarity = np.where(present, present.sum(axis=0), len(present) + 1)
    return np.asarray(np.where(present.any(axis=1), rarity.argmin(axis=1), present.shape[1]), np.int64)


def halve(groups: NDArray[Any], rng: np.random.Generator, kinds: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """0 or 1 for every row, whole groups at random, so that the halves' row counts differ by less than the largest group.

    With ``kinds``, an integer from 0 for every row, it is the counts of each group's rarest kind that are kept even, the rarest first.
    """
    _, member, size = np.unique(groups, return_inverse=True, return_counts=True)
    member = member.reshape(-1)
    kinds = np.zeros(len(member), dtype=np.int64) if kinds is None else kinds
    frequency = np.bincount(kinds, minlength=1)
    table = np.zeros((len(size), len(frequency)), dtype=np.int64)
    np.add.at(table, (member, kinds), 1)
    rarest = np.where(table > 0, frequency, len(member) + 1).argmin(axis=1)
    half, rows = np.empty(len(size), dtype=np.int64), np.zeros((2, len(frequency)), dtype=np.int64)
    order = rng.permutation(len(size))
    for group in order[np.argsort(frequency[rarest[order]], kind="stable")]:
        kind = rarest[group]
        lead, whole = rows[0, kind] - rows[1, kind], rows[0].sum() - rows[1].sum()
        half[group] = int(lead > 0 or (lead == 0 and whole > 0))
        rows[half[group]] += table[group]
    return half[member]


def to_unit(images: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 0..255 or uint16 0..65535 to float32 −1..1, the range in which every network works; float32 as it is."""
    if images.dtype == np.float32:
        return images
    half = np.float32(127.5 if images.dtype == np.uint8 else 32767.5)
    return images.astype(np.float32) / half - np.float32(1)
