"""What images are generated for: the condition c of D(x, sigma, c), from the labels of a cohort to the network's embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """The condition of n images. Training, samplers, guidance and attacks take rows of it, or the null condition, and look no further.

    Attributes:
        classes: class index of each image, ``int64 [n]``; ``count`` is the learned null class.
        count: number of classes.
    """

    classes: Tensor
    count: int

    @classmethod
    def of_classes(cls, classes: Tensor | NDArray[np.int64], count: int, device: str = "cpu") -> Condition:
        """The condition of images of one class each."""
        return cls(torch.as_tensor(classes, dtype=torch.int64).to(device), count)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def strata(self) -> Tensor:
        """What class-balanced sampling evens out, ``int64 [n]``."""
        return self.classes

    def null(self) -> Condition:
        """As many times nothing asked for: what classifier-free guidance calls the unconditional model."""
        return self.only(self.count)

    def only(self, index: int) -> Condition:
        """As many times the class ``index``."""
        return self._each(lambda values: torch.full_like(values, index))

    def take(self, index: Tensor | slice) -> Condition:
        """The rows that an index, a mask or a slice selects."""
        return self._each(lambda values: values[index])

    def joined(self, other: Condition) -> Condition:
        """These rows, and those of the other after them."""
        return Condition(torch.cat([self.classes, other.classes]), self.count)

    def chunk(self, parts: int) -> list[Condition]:
        """Its rows in ``parts`` parts, as :func:`torch.chunk` cuts them."""
        return [Condition(part, self.count) for part in self.classes.chunk(parts)]

    def dropped(self, probability: float, generator: torch.Generator) -> Condition:
        """Each row replaced by the null condition with a probability of its own (Ho & Salimans 2022, arXiv:2207.12598, algorithm 1)."""
        drop = torch.rand(len(self), generator=generator, device=self.classes.device) < probability
        return self._each(lambda values: torch.where(drop, self.count, values))

    def to(self, device: str) -> Condition:
        """On another device; a copy to a GPU from pinned memory is waited for by nothing."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def pinned(self) -> Condition:
        """In memory from which a GPU reads without a copy."""
        return self._each(lambda values: values.pin_memory())

    def clone(self) -> Condition:
        """In memory of its own."""
        return self._each(lambda values: values.clone())

    def copy_(self, other: Condition) -> None:
        """Overwrite these rows in place, as a captured CUDA graph needs."""
        self.classes.copy_(other.classes)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(change(self.classes), self.count)
