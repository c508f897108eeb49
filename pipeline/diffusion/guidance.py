"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598), limited to an interval of noise (Kynkäänniemi et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""D(x, sigma): images ``[n, C, H, W]`` and noise levels ``[n]`` to denoised images, the condition already bound."""


def guided(
    denoiser: Callable[[Tensor, Tensor, Tensor], Tensor],
    labels: Tensor,
    *,
    null: int,
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, float("inf")),
) -> Denoise:
    """Bind labels and guidance to a denoiser: D_u + scale · (D_c − D_u) inside the interval, D_c outside.

    Both branches go through the network in one batch. At ``scale`` 1 the null branch cancels and is not computed.

    Args:
        denoiser: D(x, sigma, labels).
        labels: class index of every image, ``int64 [n]``.
        null: index of the learned null class.
        scale: guidance weight; 0 ignores the class, 1 is the conditional model, more trades diversity for fidelity.
        interval: lowest and highest sigma at which guidance acts.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        # Reading the level waits for a GPU, so an unguided model does not.
        if scale == 1.0 or not interval[0] <= float(sigma[0]) <= interval[1]:
            return denoiser(x, sigma, labels)
        both = denoiser(torch.cat([x, x]), torch.cat([sigma, sigma]), torch.cat([labels, torch.full_like(labels, null)]))
        conditional, unconditional = both.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return denoise
