"""The oracle: mixtures of isotropic Gaussians, whose denoiser, probability flow and distribution are known in closed form."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from pipeline.diffusion.samplers import Sampler
from pipeline.diffusion.schedules import level, sampling_levels, time


@dataclass(frozen=True)
class Mixture:
    """Component k has share ``shares[k]``, mean ``means[k]`` (a point of d numbers) and standard deviation ``widths[k]``.

    Points are ``float64 [n, d]``.
    """

    shares: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    widths: tuple[float, ...]

    @property
    def mean(self) -> Tensor:
        """Of all points, ``[d]``."""
        shares, means, _ = self._arrays
        return torch.from_numpy(shares @ means)

    @property
    def sigma_data(self) -> float:
        """Standard deviation about the mean, over all coordinates."""
        shares, means, variances = self._arrays
        return math.sqrt(shares @ variances + shares @ ((means - shares @ means) ** 2).mean(axis=1))

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[point | point + sigma · noise = x]: each component's Wiener estimate, weighed by how likely it is to have made x."""
        shares, means, variances = self._arrays
        total, points = variances + sigma**2, x.numpy()
        constant = np.log(shares) - x.shape[1] / 2 * np.log(total) - (means**2).sum(axis=1) / (2 * total)
        likely = constant[:, None] + (means / total[:, None]) @ points.T - (points**2).sum(axis=1) / (2 * total[:, None])
        weights = np.exp(likely - likely.max(axis=0))
        weights /= weights.sum(axis=0)
        kept = variances / total
        return torch.from_numpy((kept @ weights)[:, None] * points + weights.T @ ((1 - kept)[:, None] * means))

    @functools.cached_property
    def _arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Shares ``[k]``, means ``[k, d]`` and variances ``[k]``: numpy, which costs a fifth of torch where points are few."""
        return np.array(self.shares), np.array(self.means), np.square(self.widths)

    def along(self, direction: tuple[float, ...]) -> Mixture:
        """The distribution of the points' coordinate along a unit vector: a mixture in one dimension."""
        means = tuple((float(np.dot(mean, direction)),) for mean in self.means)
        return Mixture(self.shares, means, self.widths)

    def cdf(self, x: NDArray[np.float64], sigma: float = 0.0) -> NDArray[np.float64]:
        """P(point + sigma · noise <= x), in one dimension."""
        parts = [share * ndtr((x - mean) / math.hypot(width, sigma)) for share, (mean,), width in zip(self.shares, self.means, self.widths)]
        return np.asarray(sum(parts))

    def quantile(self, p: NDArray[np.float64], sigma: float = 0.0) -> NDArray[np.float64]:
        """The inverse of :meth:`cdf`, by bisection to the last bit."""
        reach = 10 * math.hypot(max(self.widths), sigma) + 1
        low, high = np.full_like(p, -reach), np.full_like(p, reach)
        for _ in range(80):
            middle = (low + high) / 2
            above = self.cdf(middle, sigma) > p
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return (low + high) / 2

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Where the probability-flow ODE carries ``x`` from level ``start`` to ``end``: in one dimension it keeps the quantile."""
        return torch.from_numpy(self.quantile(self.cdf(x.numpy(), start), end))

    def wasserstein(self, x: Tensor) -> float:
        """Distance of Wasserstein-1 between the points ``x [n, 1]`` and the mixture, in one dimension."""
        found = np.sort(x.numpy().ravel())
        return float(np.abs(found - self.quantile((np.arange(len(found)) + 0.5) / len(found))).mean())


TOY = Mixture((0.5, 0.5), ((-0.5,), (0.5,)), (0.05, 0.05))
"""Two modes alike."""
UNEVEN = Mixture((0.2, 0.5, 0.3), ((-0.7,), (-0.1,), (0.6,)), (0.03, 0.1, 0.05))
"""Three modes of unlike share and width, so that no symmetry hides an error."""
PLANE = Mixture((0.15, 0.35, 0.5), ((-0.6, 0.4), (0.5, 0.5), (0.1, -0.6)), (0.05, 0.15, 0.1))
"""Three modes in two dimensions."""


class RankedNoise:
    """Standard normal noise for a stochastic sampler, spread evenly over the points that it is added to.

    Array-RQMC (L'Ecuyer et al. 2008): point i in the order of the last x gets the normal quantile of the i-th van der Corput number,
    shifted at random each step. Every point's noise is exactly normal and its neighbours' is unlike it, so that the
    distribution of all is known several times as well as from independent noise.
    """

    def __init__(self, mixture: Mixture, count: int, seed: int = 0) -> None:
        self.mixture, self.rng = mixture, np.random.default_rng(seed)
        numbers, spread, digit = np.arange(count), np.zeros(count), 0.5
        while numbers.any():
            spread += digit * (numbers & 1)
            numbers, digit = numbers >> 1, digit / 2
        self.spread = torch.from_numpy(spread + 0.5 / count)
        self.x = torch.empty(0)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """The mixture's D(x, sigma); remembers x for the noise that will be added to it."""
        self.x = x
        return self.mixture.denoise(x, sigma)

    def noise(self) -> Tensor:
        """``[n, 1]``."""
        drawn = torch.empty_like(self.x)
        shifted = (self.spread + self.rng.random()) % 1
        drawn[self.x.flatten().argsort(), 0] = torch.special.ndtri(shifted.clamp(1e-12, 1 - 1e-12))
        return drawn


def quantiles(count: int) -> Tensor:
    """Standard normal numbers, evenly spread: ``[count, 1]``."""
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None]


def sampled(mixture: Mixture, schedule: str, sampler: Sampler, steps: int, count: int) -> Tensor:
    """What a sampler makes of ``count`` evenly spread starting points, in one dimension, with the exact denoiser."""
    levels = sampling_levels(schedule, steps, mixture.sigma_data)
    ranked = RankedNoise(mixture, count)
    return sampler(ranked.denoise, mixture.mean + levels[0] * quantiles(count), levels, ranked.noise)


def order(mixture: Mixture, schedule: str, sampler: Sampler, steps: tuple[int, int] = (200, 800), end: float = 0.05) -> float:
    """Measured order of convergence to the exact probability flow between two numbers of steps, over the schedule's levels down to ``end``.

    Not down to 0: the last step there is Euler's for every sampler, and how soon its length vanishes is the schedule's, not the sampler's.
    """
    latest = min(1.0, float(time(schedule, 160.0, mixture.sigma_data)))
    earliest = float(time(schedule, end, mixture.sigma_data))
    errors = []
    for number in steps:
        levels = level(schedule, np.linspace(latest, earliest, number + 1), mixture.sigma_data).tolist()
        start = mixture.mean + levels[0] * quantiles(256)
        found = sampler(mixture.denoise, start, levels)
        errors.append(float((found - mixture.flow(start, levels[0], levels[-1])).abs().mean()))
    return math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
