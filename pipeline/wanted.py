"""Which images are to be made: findings that are asked for, denied or left open, attributes, and a seed for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import runtime
from pipeline.conditions import Conditions
from pipeline.config import Config
from pipeline.diffusion.conditioning import PRESENT, Condition


@dataclass(frozen=True)
class Wanted:
    """n images to be made, each a function of its row alone.

    Attributes:
        findings: ``int8 [n, K]``: 1 asked for, 0 asked to be absent, -1 left open.
        seeds: one an image.
        negated: findings that guidance leads away from, ``bool [n, K]``; they are asked to be absent too.
        asked: attributes by name, as :class:`pipeline.conditions.Described` has them; what is not there is left open.
    """

    findings: NDArray[np.int8]
    seeds: list[int]
    negated: NDArray[np.bool_]
    asked: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of_classes(cls, labels: NDArray[np.int64], classes: int, seeds: list[int]) -> Wanted:
        """Images of one class each, by its index ``[n]``."""
        findings = (labels[:, None] == np.arange(classes)).astype(np.int8)
        return cls(findings, seeds, np.zeros(findings.shape, bool))

    def __len__(self) -> int:
        return len(self.findings)

    def take(self, rows: slice) -> Wanted:
        """Some of them."""
        asked = {name: column[rows] for name, column in self.asked.items()}
        return Wanted(self.findings[rows], self.seeds[rows], self.negated[rows], asked)

    def away(self, conditions: Conditions) -> Condition | None:
        """What guidance leads each of them away from: the negated findings, and nothing else; None where none is negated."""
        if not self.negated.any():
            return None
        return conditions.condition(np.where(self.negated, PRESENT, -1).astype(np.int8), {})


def wanted(config: Config, conditions: Conditions) -> Wanted:
    """The images that a run makes: ``generate.per_class`` of every class."""
    assert config.generate.per_class is not None
    # Classes take turns, so that any leading part of the set is balanced too.
    labels = np.tile(np.arange(len(conditions.classes)), config.generate.per_class)
    return Wanted.of_classes(labels, len(conditions.classes), seeds_of(config.seed, len(labels)))


def seeds_of(seed: int, count: int) -> list[int]:
    """Seeds of a run's images."""
    return [runtime.derive_seed(seed, "image", number) for number in range(count)]
