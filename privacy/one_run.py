"""A lower bound of ε from the one training that there is (Steinke, Nasr & Jagielski 2023, "Privacy Auditing with One (1) Training Run",
arXiv:2305.08846).

Their coins say of each example whether it was trained on. A split by quota has no such coins: it was drawn with fixed sizes. So each audit
unit is paired at random with a train unit of its class, one in and one out; *given the pairs*, which of the two is in was a fair coin, and
the coins are independent. The attack names the member of each pair, and its guesses obey the theorem with ε for the exchange of one unit
for another (which is at most twice the ε for adding or removing one). A ε-private mechanism, whatever the attack knows beside the coins,
has

    P(at least v of r guesses are right) ≤ P(Binomial(r, e^ε / (1 + e^ε)) ≥ v) + m δ · max_i (2 / i) P(v > Binomial ≥ v − i)   (Theorem 5.2)

so that many right guesses refute a small ε (:func:`privacy.bounds.epsilon_lower`). Few of them certify nothing: a stronger attack may do
better.

The attacks, and the share of pairs on which they guess, were fixed before anything was measured, and see no membership.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.data import Labelled
from privacy.bounds import epsilon_lower
from privacy.membership import mean_error
from privacy.model import C, Denoiser
from privacy.nearest import nearest

GUESSED = 0.2
"""Share of the pairs on which the attack guesses: the surest. With 1 500 pairs, 300 right guesses show ε = 3.7 at a level of .0005."""
PAIRS = 800
"""Pairs whose loss is asked of a model, at the most."""
SIGMA = 0.25
"""Noise level of the loss, for images in −1..1: in the middle of the levels at which a denoiser's memory shows."""


@dataclass(frozen=True)
class OneRun:
    """What an attack guessed.

    Attributes:
        pairs: coins.
        guesses: pairs on which it guessed.
        correct: guesses that named the member.
    """

    pairs: int
    guesses: int
    correct: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the 95 % lower bound of ε."""
        low = epsilon_lower(self.correct, self.guesses)
        return {"pairs": self.pairs, "guesses": self.guesses, "correct": self.correct, "epsilon_low": low}


def pair(
    units: NDArray[np.int64], labels: NDArray[np.int64], member: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random pairs of a train unit and an audit unit of one class, as many as there are.

    A unit with images of several classes has the one that fewest units have, by which the split drew it. Whoever remains is in no pair.

    Args:
        units: what the split kept together, ``int64 [n]``.
        labels: class of each image ``int64 [n]``.
        member: whether its unit was trained on ``[n]``.

    Returns:
        Train units and audit units ``int64 [m]``, pair by pair.
    """
    names, place = np.unique(units, return_inverse=True)
    present = np.zeros((len(names), int(labels.max(initial=0)) + 1), bool)
    present[place, labels] = True
    kind = np.where(present, present.sum(axis=0), len(names) + 1).argmin(axis=1)
    inside = np.zeros(len(names), bool)
    inside[place] = member
    sides: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for index in range(present.shape[1]):
        here = [names[rng.permutation(np.flatnonzero((kind == index) & (inside == side)))] for side in (True, False)]
        for found, side in zip(sides, here):
            found.append(side[: min(map(len, here))])
    train, audit = (np.concatenate(side).astype(np.int64) for side in sides)
    order = rng.permutation(len(train))
    return train[order], audit[order]


def guess(scores: NDArray[np.float64], other: NDArray[np.float64], rng: np.random.Generator) -> OneRun:
    """Name the member of each of the surest :data:`GUESSED` pairs: the unit with the higher score, or either where they are equal.

    Args:
        scores: of the members of m pairs, in the order of the pairs; higher means "member".
        other: of the non-members.
        rng: for pairs that are equally sure, and where the scores are equal: nothing else may decide there, since the members come first.
    """
    apart = scores - other
    order = np.lexsort((rng.random(len(apart)), -np.abs(apart)))[: math.ceil(GUESSED * len(apart))]
    chosen = apart[order]
    right = np.where(chosen == 0, rng.random(len(chosen)) < 0.5, chosen > 0)
    return OneRun(len(apart), len(chosen), int(right.sum()))


def from_images(
    real: Labelled, units: NDArray[np.int64], member: NDArray[np.bool_], synthetic: NDArray[np.uint8], rng: np.random.Generator
) -> OneRun | None:
    """The attack on released images: the member is whose nearest synthetic image is nearer (GAN-Leaks, Chen et al. 2020, in one space).

    Args:
        real: train and audit, ``uint8 [n, C, H, W]``.
        units, member: as :func:`pair` takes them.
        synthetic: ``uint8 [s, C, H, W]``.

    Returns:
        None without a pair.
    """
    train, audit = pair(units, real.strata, member, rng)
    if not len(train):
        return None
    close = _by_unit(-nearest(real.images, synthetic)[1], units, np.maximum)
    return guess(close[train], close[audit], rng)


def from_weights(
    denoiser: Denoiser[C],
    real: Labelled,
    condition: C,
    units: NDArray[np.int64],
    member: NDArray[np.bool_],
    *,
    draws: int,
    rng: np.random.Generator,
    device: str,
) -> OneRun | None:
    """The attack on weights: the member is whose log denoising error at :data:`SIGMA` is lower, on the mean of a unit's images.

    Args:
        denoiser: D(x, sigma, c).
        condition: of every image.
        draws: of noise, the same for every image.

    Returns:
        None without a pair.
    """
    train, audit = (side[:PAIRS] for side in pair(units, real.strata, member, rng))
    if not len(train):
        return None
    rows = np.flatnonzero(np.isin(units, np.concatenate([train, audit])))
    seeds = rng.integers(0, 2**62, size=draws).tolist()
    asked = condition.take(torch.from_numpy(rows))
    errors = mean_error(denoiser, real.images[rows], asked, SIGMA, seeds=seeds, device=device)
    summed, count = (_by_unit(scores, units[rows], np.add) for scores in (-np.log(errors), np.ones(len(rows))))
    return guess(summed[train] / count[train], summed[audit] / count[audit], rng)


def _by_unit(scores: NDArray[np.float64], units: NDArray[np.int64], join: np.ufunc) -> NDArray[np.float64]:
    """Scores of every unit, by its number: the images' joined."""
    found = np.full(int(units.max()) + 1, -np.inf if join is np.maximum else 0.0)
    join.at(found, units, scores)
    return found
