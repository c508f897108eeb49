"""The most that could be found of a kind of copies: by who knows what was done to them, and how strongly.

A query is q = T(x): of a training image where it is a copy, of a fresh image of the same source where it is none. With T known the
likelihood p(q | x) is too. What is told is the generalised likelihood ratio, of the image that would explain q best to the training image
that does: half the deviance, which is small for a copy and grows with what lies between a fresh image and the training image that is most
like it. A search that misses a kind has met a limit only where this finds no more.

There is no oracle here for what a model makes anew of a training image: its likelihood is an integral over all paths of the sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr

from privacy import power

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]
ROUNDING = 0.5
"""Standard deviation, in grey levels, that is granted to a transform whose outcome is known."""


@dataclass(frozen=True)
class Oracle:
    """Who knows a transform.

    Attributes:
        versions: an image to all that the transform may make of it, before noise, ``uint8 [v, C, H, W]``, equally likely.
        sigma: of the Gaussian noise that follows, in grey levels.
    """

    versions: Callable[[Images], Images]
    sigma: float

    def __call__(self, queries: Images, train: Images) -> tuple[NDArray[np.int64], Floats]:
        """The likeliest source of each query ``uint8 [n, C, H, W]``, an index into ``train [m, C, H, W]``, and half of its deviance."""
        versions = np.stack([self.versions(image).reshape(-1, image.size) for image in train])
        index, deviance = np.empty(len(queries), np.int64), np.empty(len(queries))
        table = log_likelihoods(self.sigma)
        for number, query in enumerate(queries):
            seen = query.ravel()
            each = logsumexp(table[versions, seen].sum(axis=2), axis=1) - np.log(versions.shape[1])
            index[number], deviance[number] = each.argmax(), table[:, seen].max(axis=0).sum() - each.max()
        return index, deviance


def log_likelihoods(sigma: float) -> Floats:
    """ln P(a grey level q | it was r), ``[r, q]``: Gaussian noise of ``sigma``, rounded to 0 … 255 and clipped."""
    grey = np.arange(256.0)
    # By the nearer tail, so that what is far off in either direction keeps its digits.
    low, high = (np.where(grey == edge, sign * np.inf, grey + sign / 2) - grey[:, None] for edge, sign in ((0, -1), (255, 1)))
    below = grey < grey[:, None]
    upper, lower = (ndtr(np.where(below, one, -other) / sigma) for one, other in ((high, low), (low, high)))
    return np.asarray(np.log(np.maximum(upper - lower, 1e-300)))


def _itself(image: Images) -> Images:
    return image[None]


def _zoomed(image: Images) -> Images:
    return power.zoom_80(image, np.random.default_rng(0))[None]


def _turned(image: Images) -> Images:
    return np.stack([power.turned(image, degrees) for degrees in (-25.0, 25.0)])


ORACLES = {
    power.noise_weak: Oracle(_itself, 0.05 * 255),
    power.noise_strong: Oracle(_itself, 0.10 * 255),
    power.zoom_80: Oracle(_zoomed, ROUNDING),
    power.turn_25: Oracle(_turned, ROUNDING),
}
"""By the kind that each one knows."""
