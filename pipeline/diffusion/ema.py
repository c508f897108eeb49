"""Power-function averages of weights, and any width of them after training (EDM2: Karras et al. 2024, arXiv:2312.02696, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WIDEST = 12**-0.5
"""Width of the plain mean of all weights, gamma = 0: no power function that grows is wider."""


def gamma_of_width(width: float) -> float:
    """The exponent gamma of the profile t^gamma whose relative standard deviation is ``width`` (EDM2, algorithm 2).

    ``width`` is sigma_rel, e.g. 0.05 or 0.1, and lies in 0..WIDEST (0.288…); it is the positive root of
    gamma³ + 7 gamma² + (16 − width⁻²) gamma + (12 − width⁻²) = 0.
    """
    inverse = width**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(np.max(roots.real))


@torch.no_grad()
def update(average: Sequence[Tensor], weights: Sequence[Tensor], step: int, gamma: float) -> None:
    """Move ``average`` in place towards ``weights`` after optimiser step ``step`` (1, 2, …): beta = (1 − 1/step)^(gamma + 1)."""
    beta = (1 - 1 / step) ** (gamma + 1)
    torch._foreach_lerp_(list(average), list(weights), 1 - beta)


class Profile(NamedTuple):
    """An average: of the weights of steps 1 … ``step``, under the power function of relative ``width``."""

    step: int
    width: float


def solve(stored: Sequence[Profile], wanted: Profile) -> NDArray[np.float64]:
    """Weights of the stored averages whose sum comes nearest, in least squares, to the wanted one: ``float64 [len(stored)]``.

    EDM2's algorithm 3: A w = b, where A holds the inner products of the stored profiles and b those with the wanted one; here also
    sum(w) = 1, so that a parameter that stood still is found as it was. Averages that end after ``wanted.step`` saw weights that
    it must not see, and get weight 0; what was trained since the last one before it is not in the solution.

    Raises:
        ValueError: nothing is stored up to ``wanted.step``.
    """
    use = [number for number, profile in enumerate(stored) if profile.step <= wanted.step]
    if not use:
        raise ValueError(f"no average is stored up to step {wanted.step}")
    steps = np.array([stored[number].step for number in use], dtype=np.float64)
    gammas = np.array([gamma_of_width(stored[number].width) for number in use])
    products = _inner_products(steps[:, None], gammas[:, None], steps, gammas)
    target = _inner_products(steps, gammas, float(wanted.step), gamma_of_width(wanted.width))
    # Profiles of unit length make the same solution more accurate; the last row and column hold the sum to 1.
    length = np.sqrt(np.diag(products))
    one = length.min() / length
    system = np.block([[products / np.outer(length, length), one[:, None]], [one[None], np.zeros((1, 1))]])
    weights = np.zeros(len(stored))
    weights[use] = np.linalg.lstsq(system, np.append(target / length, length.min()))[0][:-1] / length
    return weights


def _inner_products(
    step_a: NDArray[np.float64], gamma_a: NDArray[np.float64], step_b: NDArray[np.float64] | float, gamma_b: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """The integral of two profiles' product (EDM2, appendix C); p(t) = (gamma + 1) t^gamma / T^(gamma + 1) in 0..T has area 1."""
    longer = np.maximum(step_a, step_b)
    overlap = np.minimum(step_a, step_b) / longer
    gamma_of_longer = np.where(step_a > step_b, gamma_a, gamma_b)
    scale: NDArray[np.float64] = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * overlap**gamma_of_longer / longer
    return scale


def combine(weights: Sequence[float] | NDArray[np.float64], averages: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The weighted sum of stored averages, by name: added in float64, one average at a time, returned in their own type."""
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for weight, average in zip(weights, averages, strict=True):
        for name, value in average.items():
            kinds[name] = value.dtype
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + float(weight) * value.double()
    return {name: value.to(kinds[name]) for name, value in total.items()}
