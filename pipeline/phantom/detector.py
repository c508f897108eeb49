"""The detector of a phantom: from attenuation along each ray to the displayed image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.phantom.anatomy import Detector, Pose

Array = NDArray[Any]

SOFT = 0.019
"""Effective attenuation of soft tissue, 1/mm."""


def _blur(image: Array, sigma: float) -> Array:
    """Gaussian point spread with a standard deviation in pixels."""
    blurred: Array = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0)
    return blurred


def _scattered(primary: Array, sigma: float) -> Array:
    """Primary radiation spread by two box filters, whose variances sum to that of a Gaussian with ``sigma`` pixels."""
    side = max(1, round(sigma * math.sqrt(6)))
    once = ndimage.uniform_filter(primary, side, mode="nearest")
    twice: Array = ndimage.uniform_filter(once, side, mode="nearest")
    return twice


def expose(attenuation: Array, detector: Detector, pose: Pose, thickness: float, pitch: float, rng: np.random.Generator) -> Array:
    """Beer-Lambert, scatter, point spread, quantum noise, logarithmic response and the display's sigmoid.

    Args:
        attenuation: natural log of incident over transmitted intensity, ``float32 [size, size]``.
        detector: the site's.
        pose: of which exposure and contrast are used.
        thickness: attenuation of the patient's chest beyond the average; the display follows it, though not all the way.
        pitch: side of a pixel in mm.
        rng: of the noise.

    Returns:
        The displayed image, ``float32 [size, size]`` in 0..1.
    """
    primary = np.exp(-attenuation)
    veil = np.float32(detector.scatter) * _scattered(np.minimum(primary, 0.35), 30 / pitch)
    signal = _blur(primary + veil, max(detector.blur_mm / pitch, 0.42))
    # Quantum noise: its variance is proportional to the signal and to the inverse of the pixel's area.
    noise = rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(detector.noise / pitch)
    signal = signal + noise * np.sqrt(signal)
    density = -np.log(np.maximum(signal, 1e-4))
    slope = np.float32(pose.contrast / detector.width)
    centre = np.float32(detector.centre + pose.exposure + 0.7 * thickness)
    return np.asarray(1 / (1 + np.exp(slope * (centre - density))), np.float32)
