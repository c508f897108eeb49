"""Deterministic samplers of the probability-flow ODE dx/dsigma = (x − D(x, sigma)) / sigma, from noise to images.

Each starts from images at the first noise level, so that an image is a function of its own seed alone. Levels are
Python floats on the host: a sampler itself never waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.diffusion.guidance import Denoise

Sampler = Callable[[Denoise, Tensor, Sequence[float]], Tensor]


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2) in sigma space: one evaluation a step, second order.

    Args:
        denoise: D(x, sigma) with the condition bound.
        x: images at the first level, mean + sigmas[0] · noise, ``float32 [n, C, H, W]``.
        sigmas: decreasing levels, the last may be 0.

    Returns:
        Images, ``float32 [n, C, H, W]``, not clipped.
    """
    levels = [float(value) for value in sigmas]
    previous: Tensor | None = None
    for step, (now, then) in enumerate(pairwise(levels)):
        denoised = denoise(x, x.new_full((len(x),), now))
        if then == 0:
            return denoised
        h = math.log(now / then)
        estimate = denoised
        if previous is not None:
            r = math.log(levels[step - 1] / now) / h
            estimate = denoised + (denoised - previous) / (2 * r)
        x = (then / now) * x - math.expm1(-h) * estimate
        previous = denoised
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """EDM's second-order sampler (Karras et al. 2022, algorithm 1): two evaluations a step but for the last."""
    levels = [float(value) for value in sigmas]
    for now, then in pairwise(levels):
        slope = (x - denoise(x, x.new_full((len(x),), now))) / now
        following = x + (then - now) * slope
        if then > 0:
            after = (following - denoise(following, x.new_full((len(x),), then))) / then
            following = x + (then - now) * (slope + after) / 2
        x = following
    return x


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """First-order steps; DDIM with eta 0 (Song et al. 2021) in these coordinates."""
    levels = [float(value) for value in sigmas]
    for now, then in pairwise(levels):
        denoised = denoise(x, x.new_full((len(x),), now))
        x = denoised + (then / now) * (x - denoised)
    return x


def starting_noise(seeds: Sequence[int], shape: Sequence[int], device: str) -> Tensor:
    """Standard normal noise, one seed an image: ``float32 [len(seeds), *shape]``, drawn on the CPU whatever the device."""
    drawn = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(device)
