"""Counterfactuals: a real image taken to noise along the probability flow of its own finding, and back along that of another.

The flow is an ordinary differential equation, which runs either way (Song et al. 2021, arXiv:2010.02502, section 4.3; Su et al. 2023,
arXiv:2203.08382): upwards under one condition it ends in the noise that would have given the image, downwards under another in what this
patient's image would be with another finding. How far up decides what may change: little noise keeps the patient, much noise the finding.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pipeline.diffusion.guidance import Denoise
from pipeline.diffusion.samplers import heun


def inverted(denoise: Denoise, images: Tensor, levels: Sequence[float]) -> Tensor:
    """The points at ``levels[0]`` from which the probability flow leads to the images.

    Heun's method upwards: the image is taken as the point at the last level above 0, which a denoiser cannot tell from it.

    Args:
        denoise: D(x, sigma) under the images' own condition, without guidance, which the flow that made them did not have.
        images: ``[n, C, H, W]``, or volumes.
        levels: as a sampler takes them, decreasing.

    Raises:
        ValueError: fewer than two levels lie above 0.
    """
    upwards = [level for level in reversed(levels) if level > 0]
    if len(upwards) < 2:
        raise ValueError(f"need at least two levels above 0 to invert along, got {len(upwards)}")
    return heun(denoise, images, upwards)


def counterfactual(own: Denoise, other: Denoise, images: Tensor, levels: Sequence[float]) -> Tensor:
    """The images, with what changes where ``other`` takes the place of ``own`` on the way down from ``levels[0]``.

    Both ways down start at the same noise, and their difference is added to the image: what an inversion of few steps loses is lost from
    both, and stays as it is in the image.

    Args:
        own: D(x, sigma) under the condition that the images have.
        other: D(x, sigma) under the one that they are to have, with or without guidance.
        images: ``[n, C, H, W]`` in −1..1.
        levels: decreasing; the first decides how much may change.

    Returns:
        In the shape of ``images``, not clipped.
    """
    noise = inverted(own, images, levels)
    return images + heun(other, noise, levels) - heun(own, noise, levels)
