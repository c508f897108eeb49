"""The kinds of synthetic cases that a stress test asks for, and their images as judges see them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from pipeline.errors import InputError
from pipeline.ingest.standardize import Target, standardize
from pipeline.models.cases import Cases

SIDE = 64
"""Of the images that the judges look at, in pixels."""


@dataclass(frozen=True)
class Kind:
    """Synthetic cases of one kind.

    Attributes:
        name: such as ``as given`` or ``counterfactuals``.
        labels: index of each one's class among the model's, ``[n]``.
        small: as the judges see them, ``uint8 [n, 1, SIDE, SIDE]``.
        own: those with these numbers, in that order, at their own size.
        fit: which may be asked, beside what the judges say: all, or those that kept what they had to keep, ``[n]``.
        facts: what else there is to say of them.
    """

    name: str
    labels: NDArray[np.int64]
    small: NDArray[np.uint8]
    own: Callable[[NDArray[np.int64]], Iterable[NDArray[Any]]]
    fit: NDArray[np.bool_]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def resized(cases: Cases, test: Labelled, side: int, channels: int) -> NDArray[np.uint8]:
    """The real cases, ``uint8 [n, channels, side, side]``, in their order. Raises InputError where others are there than before."""
    pixels = [case.image for case in sized(cases, side, channels).read()]
    if len(pixels) != len(test):
        raise InputError("--data changed while it was read: leave the folder alone, and give the same command again")
    return np.stack(pixels)


def as_judges_see(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Square images ``[n, C, H, W]`` as ``uint8 [n, 1, SIDE, SIDE]``."""
    small = [standardize(image.astype(np.float32), 0.0, 255.0, Target(SIDE, 1))[0] for image in images]
    return np.stack(small) if small else np.zeros((0, 1, SIDE, SIDE), np.uint8)


def sized(cases: Cases, side: int, channels: int) -> Cases:
    """The same cases as squares of this side."""
    return dataclasses.replace(cases, settings=dataclasses.replace(cases.settings, target=Target(side, channels)))


def of_arrays(name: str, images: NDArray[np.uint8], labels: NDArray[np.int64], fit: NDArray[np.bool_] | None = None, **facts: Any) -> Kind:
    """Cases that are in memory."""
    every = np.ones(len(images), bool) if fit is None else fit
    return Kind(name, labels, as_judges_see(images), functools.partial(_rows, images), every, facts)


def _rows(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    return (images[row] for row in rows)
