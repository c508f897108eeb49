"""The data as a few Gaussians a class: close to what they are under much noise, so that sampling may start below it.

Where noise is several times the data's deviation, all that a denoiser can tell of an image is where it lies along the few directions in
which images vary most: there the flow is that of a mixture of Gaussians (Wang & Vastola 2023, arXiv:2311.10892), and the steps that a
sampler would spend on it are saved. The images of a class are parted by k-means along these directions, because one Gaussian has the
right mean and covariance and yet ends in images that vary too little. All parts share their directions and the deviation in all others
(probabilistic PCA, Tipping & Bishop 1999, doi:10.1111/1467-9868.00196); within these each has its own covariance, the more of it the
more images it has (regularised as Friedman 1989, doi:10.1080/01621459.1989.10478752).
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
PARTS = 16
"""Gaussians that a class has at most."""
EACH = 100
"""Images that a class has for each of its Gaussians."""
FEWEST = EACH // 5
"""Images that make up any mean, so that none shows a few: what a smaller class lacks is filled up with the mean of all."""
APART = 16
"""Directions along which images are told apart."""


@dataclass(frozen=True)
class Mixture:
    """Images of a part: its mean + its own variation within the components + ``rest`` in every other direction.

    Attributes:
        first: number of each class's first part, ``int64 [classes]``; a class's parts follow one another.
        bounds: for each class the cumulative shares of its parts, and infinity from the last part on, ``float32 [classes, PARTS]``.
        means: of each part, ``float32 [parts, C, ...]``, in −1..1.
        components: orthonormal directions, ``float32 [k, C, ...]``.
        axes: each part's principal axes within the components, as columns, ``float32 [parts, k, k]``.
        deviations: standard deviations along these, ``float32 [parts, k]``.
        rest: standard deviation in every other direction, a scalar.
    """

    first: Tensor
    bounds: Tensor
    means: Tensor
    components: Tensor
    axes: Tensor
    deviations: Tensor
    rest: Tensor

    def parts(self, labels: Tensor, choice: Tensor) -> Tensor:
        """A part of each of the classes ``labels [n]``, drawn by its share: ``choice [n]`` is uniform in [0, 1)."""
        return self.first[labels] + (choice[:, None] >= self.bounds[labels]).sum(dim=1)

    def noisy(self, noise: Tensor, parts: Tensor, sigma: float) -> Tensor:
        """Points of the given parts ``[n]`` with noise of level ``sigma``, from standard normal ``noise [n, C, ...]``.

        Each point is the end of its Gaussian's own probability flow from an infinitely high level, where it was the noise.
        """
        others = (self.rest**2 + sigma**2).sqrt()
        directions, axes = self.components.flatten(1), self.axes[parts]
        along = torch.einsum("nk,nka->na", noise.flatten(1) @ directions.T, axes)
        more = along * ((self.deviations[parts] ** 2 + sigma**2).sqrt() - others)
        return self.means[parts] + others * noise + (torch.einsum("na,nka->nk", more, axes) @ directions).reshape(noise.shape)

    def state(self) -> dict[str, Tensor]:
        """The attributes by name, to be stored."""
        return dict(vars(self))

    def to(self, device: str) -> Mixture:
        """On a device."""
        return Mixture(**{name: value.to(device) for name, value in self.state().items()})


def fit(images: NDArray[np.float32], labels: NDArray[np.int64], classes: int, seed: int) -> Mixture:
    """The mixture of images ``[n, C, ...]`` of classes ``labels [n]``.

    No image counts for more than one of :data:`FEWEST` in a mean, which in a class of fewer is that much nearer to the mean of all (and is
    the mean of all where the class has no image). Variances are unbiased: a part's mean, fitted to its own images, takes a degree of
    freedom from their scatter.

    ``seed`` draws what the parting and the randomised decomposition start from (Halko et al. 2011, doi:10.1137/090771806).
    """
    from sklearn.decomposition import PCA

    flat = images.reshape(len(images), -1)
    members = _members(flat, labels, classes, seed)
    every = [part for each in members for part in each]
    sizes = np.array([len(part) for part in every], np.float64)
    overall, own_weight = flat.mean(axis=0), np.minimum(sizes / FEWEST, 1)
    means = np.stack([overall if not len(part) else w * flat[part].mean(axis=0) + (1 - w) * overall for part, w in zip(every, own_weight)])
    # Of m images about w · own mean + (1 - w) · another point, the expected scatter is m - 1 variances, and (1 - w)² of one more.
    freedom = sizes - own_weight * (2 - own_weight)
    within = flat.copy()
    for part, mean in zip(every, means):
        within[part] -= mean
    n, size = within.shape
    count = min(COMPONENTS, n - 1, size - 1)
    directions, shape = PCA(count, svd_solver="randomized", random_state=seed).fit(within).components_, images.shape[1:]
    along = (within @ directions.T).astype(np.float64)
    shared = along.T @ along / freedom.sum()
    rest = max(float(np.square(within).sum(dtype=np.float64)) / freedom.sum() - float(np.trace(shared)), 0.0) / (size - count)
    # The covariance that all parts share counts as much as ``count`` images of the part.
    scatters = [along[part].T @ along[part] for part in every]
    covariances = [(scatter + count * shared) / (free + count) for scatter, free in zip(scatters, freedom)]
    variances, axes = np.linalg.eigh(np.stack(covariances))
    bounds = np.full((classes, PARTS), np.inf)
    for bound, each in zip(bounds, members):
        ends = np.cumsum([len(part) for part in each])
        bound[: len(each) - 1] = ends[:-1] / max(ends[-1], 1)
    return Mixture(
        torch.from_numpy(np.cumsum([0, *[len(each) for each in members[:-1]]])),
        torch.from_numpy(bounds.astype(np.float32)),
        torch.from_numpy(means.astype(np.float32).reshape(-1, *shape)),
        torch.from_numpy(directions.astype(np.float32).reshape(count, *shape)),
        torch.from_numpy(axes.astype(np.float32)),
        torch.from_numpy(np.sqrt(np.maximum(variances, 0)).astype(np.float32)),
        torch.tensor(rest**0.5, dtype=torch.float32),
    )


def _members(flat: NDArray[np.float32], labels: NDArray[np.int64], classes: int, seed: int) -> list[list[NDArray[np.intp]]]:
    """For each class which images make up each of its parts."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import pairwise_distances_argmin

    places = PCA(min(APART, *flat.shape), svd_solver="randomized", random_state=seed).fit_transform(flat)
    members = []
    for c in range(classes):
        own = np.flatnonzero(labels == c)
        count = min(PARTS, len(own) // EACH)
        if count < 2:
            members.append([own])
            continue
        centres = KMeans(count, n_init=4, random_state=seed).fit(places[own]).cluster_centers_
        while True:
            nearest = pairwise_distances_argmin(places[own], centres)
            sizes = np.bincount(nearest, minlength=len(centres))
            if sizes.min() >= FEWEST:
                break
            centres = np.delete(centres, sizes.argmin(), axis=0)
        members.append([own[nearest == part] for part in range(len(centres))])
    return members


def few(count: int, size: int, seed: int) -> NDArray[np.int64]:
    """Which of ``count`` images of ``size`` pixels :func:`fit` is given: all, or as many as :data:`VALUES` allows, in their order."""
    most = max(2 * COMPONENTS, VALUES // size)
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
