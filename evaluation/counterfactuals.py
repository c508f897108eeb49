"""Whether a counterfactual changed what should change, and nothing else: its finding by judges, its patient among many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import Floats

GALLERY = 200
"""Patients among whom one's own must come first, at the least, for it to mean that the patient stayed the same."""


def least_depth(named: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first depth at which an image shows what it should, ``[n]``; -1 where it does at none. ``named`` is ``[depths, n]``."""
    return np.where(named.any(axis=0), named.argmax(axis=0), -1).astype(np.int64)


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
    mean = gallery.reshape(len(gallery), -1).mean(axis=0, dtype=np.float64)
    correlation = _directions(made, mean) @ _directions(gallery, mean).T
    return np.asarray(of[correlation.argmax(axis=1)] == patients, bool)


def _directions(images: NDArray[np.float32], mean: Floats) -> Floats:
    flat = images.reshape(len(images), -1).astype(np.float64) - mean
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12), np.float64)
