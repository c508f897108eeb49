"""Membership by likelihood ratio: is what a model shows of an image what models show that saw it, or what models show that did not?

The attack of Carlini et al. 2022 (arXiv:2112.03570) with other trainings of the same recipe, whose members are known, on several features
of each image at once. Few trainings tell little of one image, so that each image's model borrows from all others: with z = 1 where
training t saw image i, and 0 where it did not,

    feature[t, i] = level[t] + own[i] + z * effect[i] + noise[t, i],  effect[i] ~ N(mean, spread),  noise[t, i] ~ N(0, scale[i] * pooled).

``level`` is a training's mean over all images, ``pooled`` the covariance within images. In the directions in which ``pooled`` is the
identity and ``spread`` diagonal, the posterior of ``own`` and ``effect`` has a closed form, and what it predicts of the attacked model
with and without the image are two Student distributions. An image that none of the trainings saw, or that all of them saw, needs no case
of its own. Scales are shrunk as variances are by Smyth 2004 (doi:10.2202/1544-6115.1027). Higher scores mean "member".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

Floats = NDArray[np.float64]

NEGLIGIBLE = 1e-9
"""Directions with less than this share of the largest variance, features being standardised, are rounding."""


@dataclass(frozen=True)
class Lira:
    """What trainings on known images teach about n images, in r directions of unit noise that are independent of each other.

    Attributes:
        directions: from d features, less their mean over the images, to the r directions, ``[d, r]``.
        means: of each image's features in the trainings without it and in those with it, ``[2, n, r]``; 0 where there is none.
        counts: number of those trainings, ``[2, n]``.
        effect: mean effect of membership over the images, ``[r]``.
        spread: its variance between images, ``[r]``.
        scale: each image's variance of the noise, in units of all images' together, ``[n]``.
        freedom: degrees of freedom with which it is known, ``[n]``.
    """

    directions: Floats
    means: Floats
    counts: Floats
    effect: Floats
    spread: Floats
    scale: Floats
    freedom: Floats

    def score(self, features: Floats) -> Floats:
        """Log-likelihood ratio of member to non-member ``[n]``, from the attacked model's features ``[n, d]``."""
        seen = _centred(features) @ self.directions
        without, precision_without = self._expected(0)
        inside, precision_inside = self._expected(1)
        return self._log_density(seen - inside, precision_inside) - self._log_density(seen - without, precision_without)

    def _expected(self, side: int) -> tuple[Floats, Floats]:
        """Posterior mean and precision (in units of 1 / scale) of an image's features where a model did not see it (0) or did (1).

        What the other side's trainings show is worth less by the spread of the effect, by which it is moved.
        """
        own, other = self.counts[side][:, None], self.counts[1 - side][:, None]
        spread = self.spread / self.scale[:, None]
        borrowed = other / (1 + other * spread)
        moved = self.means[1 - side] + (self.effect if side else -self.effect)
        precision = own + borrowed
        return (own * self.means[side] + borrowed * moved) / precision, precision

    def _log_density(self, away: Floats, precision: Floats) -> Floats:
        """Log of the multivariate Student density, less what both sides share."""
        variance = self.scale[:, None] * (1 + 1 / precision)
        distance = (away**2 / variance).sum(axis=1)
        r = away.shape[1]
        tail: Floats = (self.freedom + r) * np.log1p(distance / self.freedom) + np.log(variance).sum(axis=1)
        return -tail / 2


def fit(features: Floats, inside: NDArray[np.bool_]) -> Lira:
    """Learn from k trainings.

    Args:
        features: of n images under each training, ``[k, n, d]``, finite.
        inside: whether each training saw each image, ``[k, n]``; every training as large a share of them.

    Raises:
        ValueError: no image was seen by some trainings and left out by others, or no two trainings agree on any.
    """
    counts = np.stack([(~inside).sum(axis=0), inside.sum(axis=0)]).astype(np.float64)
    both = (counts > 0).all(axis=0)
    degrees = np.maximum(counts - 1, 0).sum(axis=0)
    if not both.any() or not degrees.any():
        raise ValueError("too few trainings: some image must be in at least two of them, or in none of two, and another in one and not all")
    centred = np.stack([_centred(one) for one in features])
    means = _side_means(centred, inside, counts)
    residual = np.where(inside[:, :, None], centred - means[1], centred - means[0])
    flat = residual.reshape(-1, residual.shape[2])
    directions = _whitening(flat.T @ flat / degrees.sum())
    means, residual = means @ directions, residual @ directions
    effects = (means[1] - means[0])[both]
    effect = effects.mean(axis=0)
    uncertain = np.mean((1 / counts[:, both]).sum(axis=0))
    values, axes = np.linalg.eigh(np.cov(effects, rowvar=False, ddof=0).reshape(len(effect), -1) - uncertain * np.eye(len(effect)))
    squares = np.square(residual).sum(axis=(0, 2))
    scale, freedom = _scales(squares, degrees * len(effect))
    return Lira(directions @ axes, means @ axes, counts, effect @ axes, np.maximum(values, 0.0), scale, freedom)


def _centred(features: Floats) -> Floats:
    """Less the mean over the images: trainings differ in how far they came, whoever was in them."""
    return np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)


def _side_means(features: Floats, inside: NDArray[np.bool_], counts: Floats) -> Floats:
    sums = np.stack([np.einsum("kn,knd->nd", side.astype(np.float64), features) for side in (~inside, inside)])
    return np.asarray(sums / np.maximum(counts, 1)[:, :, None], np.float64)


def _whitening(covariance: Floats) -> Floats:
    """``[d, r]``: to directions in which the covariance is the identity."""
    deviation = np.sqrt(np.diag(covariance))
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    values, vectors = np.linalg.eigh(covariance * np.outer(inverse, inverse))
    kept = values > NEGLIGIBLE * max(values.max(), NEGLIGIBLE)
    return np.asarray(inverse[:, None] * vectors[:, kept] / np.sqrt(values[kept]), np.float64)


def _scales(squares: Floats, degrees: Floats) -> tuple[Floats, Floats]:
    """Each image's variance and its degrees of freedom, from sums of squares ``[n]`` of as many ``degrees``, and from all the others'.

    Variances vary between images as scaled inverse chi-squares do, of which log sample variances tell the degrees of freedom (Smyth 2004,
    section 6.2): infinite where samples vary no more than by chance.
    """
    known = (degrees > 0) & (squares > 0)
    half = degrees[known] / 2
    logs = np.log(squares[known] / degrees[known]) - digamma(half) + np.log(half)
    excess = logs.var(ddof=1) - polygamma(1, half).mean() if known.sum() > 1 else 0.0
    prior = _LARGEST if excess <= polygamma(1, _LARGEST / 2) else 2 * float(brentq(lambda x: polygamma(1, x) - excess, 1e-3, _LARGEST))
    typical = float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))) if known.any() else 1.0
    freedom = prior + degrees
    return (prior * typical + squares) / freedom, freedom


_LARGEST = 1e6
"""Degrees of freedom that are as good as infinitely many."""
