"""What can be counted in an image without any network: grey levels, frequencies, wavelets, co-occurrence. For images of any size.

Fixed: :data:`evaluation.panel.VERSION` counts them in, so that a score of one release can be held against another's.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import Floats

LEVELS = 32
BANDS = 12
SCALES = 3
GREYS = 8
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
FLOOR = 1e-8
CHUNK = 512


def plain_features(images: NDArray[np.float32]) -> Floats:
    """Features ``[n, D]`` of images ``[n, C, H, W]`` in -1..1, of every channel by itself: :func:`histogram`, :func:`spectrum`,
    :func:`wavelets` and :func:`cooccurrence`."""
    n, channels, height, width = images.shape
    planes = images.reshape(n * channels, height, width)
    parts = [planes[start : start + CHUNK] for start in range(0, len(planes), CHUNK)]
    found = [np.concatenate([part(planes) for part in (histogram, spectrum, wavelets, cooccurrence)], axis=1) for planes in parts]
    return np.concatenate(found).reshape(n, -1)


def feature_names(channels: int) -> list[str]:
    """What each of the features of images of so many channels is, in the words of someone who looks at images."""
    moments, step = ("mean", "spread", "skewness", "kurtosis"), 256 // LEVELS
    shares = [f"pixels of grey {low} to {low + step - 1} of 255" for low in range(0, 256, step)]
    greys = [*shares, "black pixels", "white pixels", *(f"{moment} of the greys" for moment in moments)]
    edges = [f"{ring / BANDS / 2:.2f}" for ring in range(BANDS + 1)]
    powers = [f"power at {low} to {high} cycles a pixel" for low, high in itertools.pairwise(edges)] + ["power beyond 0.5 cycles a pixel"]
    directions = ("horizontal", "vertical", "diagonal")
    details = [f"{m} of {way} detail of {2**scale} px" for scale in range(SCALES) for way in directions for m in moments]
    haralick = ("contrast", "homogeneity", "energy", "entropy", "correlation")
    pairs = [f"{trait} of pixels {down} down and {right} to the right" for down, right in NEIGHBOURS for trait in haralick]
    one = [*greys, *powers, *details, *pairs]
    return one if channels == 1 else [f"{name}, channel {channel + 1}" for channel in range(channels) for name in one]


def histogram(planes: NDArray[np.float32]) -> Floats:
    """Of planes ``[n, H, W]`` in -1..1: shares of :data:`LEVELS` equal bins, shares at either end (saturation), four moments."""
    n = len(planes)
    flat = planes.reshape(n, -1).astype(np.float64)
    bins = np.clip(((flat + 1) / 2 * LEVELS).astype(np.int64), 0, LEVELS - 1)
    shares = np.bincount((np.arange(n)[:, None] * LEVELS + bins).ravel(), minlength=n * LEVELS).reshape(n, LEVELS) / flat.shape[1]
    ends = np.stack([(flat <= -1).mean(axis=1), (flat >= 1).mean(axis=1)], axis=1)
    return np.concatenate([np.sqrt(shares), np.sqrt(ends), _moments(flat)], axis=1)


def spectrum(planes: NDArray[np.float32]) -> Floats:
    """Logarithm of the mean power in :data:`BANDS` rings of spatial frequency, from 0 to the sampling limit, and in the corners beyond."""
    height, width = planes.shape[1:]
    centred = planes.astype(np.float64) - planes.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    power = np.abs(np.fft.rfft2(centred, norm="ortho")) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]) / 0.5
    ring = np.minimum((radius * BANDS).astype(np.int64), BANDS).ravel()
    count = np.bincount(ring, minlength=BANDS + 1)
    sums = np.stack([np.bincount(ring, row, BANDS + 1) for row in power.reshape(len(planes), -1)])
    return np.asarray(np.log(sums / np.maximum(count, 1) + FLOOR))


def wavelets(planes: NDArray[np.float32]) -> Floats:
    """Four moments of the Haar details (horizontal, vertical, diagonal) of :data:`SCALES` scales; zeros where the image is too small."""
    smooth, found = planes.astype(np.float64), []
    for _ in range(SCALES):
        height, width = (side // 2 * 2 for side in smooth.shape[1:])
        if min(height, width) < 2:
            found += [np.zeros((len(planes), 4))] * 3
            continue
        a, b, c, d = (smooth[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1))
        for detail in (a - b + c - d, a + b - c - d, a - b - c + d):
            moments = _moments(detail.reshape(len(planes), -1) / 2)
            moments[:, 1] = np.log(moments[:, 1] + FLOOR)
            found.append(moments)
        smooth = (a + b + c + d) / 4
    return np.concatenate(found, axis=1)


def cooccurrence(planes: NDArray[np.float32]) -> Floats:
    """Contrast, homogeneity, energy, entropy and correlation of the grey-level co-occurrence (Haralick et al. 1973).

    Of :data:`GREYS` levels, both directions counted, for each of :data:`NEIGHBOURS` (rows and columns apart) that fits into the image.
    """
    n, height, width = planes.shape
    grey = np.clip(((planes + 1) / 2 * GREYS).astype(np.int64), 0, GREYS - 1)
    i, j = np.mgrid[:GREYS, :GREYS]
    found = []
    for down, right in NEIGHBOURS:
        if down >= height or abs(right) >= width:
            found.append(np.zeros((n, 5)))
            continue
        left, skip = max(0, -right), max(0, right)
        one = grey[:, : height - down, left : width - skip]
        other = grey[:, down:, left + right : width - skip + right]
        code = (np.arange(n)[:, None, None] * GREYS + one) * GREYS + other
        pairs = np.bincount(code.ravel(), minlength=n * GREYS**2).reshape(n, GREYS, GREYS)
        p = (pairs + pairs.transpose(0, 2, 1)) / (2 * one[0].size)
        mean = (p * i).sum(axis=(1, 2), keepdims=True)
        variance = (p * (i - mean) ** 2).sum(axis=(1, 2))
        covariance = (p * (i - mean) * (j - mean)).sum(axis=(1, 2))
        entropy = -(p * np.log(p + (p == 0))).sum(axis=(1, 2))
        rows = [(p * (i - j) ** 2).sum(axis=(1, 2)), (p / (1 + (i - j) ** 2)).sum(axis=(1, 2)), (p**2).sum(axis=(1, 2)), entropy]
        found.append(np.stack([*rows, covariance / np.maximum(variance, FLOOR)], axis=1))
    return np.concatenate(found, axis=1)


def _moments(flat: Floats) -> Floats:
    """Mean, standard deviation, skewness and the logarithm of the kurtosis of rows ``[n, m]``; 0 where a row is constant."""
    mean, deviation = flat.mean(axis=1), flat.std(axis=1)
    standard = (flat - mean[:, None]) / np.maximum(deviation, FLOOR)[:, None]
    return np.stack([mean, deviation, (standard**3).mean(axis=1), np.log1p((standard**4).mean(axis=1))], axis=1)
