"""Power-function exponential moving average of weights (EDM2: Karras et al. 2024, arXiv:2312.02696, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def gamma_of_width(width: float) -> float:
    """The exponent gamma of the profile t^gamma whose relative standard deviation is ``width`` (EDM2, algorithm 2).

    ``width`` is sigma_rel, e.g. 0.05 or 0.1, and lies in 0..0.28; it is the positive root of
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
