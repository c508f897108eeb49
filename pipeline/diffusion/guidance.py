"""Guidance: away from the unconditional model, another class, or a worse model, over an interval of noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.diffusion.conditioning import Condition

Denoise = Callable[[Tensor, float], Tensor]
"""D(x, sigma): images ``[n, C, H, W]`` (or volumes) at one noise level to denoised images, everything else bound.

The level is a Python float, so that neither a sampler nor guidance ever waits for the device to read it."""

ConditionalDenoiser = Callable[[Tensor, Tensor, Condition], Tensor]
"""D(x, sigma, c): ``[n, ...]``, ``[n]`` and the conditions of as many images to denoised images."""


def guided(
    denoiser: ConditionalDenoiser,
    condition: Condition,
    *,
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, float("inf")),
    negative: Condition | None = None,
    alone: Sequence[tuple[float, Condition]] = (),
    guide: ConditionalDenoiser | None = None,
) -> Denoise:
    """Bind a condition and guidance to a denoiser: D_0 + scale · (D − D_0) inside the interval of noise, D outside.

    D_0 is what guidance leads away from:

    * the null condition of the same network: classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598);
    * ``negative``: another condition of the same network in its place, such as a finding that is not wanted (an image of that condition
      itself is left unguided);
    * ``guide``: an earlier or smaller model under the same condition: autoguidance (Karras et al. 2024, arXiv:2406.02507).

    Conditions that are given ``alone`` add weight · (D_i − D_0) each, D_i being asked for that condition and nothing else: conjunction, or
    with a weight below 0 negation (Liu et al. 2022, arXiv:2206.01714, equations 11 and 12).

    All branches of one network go through it in one batch. At ``scale`` 1 with none alone, D_0 cancels and is not computed.

    Args:
        denoiser: D(x, sigma, c).
        condition: of every image.
        scale: guidance weight; 0 is D_0 itself, 1 the conditional model, more trades diversity for fidelity.
        interval: lowest and highest sigma at which guidance acts (Kynkäänniemi et al. 2024, arXiv:2404.07724).
        negative: of every image, to lead away from.
        alone: weights, and conditions of every image.
        guide: denoiser to lead away from.

    Raises:
        ValueError: ``guide`` is given together with ``negative`` or ``alone``.
    """
    if guide is not None and (negative is not None or alone):
        raise ValueError("guidance leads away from a guide, or composes conditions of one model, not both")
    weights = (scale, *(weight for weight, _ in alone))
    every = condition.joined(condition.null() if negative is None else negative, *(one for _, one in alone))
    parts = 1 + len(weights)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        level = x.new_full((len(x),), sigma)
        if weights == (1.0,) or not interval[0] <= sigma <= interval[1]:
            return denoiser(x, level, condition)
        if guide is None:
            wanted, unwanted, *others = denoiser(torch.cat([x] * parts), torch.cat([level] * parts), every).chunk(parts)
        else:
            wanted, unwanted, others = denoiser(x, level, condition), guide(x, level, condition), []
        led = unwanted
        for weight, one in zip(weights, (wanted, *others)):
            led = led + weight * (one - unwanted)
        return led

    return denoise
