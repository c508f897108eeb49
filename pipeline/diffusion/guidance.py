"""Guidance: away from the unconditional model, another class, or a worse model, over an interval of noise."""

from __future__ import annotations

from collections.abc import Callable

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
    negative: int | None = None,
    guide: ConditionalDenoiser | None = None,
) -> Denoise:
    """Bind a condition and guidance to a denoiser: D_0 + scale · (D − D_0) inside the interval of noise, D outside.

    D_0 is what guidance leads away from:

    * the null condition of the same network: classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598);
    * ``negative``: another class of the same network in its place (an image of that class itself is left unguided);
    * ``guide``: an earlier or smaller model under the same condition: autoguidance (Karras et al. 2024, arXiv:2406.02507).

    Both branches of one network go through it in one batch. At ``scale`` 1, D_0 cancels and is not computed.

    Args:
        denoiser: D(x, sigma, c).
        condition: of every image.
        scale: guidance weight; 0 is D_0 itself, 1 the conditional model, more trades diversity for fidelity.
        interval: lowest and highest sigma at which guidance acts (Kynkäänniemi et al. 2024, arXiv:2404.07724).
        negative: class index to lead away from.
        guide: denoiser to lead away from.

    Raises:
        ValueError: both ``negative`` and ``guide`` are given.
    """
    if negative is not None and guide is not None:
        raise ValueError("guidance leads away from a negative class or from a guide, not from both")
    twice = condition.joined(condition.null() if negative is None else condition.only(negative))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        level = x.new_full((len(x),), sigma)
        if scale == 1.0 or not interval[0] <= sigma <= interval[1]:
            return denoiser(x, level, condition)
        if guide is None:
            wanted, unwanted = denoiser(torch.cat([x, x]), torch.cat([level, level]), twice).chunk(2)
        else:
            wanted, unwanted = denoiser(x, level, condition), guide(x, level, condition)
        return unwanted + scale * (wanted - unwanted)

    return denoise
