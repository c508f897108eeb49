"""A score that weighs the evidence of the copy search: learned from planted copies of images that no generator and no attack touches.

Each kind of copy leaves other traces: noise spares the coarse bands, an occlusion most patches, a bias field what is free of contrast. So
each kind has its own log-odds, and the score is what their mean odds are: the odds of a copy of some kind, none more likely than another.
Within a kind the weights on the descriptors, of which larger means more alike (:class:`privacy.copies.Candidates`), are not negative: being
more like an image by any descriptor can only make a copy more likely, so that a kind that was not planted is judged sensibly too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from privacy import copies, power

PENALTY = 3e-5
"""Weight of the squared standardised coefficients beside the mean log-loss: with more of it, weight and the odds of strangers are spread,
and what is improbable among them lies farther off."""
LEAST = 60
"""Images below which nothing is learned: neighbours in so small a set say little about those in a cohort."""
MOST = 300
"""Images at the most that are learned from."""
LOWEST_ODDS = 1e-130
"""Odds below count as these."""
ROUNDS = 2
"""Copies planted of every image."""


@dataclass(frozen=True)
class CopyScore:
    """Log-odds of a copy of each of k kinds, ``evidence @ weight.T + bias``.

    Attributes:
        weight: ``float64 [k, d]``, none negative.
        bias: log-odds where the evidence is 0, ``float64 [k]``.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def odds_against(self, evidence: NDArray[np.float32]) -> NDArray[np.float64]:
        """Odds that pairs are none of a copy and its source, from evidence ``[..., d]``: the smaller, the more surely one is."""
        each = evidence.astype(np.float64) @ self.weight.T + self.bias
        reach = -math.log(LOWEST_ODDS)
        return np.asarray(np.exp(np.clip(math.log(len(self.bias)) - logsumexp(each, axis=-1), -reach, reach)))


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
    number = np.arange(ROUNDS * len(images))
    sources, kinds = number % len(images), (number + number // len(images)) % len(power.LEARNED)
    altered = [power.alter(images, int(source), power.LEARNED[kind], rng) for source, kind in zip(sources, kinds)]
    evidence, copied, query = examples(search.candidates(np.stack(altered)), sources, groups)
    present = np.unique(kinds[query[copied]])
    fitted = [fit(evidence[mask], copied[mask]) for mask in (~copied | (kinds[query] == kind) for kind in present)]
    weights, biases = zip(*fitted)
    return CopyScore(np.stack(weights), np.array(biases))


def examples(
    found: copies.Candidates, sources: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Evidence ``[m, d]`` of pairs, which are a copy and its source, and each one's query, from queries whose ``sources [n]`` are known."""
    near = torch.from_numpy(np.split(found.evidence, 2, axis=2)[0])
    index = torch.from_numpy(found.index)
    apart = torch.from_numpy(groups[found.index] != groups[sources][:, None])
    # Once each: a candidate that occurs twice is one.
    again = (index[:, :, None] == index[:, None]).tril(diagonal=-1).any(dim=2)
    own, chance = (index == torch.from_numpy(sources)[:, None]) & ~again, apart & ~again
    without = torch.cat([near, copies.contrast(near, index, apart)], dim=2)
    evidence = torch.cat([torch.from_numpy(found.evidence)[own], without[chance]]).double().numpy()
    query = torch.cat([torch.nonzero(mask)[:, 0] for mask in (own, chance)]).numpy()
    return evidence, np.arange(len(evidence)) < int(own.sum()), query


def fit(evidence: NDArray[np.float64], copied: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Logistic regression with non-negative weights, both classes with the same total weight.

    Args:
        evidence: ``[m, d]``, larger is more alike.
        copied: ``[m]``, both kinds among them.

    Returns:
        Weights ``float64 [d]`` and the log-odds where the evidence is 0.
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
    return weight, float(found[-1] - centre @ weight)
