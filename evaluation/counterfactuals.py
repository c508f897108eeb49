"""Whether a counterfactual changed what should change, and nothing else: its finding by judges, its patient among many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import Floats

Try = TypeVar("Try")
GALLERY = 200
"""Patients among whom one's own must come first, at the least, for it to mean that the patient stayed the same."""


def least_change(
    tries: Sequence[Try],
    make: Callable[[NDArray[np.int64], Try], NDArray[np.uint8]],
    shows: Callable[[NDArray[np.int64], NDArray[np.uint8]], NDArray[np.bool_]],
    count: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Every image by the first try at which it shows what it should; what shows it is not tried again.

    Args:
        tries: from the least change on.
        make: the images of these rows by a try, ``uint8 [rows, C, H, W]``.
        shows: whether each of them does, ``[rows]``.
        count: images.

    Returns:
        The images ``[count, C, H, W]``, those that show it at no try by the first one; and the number of the try ``[count]``, or -1.
    """
    left, first = np.arange(count), np.full(count, -1)
    made = make(left, tries[0])
    images = made.copy()
    for number, one in enumerate(tries):
        made = made if not number else make(left, one)
        done = shows(left, made)
        images[left[done]], first[left[done]] = made[done], number
        left = left[~done]
        if not len(left):
            break
    return images, first


def own_patient_first(
    made: NDArray[np.float32], patients: NDArray[Any], gallery: NDArray[np.float32], of: NDArray[Any]
) -> NDArray[np.bool_]:
    """Whether the image in the gallery that correlates most with each made one is of its own patient, ``[n]``.

    Pixels are correlated after the gallery's mean image is taken away, which all patients share. No classifier has a say in it.

    Args:
        made: ``[n, C, H, W]`` in −1..1.
        patients: whose they are ``[n]``.
        gallery: real images of the same size ``[m, C, H, W]``, those that the made ones began as among them or others of the patients.
        of: their patients ``[m]``.
    """
    if not len(made):
        return np.zeros(0, bool)
    mean = gallery.reshape(len(gallery), -1).mean(axis=0, dtype=np.float64)
    correlation = _directions(made, mean) @ _directions(gallery, mean).T
    return np.asarray(of[correlation.argmax(axis=1)] == patients, bool)


def _directions(images: NDArray[np.float32], mean: Floats) -> Floats:
    flat = images.reshape(len(images), -1).astype(np.float64) - mean
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12), np.float64)
