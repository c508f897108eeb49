"""Noise schedules: how much noise there is at each time, which levels are trained on, and which a sampler visits.

A schedule blurs an image to x_t = alpha(t) · image + sigma(t) · noise, t from 0 (the image) to 1 (noise). Samplers and denoisers work on
x_t / alpha, where only the level sigma / alpha counts: the one number that this package calls ``sigma`` elsewhere.

* ``edm``: alpha = 1, levels of Karras et al. 2022 (arXiv:2206.00364), eq. 5, in units of the data's standard deviation.
* ``ddpm_linear``: Ho et al. 2020 (arXiv:2006.11239), 1000 steps, beta from 1e-4 to 0.02; t = k / 1000 is step k.
* ``ddpm_cosine``: Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17, 1000 steps, beta clipped at 0.999.
* ``sigmoid``: Jabri et al. 2022 (arXiv:2212.11972), start −3, end 3, temperature 1, alpha² no less than 1e-9.
* ``flow``: the straight path of flow matching (Lipman et al. 2022, arXiv:2210.02747), alpha = 1 − t, sigma = t.

All but ``edm`` are published for images in −1..1. Between two steps of a discrete schedule, ln alpha² is linear in t, so that any number
of steps is a respacing: samplers only ever see the levels that were kept, never a step between them.

The end alpha = 0 is a limit: its level is infinite (``flow``) or beyond any use (1e4 of ``ddpm_cosine`` and ``sigmoid``). There
E[image | x] is the mean, whatever x, so that the first step from t = 1 to any t' lands on mean + level(t') · noise exactly.
Sampling therefore starts on that line at once, at the last t whose level is no more than ``highest``.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Floats = NDArray[np.float64]

SCHEDULES = ("edm", "ddpm_linear", "ddpm_cosine", "sigmoid", "flow")
RHO = 7.0
RANGE = (0.004, 160.0)
"""Lowest and highest noise level of sampling, in units of the data's standard deviation (EDM: 0.002 and 80 at 0.5)."""
WIDE_SHARE = 0.1
"""Share of EDM's training levels drawn log-uniformly from the whole range, so that no level that a sampler visits is untrained."""
STEPS = 1000
"""Steps of the discrete schedules as published."""
HALF_WIDTH = 3.0
"""The sigmoid schedule runs over −HALF_WIDTH..HALF_WIDTH."""
HIGHEST_SIGMOID = math.sqrt(1e9 - 1)
"""Level at which the sigmoid schedule's alpha² is clipped to 1e-9."""


def alpha_sigma(name: str, t: ArrayLike, sigma_data: float = 1.0) -> tuple[Floats, Floats]:
    """(alpha, sigma) of x_t = alpha · image + sigma · noise at times ``t`` in 0..1, float64 in the shape of ``t``.

    ``sigma_data``, the data's standard deviation, scales ``edm`` alone. Raises ValueError for a name that is not in SCHEDULES.
    """
    if name == "flow":
        end = np.asarray(t, dtype=np.float64)
        return 1 - end, end
    found = level(name, t, sigma_data)
    alpha = np.ones_like(found) if name == "edm" else 1 / np.sqrt(1 + found**2)
    return alpha, alpha * found


def level(name: str, t: ArrayLike, sigma_data: float = 1.0) -> Floats:
    """sigma / alpha at times ``t`` in 0..1, increasing; float64 in the shape of ``t``, infinite at the end of ``flow``."""
    t = np.asarray(t, dtype=np.float64)
    if name == "edm":
        low, high = (bound ** (1 / RHO) for bound in RANGE)
        return np.asarray((low + t * (high - low)) ** RHO * sigma_data)
    if name == "flow":
        with np.errstate(divide="ignore"):
            return np.asarray(t / (1 - t))
    if name == "sigmoid":
        # The published alpha² = (s(3) − s(6t − 3)) / (s(3) − s(−3)), s the logistic function, without its cancellation near t = 0.
        with np.errstate(divide="ignore"):
            return np.minimum(np.sqrt(np.sinh(HALF_WIDTH * t) / np.sinh(HALF_WIDTH * (1 - t))), HIGHEST_SIGMOID)
    return np.asarray(np.sqrt(np.expm1(np.interp(t * STEPS, np.arange(STEPS + 1), _minus_log_alpha2(name)))))


def time(name: str, sigma: ArrayLike, sigma_data: float = 1.0) -> Floats:
    """The time at which the level is ``sigma`` (the nearer end where it never is), float64: the inverse of :func:`level`."""
    sigma = np.asarray(sigma, dtype=np.float64)
    if name == "edm":
        low, high = (bound ** (1 / RHO) for bound in RANGE)
        return np.asarray(np.clip(((sigma / sigma_data) ** (1 / RHO) - low) / (high - low), 0, 1))
    if name == "flow":
        return np.asarray(sigma / (1 + sigma))
    if name == "sigmoid":
        squared = np.minimum(sigma, HIGHEST_SIGMOID) ** 2
        return np.asarray(np.arctanh(squared * np.sinh(HALF_WIDTH) / (1 + squared * np.cosh(HALF_WIDTH))) / HALF_WIDTH)
    return np.asarray(np.interp(np.log1p(sigma**2), _minus_log_alpha2(name), np.arange(STEPS + 1)) / STEPS)


