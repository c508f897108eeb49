"""Counterfactuals: a real image taken to noise, and back with another finding by the steps that would have led to itself.

At each level on the way up the image is noised anew, so that whatever the denoiser makes of one level and not of the next is written down
as what chance did in between (an inversion of the stochastic sampler: Wu & De la Torre 2023, arXiv:2210.05559; Huberman-Spiegelglas et
al. 2024, arXiv:2304.06140). Downwards, the same chance with the wanted finding leads to what this patient's image would be with it; with
the finding that it has, back to the image exactly, in however few steps. An inversion of the probability flow keeps the finding in its
noise, which leads back to it. How far up decides what may change: little noise keeps the patient, much noise the finding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from pipeline.diffusion.guidance import Denoise


def counterfactual(own: Denoise, other: Denoise, images: Tensor, levels: Sequence[float], noise: Callable[[], Tensor]) -> Tensor:
    """The images, with what changes where ``other`` takes the place of ``own`` on the way down from ``levels[0]``.

    A step from s to t leads to q x + (1 − q) D(x, s), q = t² / s², and chance (Ho et al. 2020, arXiv:2006.11239, equation 7).

    Args:
        own: D(x, sigma) under the condition that the images have, without guidance.
        other: D(x, sigma) under the one that they are to have, with or without guidance.
        images: ``[n, C, H, W]`` in −1..1.
        levels: decreasing; the first decides how much may change, the last may be 0.
        noise: standard normal numbers in the shape of ``images``, fresh at every call.

    Returns:
        In the shape of ``images``, not clipped.
    """
    here = images + levels[0] * noise()
    changed = here
    for now, then in pairwise(levels):
        kept = (then / now) ** 2
        following = images + then * noise() if then else images
        chance = following - (kept * here + (1 - kept) * own(here, now))
        changed = kept * changed + (1 - kept) * other(changed, now) + chance
        here = following
    return changed
