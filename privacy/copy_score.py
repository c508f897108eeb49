"""A score that weighs the evidence of the copy search: learned from planted copies of images that no generator and no attack touches.

Non-negative weights on descriptors of which larger means more alike (:class:`privacy.copies.Candidates`): being more like an image by any
descriptor can only make a copy more likely, so that a kind of copy that was not planted is judged sensibly too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from privacy import copies, power

PENALTY = 0.01
"""Weight of the squared standardised coefficients beside the mean log-loss."""
LEAST = 60
"""Images below which nothing is learned: neighbours in so small a set say little about those in a cohort."""
MOST = 300
"""Images at the most that are learned from."""
ROUNDS = 2
"""Copies planted of every image."""


@dataclass(frozen=True)
class CopyScore:
    """Log-odds of a copy, ``evidence @ weight + bias``.

    Attributes:
        weight: ``float64 [d]``, none negative.
        bias: log-odds of a copy where the evidence is 0.
    """

    weight: NDArray[np.float64]
    bias: float

    def odds_against(self, evidence: NDArray[np.float32]) -> NDArray[np.float64]:
        """Odds that a pair is none of a copy and its source, ``float64``: the smaller, the more surely it is one."""
        return np.asarray(np.exp(-np.clip(evidence.astype(np.float64) @ self.weight + self.bias, -300, 300)))


def learn(images: NDArray[np.uint8], groups: NDArray[np.int64], *, rng: np.random.Generator, device: str) -> CopyScore:
    """The score that tells planted copies of ``images`` from their other neighbours.

    Every image is altered by :data:`privacy.power.LEARNED` kinds in turn, and searched for among all of them. Its own source is a copy; the
    other candidates, contrasted with one another as if the source were not there, are none.

    Args:
        images: ``uint8 [n, C, H, W]``, n >= :data:`LEAST`; at most :data:`MOST` of them are taken, at random.
        groups: patients, ``[n]``: a candidate of the source's patient is neither.

    Raises:
        ValueError: fewer images.
    """
    if len(images) < LEAST:
        raise ValueError(f"{len(images)} images are too few to learn a score from: at least {LEAST} are needed")
    chosen = rng.permutation(len(images))[:MOST]
    images, groups = np.asarray(images[chosen]), groups[chosen]
    search = copies.CopySearch(images, copies.shared_structure(images), device)
    altered, sources = [], []
    for number in range(ROUNDS * len(images)):
        source = number % len(images)
        altered.append(power.alter(images, source, power.LEARNED[(number + number // len(images)) % len(power.LEARNED)], rng))
        sources.append(source)
    return fit(*examples(search.candidates(np.stack(altered)), np.array(sources), groups))


def examples(
    found: copies.Candidates, sources: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Evidence ``[m, d]`` of pairs, and which are a copy and its source, from queries whose ``sources [n]`` are known."""
    near = torch.from_numpy(np.split(found.evidence, 2, axis=2)[0])
    index = torch.from_numpy(found.index)
    apart = torch.from_numpy(groups[found.index] != groups[sources][:, None])
    # Once each: a candidate that occurs twice is one.
    again = (index[:, :, None] == index[:, None]).tril(diagonal=-1).any(dim=2)
    copied = found.evidence[((index == torch.from_numpy(sources)[:, None]) & ~again).numpy()]
    chance = torch.cat([near, copies.contrast(near, index, apart)], dim=2)[apart & ~again].numpy()
    return np.concatenate([copied, chance]).astype(np.float64), np.arange(len(copied) + len(chance)) < len(copied)


def fit(evidence: NDArray[np.float64], copied: NDArray[np.bool_]) -> CopyScore:
    """Logistic regression with non-negative weights, both classes with the same total weight.

    Args:
        evidence: ``[m, d]``, larger is more alike.
        copied: ``[m]``, both kinds among them.
    """
    scale = np.maximum(evidence[~copied].std(axis=0), 1e-6)
    centre = evidence[~copied].mean(axis=0)
    data = (evidence - centre) / scale
    share = np.where(copied, 0.5 / copied.sum(), 0.5 / (~copied).sum())
    sign = np.where(copied, 1.0, -1.0)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (data @ parameters[:-1] + parameters[-1])
        pull = -share * sign * expit(-margin)
        weight = parameters[:-1]
        value = float((share * np.logaddexp(0, -margin)).sum() + PENALTY * weight @ weight)
        return value, np.append(pull @ data + 2 * PENALTY * weight, pull.sum())

    start = np.zeros(data.shape[1] + 1)
    bounds = [(0.0, math.inf)] * data.shape[1] + [(-math.inf, math.inf)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x
    weight = found[:-1] / scale
    return CopyScore(weight, float(found[-1] - centre @ weight))
