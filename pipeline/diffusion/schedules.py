"""Noise levels: which are trained on, and which a sampler visits (EDM: Karras et al. 2022, arXiv:2206.00364)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RHO = 7.0
RANGE = (0.004, 160.0)
"""Lowest and highest noise level of sampling, in units of the data's standard deviation (EDM: 0.002 and 80 at 0.5)."""
WIDE_SHARE = 0.1
"""Share of training levels drawn log-uniformly from the whole range, so that no level that a sampler visits is untrained."""


def training_sigmas(
    count: int, sigma_data: float, generator: torch.Generator | None, device: str, *, mean: float = -0.5, std: float = 1.2
) -> Tensor:
    """Noise levels to train on, ``float32 [count]``: ln(sigma / sigma_data) ~ N(mean, std²) (EDM, Table 1), some of them log-uniform.

    EDM's −1.2 at sigma_data 0.5 is −0.5 here. The normal ones are stratified over the batch: the same expectation as
    independent draws, with less variance of the loss.
    """
    offset = torch.rand(count, generator=generator, device=device)
    quantile = (torch.arange(count, device=device) + offset) / count
    normal = mean + std * torch.special.ndtri(quantile.double().clamp(1e-6, 1 - 1e-6)).float()
    low, high = math.log(RANGE[0]), math.log(RANGE[1])
    uniform = low + (high - low) * torch.rand(count, generator=generator, device=device)
    wide = torch.rand(count, generator=generator, device=device) < WIDE_SHARE
    return torch.where(wide, uniform, normal).exp() * sigma_data


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = RHO) -> Tensor:
    """The ``steps`` decreasing noise levels of EDM's equation 5, followed by 0: ``float64 [steps + 1]``.

    Raises:
        ValueError: fewer than two steps, or levels out of order.
    """
    if steps < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"need at least 2 steps and 0 < sigma_min < sigma_max, got {steps}, {sigma_min}, {sigma_max}")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])