@functools.cache
def _minus_log_alpha2(name: str) -> Floats:
    """−ln alpha² after 0, 1, … 1000 steps of a discrete schedule: the sum of −ln(1 − beta)."""
    if name == "ddpm_linear":
        beta = np.linspace(1e-4, 0.02, STEPS)
    elif name == "ddpm_cosine":
        curve = np.cos((np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
        beta = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    else:
        raise ValueError(f"no noise schedule {name!r}: use one of {', '.join(SCHEDULES)}")
    return np.concatenate([[0.0], np.cumsum(-np.log1p(-beta))])


def sampling_levels(name: str, steps: int, sigma_data: float, highest: float = RANGE[1], lowest: float | None = None) -> list[float]:
    """The ``steps + 1`` decreasing levels that a sampler visits, the last one 0.

    Times are evenly spaced and include the schedule's noisy end (Lin et al. 2023, arXiv:2305.08891): with 1000 steps
    those of ``ddpm_linear`` are the published steps, each one.

    Args:
        name: one of SCHEDULES.
        steps: network evaluations, at least 1.
        sigma_data: standard deviation of the data, which scales ``edm``.
        highest: start no higher than at this level; ``edm`` starts at RANGE[1] · sigma_data unless that is higher.
        lowest: of ``edm``, the last level before 0; RANGE[0] · sigma_data by default.

    Raises:
        ValueError: no such schedule, or fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"need at least 1 step, got {steps}")
    if name == "edm":
        return [float(value) for value in karras_sigmas(steps, lowest or RANGE[0] * sigma_data, min(RANGE[1] * sigma_data, highest))]
    start = min(1.0, float(time(name, highest)))
    return [float(value) for value in level(name, start * np.arange(steps, -1, -1) / steps)]


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = RHO) -> Tensor:
    """The ``steps`` decreasing noise levels of EDM's equation 5, followed by 0: ``float64 [steps + 1]``.

    Raises:
        ValueError: no step, or levels out of order.
    """
    if steps < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"need at least 1 step and 0 < sigma_min < sigma_max, got {steps}, {sigma_min}, {sigma_max}")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


def training_levels(name: str, count: int, sigma_data: float, generator: torch.Generator | None, device: str) -> Tensor:
    """Noise levels to train on, ``float32 [count]``, within the range that is sampled; nothing waits for the device.

    ``edm`` draws them log-normally (:func:`training_sigmas`); the others draw t uniformly as published, from the 1000 steps of the
    discrete schedules or from 0..1, stratified over the batch.
    """
    if name == "edm":
        return training_sigmas(count, sigma_data, generator, device)
    t = _stratified(count, generator, device).double()
    if name == "flow":
        drawn = t / (1 - t)
    elif name == "sigmoid":
        drawn = (torch.sinh(HALF_WIDTH * t) / torch.sinh(HALF_WIDTH * (1 - t))).sqrt()
    else:
        drawn = _step_levels(name, device)[(t * STEPS).long().clamp(max=STEPS - 1)]
    return drawn.clamp(RANGE[0] * sigma_data, RANGE[1]).float()


@functools.cache
def _step_levels(name: str, device: str) -> Tensor:
    """Levels of the steps 1, 2, … 1000, ``float64 [1000]``: copied to the device once, because a captured graph cannot copy them."""
    with torch.inference_mode(False):
        return torch.from_numpy(level(name, np.arange(1, STEPS + 1) / STEPS)).to(device)


def training_sigmas(
    count: int, sigma_data: float, generator: torch.Generator | None, device: str, *, mean: float = -0.5, std: float = 1.2
) -> Tensor:
    """EDM's levels to train on, ``float32 [count]``: ln(sigma / sigma_data) ~ N(mean, std²) (Table 1), some of them log-uniform.

    EDM's −1.2 at sigma_data 0.5 is −0.5 here. The normal ones are stratified over the batch: the same expectation as
    independent draws, with less variance of the loss.
    """
    quantile = _stratified(count, generator, device)
    normal = mean + std * torch.special.ndtri(quantile.double().clamp(1e-6, 1 - 1e-6)).float()
    low, high = math.log(RANGE[0]), math.log(RANGE[1])
    uniform = low + (high - low) * torch.rand(count, generator=generator, device=device)
    wide = torch.rand(count, generator=generator, device=device) < WIDE_SHARE
    return torch.where(wide, uniform, normal).exp() * sigma_data


def _stratified(count: int, generator: torch.Generator | None, device: str) -> Tensor:
    """One uniform number from each of ``count`` equal parts of 0..1, in order: ``float32 [count]``."""
    return (torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)) / count
