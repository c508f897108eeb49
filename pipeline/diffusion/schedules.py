"""Noise levels: which are trained on, and which a sampler visits (EDM: Karras et al. 2022, arXiv:2206.00364)."""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA_MIN = 0.002
SIGMA_MAX = 80.0
RHO = 7.0


def training_sigmas(count: int, generator: torch.Generator | None, device: str, *, mean: float = -1.0, std: float = 1.2) -> Tensor:
    """Noise levels to train on, ``float32 [count]``: ln sigma ~ N(mean, std²) (EDM, Table 1), stratified over the batch.

    Stratified quantiles have the same expectation as independent draws with less variance of the loss. ``mean`` −1.0 instead of EDM's
    −1.2 suits radiographs, whose large structures are settled at higher noise than natural thumbnails'.
    """
    offset = torch.rand(count, generator=generator, device=device)
    quantile = (torch.arange(count, device=device) + offset) / count
    normal = torch.special.ndtri(quantile.double().clamp(1e-6, 1 - 1e-6)).float()
    return (mean + std * normal).exp()


def karras_sigmas(steps: int, *, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO) -> Tensor:
    """The ``steps`` decreasing noise levels of EDM's equation 5, followed by 0: ``float64 [steps + 1]``.

    Raises:
        ValueError: fewer than two steps, or levels out of order.
    """
    if steps < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"need at least 2 steps and 0 < sigma_min < sigma_max, got {steps}, {sigma_min}, {sigma_max}")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])
