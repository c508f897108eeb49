"""The data as one Gaussian a class: close to the exact solution of the probability flow at high noise, so that sampling may start below it.

Where noise is several times the data's deviation, all that a denoiser can tell of an image is its class's mean and the directions in which
the class varies most (Wang & Vastola 2023, arXiv:2311.10892): there the flow has a closed form, and the steps that a sampler would
spend on it are saved. All classes share their directions and the deviation in all others (probabilistic PCA, Tipping & Bishop 1999,
doi:10.1111/1467-9868.00196); within these each has its own covariance, the more of it the more images it has (regularised as
Friedman 1989, doi:10.1080/01621459.1989.10478752).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

COMPONENTS = 128
"""Directions that are kept at most; in all others the data vary less, by one mean deviation."""
VALUES = 1 << 26
"""Pixels that the directions are found from at most: 256 MiB of them."""


@dataclass(frozen=True)
class Gaussian:
    """Images of class c: means[c] + a class's own variation within the components + ``rest`` in every other direction.

    Attributes:
        means: of each class, ``float32 [classes, C, ...]``, in −1..1.
        components: orthonormal directions, ``float32 [k, C, ...]``.
        axes: each class's principal axes within the components, as columns, ``float32 [classes, k, k]``.
        deviations: standard deviations along these, ``float32 [classes, k]``.
        rest: standard deviation in every other direction, a scalar.
    """

    means: Tensor
    components: Tensor
    axes: Tensor
    deviations: Tensor
    rest: Tensor

    def noisy(self, noise: Tensor, labels: Tensor, sigma: float) -> Tensor:
        """Points of the classes ``labels [n]`` with noise of level ``sigma``, from standard normal ``noise [n, C, ...]``.

        Each point is the end of the Gaussian's own probability flow from an infinitely high level, where it was the noise.
        """
        others = (self.rest**2 + sigma**2).sqrt()
        directions, axes = self.components.flatten(1), self.axes[labels]
        along = torch.einsum("nk,nka->na", noise.flatten(1) @ directions.T, axes)
        more = along * ((self.deviations[labels] ** 2 + sigma**2).sqrt() - others)
        return self.means[labels] + others * noise + (torch.einsum("na,nka->nk", more, axes) @ directions).reshape(noise.shape)

    def state(self) -> dict[str, Tensor]:
        """The attributes by name, to be stored."""
        return dict(vars(self))

    def to(self, device: str) -> Gaussian:
        """On a device."""
        return Gaussian(**{name: value.to(device) for name, value in self.state().items()})


def fit(images: NDArray[np.float32], labels: NDArray[np.int64], classes: int, seed: int) -> Gaussian:
    """The Gaussian of images ``[n, C, ...]`` of classes ``labels [n]``; a class without an image has the mean of all.

    ``seed`` draws the directions that the randomised decomposition starts from (Halko et al. 2011, doi:10.1137/090771806).
    """
    from sklearn.decomposition import PCA

    flat = images.reshape(len(images), -1)
    means = np.stack([flat[labels == c].mean(axis=0) if (labels == c).any() else flat.mean(axis=0) for c in range(classes)])
    within = flat - means[labels]
    n, size = within.shape
    count = min(COMPONENTS, n - 1, size - 1)
    found = PCA(count, svd_solver="randomized", random_state=seed).fit(within)
    directions, shape = found.components_, images.shape[1:]
    rest = max(float(np.square(within).mean(dtype=np.float64)) * size - float(found.explained_variance_.sum()), 0.0) / (size - count)
    along = within @ directions.T
    covariances = []
    for c in range(classes):
        own = along[labels == c]
        # The covariance that the classes share counts as much as ``count`` images of the class.
        covariances.append((own.T @ own + count * np.diag(found.explained_variance_)) / (len(own) + count))
    variances, axes = np.linalg.eigh(np.stack(covariances).astype(np.float64))
    return Gaussian(
        torch.from_numpy(means.astype(np.float32).reshape(classes, *shape)),
        torch.from_numpy(directions.astype(np.float32).reshape(count, *shape)),
        torch.from_numpy(axes.astype(np.float32)),
        torch.from_numpy(np.sqrt(np.maximum(variances, 0)).astype(np.float32)),
        torch.tensor(rest**0.5, dtype=torch.float32),
    )


def few(count: int, size: int, seed: int) -> NDArray[np.int64]:
    """Which of ``count`` images of ``size`` pixels :func:`fit` is given: all, or as many as :data:`VALUES` allows, in their order."""
    most = max(2 * COMPONENTS, VALUES // size)
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
