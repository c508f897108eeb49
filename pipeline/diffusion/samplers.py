"""Samplers: from noise at the first level to images, at any number of steps.

The deterministic ones solve the probability-flow ODE dx/dsigma = (x − D(x, sigma)) / sigma, the others the reverse SDE with the same
marginals (Karras et al. 2022, arXiv:2206.00364). They work on x_t / alpha at the levels sigma / alpha of
:mod:`pipeline.diffusion.schedules`, where every schedule looks the same, and know only the levels that they are given: a
step goes from one kept level to the next. Levels are Python floats, so a sampler never waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from pipeline.diffusion.guidance import Denoise

Noise = Callable[[], Tensor]
"""Standard normal noise in the shape of the images, fresh at every call."""


class Sampler(Protocol):
    """What all samplers share.

    Args:
        denoise: D(x, sigma), everything else bound.
        x: images at the first level, mean + levels[0] · noise, ``[n, C, H, W]`` or any shape that ``denoise`` takes.
        levels: decreasing, at least two; the last may be 0.
        noise: what stochastic samplers call once a step; the deterministic ones never do.

    Returns:
        Images in the shape and type of ``x``, not clipped.
    """

    def __call__(self, denoise: Denoise, x: Tensor, levels: Sequence[float], noise: Noise | None = None) -> Tensor:
        """Images from noise."""


def ddim(denoise: Denoise, x: Tensor, levels: Sequence[float], noise: Noise | None = None, *, eta: float = 0.0) -> Tensor:
    """DDIM (Song et al. 2021, arXiv:2010.02502, eq. 12 and 16): first order, deterministic at ``eta`` 0, DDPM at ``eta`` 1.

    Divided by alpha, a step from s to t is D + sqrt(t² − u²) (x − D) / s + u z, u = eta · t · sqrt(1 − t² / s²).
    """
    for now, then in pairwise(levels):
        denoised = denoise(x, now)
        fresh = eta * then * math.sqrt(1 - (then / now) ** 2)
        x = denoised + math.sqrt(then**2 - fresh**2) / now * (x - denoised)
        if fresh > 0:
            x = x + fresh * _drawn(noise)
    return x


def ddpm(denoise: Denoise, x: Tensor, levels: Sequence[float], noise: Noise | None = None) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7): the Gaussian posterior q(x_t | x_s, image = D).

    Its variance is the posterior's own (beta tilde) of the step taken, t² (s² − t²) / s², however many steps were left out between.
    """
    return ddim(denoise, x, levels, noise, eta=1.0)


def euler(denoise: Denoise, x: Tensor, levels: Sequence[float], noise: Noise | None = None) -> Tensor:
    """Euler's method, first order. In these coordinates, and along the straight path of flow matching, it is DDIM with ``eta`` 0."""
    return ddim(denoise, x, levels)


def heun(denoise: Denoise, x: Tensor, levels: Sequence[float], noise: Noise | None = None) -> Tensor:
    """EDM's second-order sampler (Karras et al. 2022, algorithm 1): two evaluations a step, one in a step to level 0."""
    for now, then in pairwise(levels):
        slope = (x - denoise(x, now)) / now
        following = x + (then - now) * slope
        if then > 0:
            after = (following - denoise(following, then)) / then
            following = x + (then - now) * (slope + after) / 2
        x = following
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, levels: Sequence[float], noise: Noise | None = None) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2): one evaluation a step, second order."""
    previous: Tensor | None = None
    for step, (now, then) in enumerate(pairwise(levels)):
        denoised = denoise(x, now)
        if then == 0:
            return denoised
        h = math.log(now / then)
        estimate = denoised if previous is None else _extrapolated(denoised, previous, math.log(levels[step - 1] / now) / h)
        x = (then / now) * x - math.expm1(-h) * estimate
        previous = denoised
    return x


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, levels: Sequence[float], noise: Noise | None = None) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, section 5): DDPM's step with DPM-Solver++(2M)'s estimate of the image."""
    previous: Tensor | None = None
    for step, (now, then) in enumerate(pairwise(levels)):
        denoised = denoise(x, now)
        if then == 0:
            return denoised
        h = math.log(now / then)
        estimate = denoised if previous is None else _extrapolated(denoised, previous, math.log(levels[step - 1] / now) / h)
        kept = math.exp(-2 * h)
        x = kept * x + (1 - kept) * estimate + then * math.sqrt(1 - kept) * _drawn(noise)
        previous = denoised
    return x


def _extrapolated(denoised: Tensor, previous: Tensor, r: float) -> Tensor:
    """The image's estimate in the middle of a step: along the line through the last two, the last step ``r`` times as long."""
    return denoised + (denoised - previous) / (2 * r)


def unipc(denoise: Denoise, x: Tensor, levels: Sequence[float], noise: Noise | None = None) -> Tensor:
    """UniPC (Zhao et al. 2023, arXiv:2302.04867), multistep, order 2, data prediction, with their B2(h): one evaluation a step.

    UniP-2 predicts x, which is DPM-Solver++(2M)'s step; D is evaluated there, and UniC-2 corrects x with it, to third order. The
    first step has no past: UniP-1 and UniC-1. With lambda = −ln sigma, a step of length h goes to (t / s) x + the integral of
    e^(lambda − lambda_t) D over it; UniC-2 is exact where D is quadratic in lambda.
    """
    denoised = denoise(x, levels[0])
    previous: Tensor | None = None
    for step, (now, then) in enumerate(pairwise(levels)):
        if then == 0:
            return denoised
        h = math.log(now / then)
        moment0 = -math.expm1(-h)
        x = (then / now) * x + moment0 * denoised
        r = 0.0 if previous is None else -math.log(levels[step - 1] / now) / h
        predicted = x if previous is None else x + moment0 / (2 * r) * (previous - denoised)
        if step == len(levels) - 2:
            return predicted
        new = denoise(predicted, then)
        if previous is None:
            x = x + moment0 / 2 * (new - denoised)
        else:
            # Weights of the two differences that are exact for quadratics: w_p r + w_n = moment1, w_p r² + w_n = moment2.
            moment1 = 1 - moment0 / h
            moment2 = 1 - 2 * moment1 / h
            weight = (moment1 - moment2) / (r * (1 - r))
            x = x + weight * (previous - denoised) + (moment1 - r * weight) * (new - denoised)
        previous, denoised = denoised, new
    return x


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "unipc": unipc,
}


def _drawn(noise: Noise | None) -> Tensor:
    if noise is None:
        raise ValueError("a stochastic sampler needs noise")
    return noise()
