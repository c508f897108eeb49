"""What the network predicts, and the loss it learns from: one denoiser interface for all objectives.

D(x, sigma, c) reaches every sampler, attack and guidance: ``x`` = image + sigma · noise is ``float32 [n, C, H, W]`` (of volumes
``[n, C, D, H, W]``), ``sigma`` is ``[n]``, ``c`` is the :class:`Condition` of the n images, and D is an estimate of the
clean image. A model of x_t = alpha · image + sigma_t · noise is asked at x_t / alpha with sigma = sigma_t / alpha.

Whatever the objective, D = c_skip · x + c_out · F(c_in · x, c_noise), and the loss |D − image|² / c_out² is the squared error of F in
its own target. Its minimiser is D = E[image | x] for all: objectives differ in how they weigh the levels and in what F has to do.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.diffusion.conditioning import Condition

OBJECTIVES = ("edm", "epsilon", "x0", "v", "flow")


class Preconditioning(NamedTuple):
    """Coefficients of D = c_skip · x + c_out · F(c_in · x, c_noise), each in the shape of ``sigma``."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def precondition(objective: str, sigma: Tensor, sigma_data: float) -> Preconditioning:
    """The coefficients at noise levels ``sigma > 0`` for data of standard deviation ``sigma_data`` (which ``edm`` alone uses).

    * ``edm``: Karras et al. 2022 (arXiv:2206.00364), Table 1: input and target of unit variance at every level.
    * ``epsilon``: F is the noise (Ho et al. 2020; Table 1's column VP).
    * ``x0``: F is the image.
    * ``v``: F is v = alpha · noise − sigma · image (Salimans & Ho 2022, arXiv:2202.00512), variance preserving.
    * ``flow``: F is the velocity noise − image along x_t = (1 − t) image + t noise (Lipman et al. 2022, arXiv:2210.02747).

    Each network's input c_in · x is x_t of its own schedule, as published. The level is told to all as c_noise = ln sigma / 4 (EDM's),
    finite and within about ±1.7 at the levels in use: a function of the published t that spreads evenly what t crowds at its ends.

    Raises:
        ValueError: no such objective.
    """
    one, vp = torch.ones_like(sigma), (1 + sigma.square()).rsqrt()
    if objective == "edm":
        total = sigma.square() + sigma_data**2
        c_skip, c_out, c_in = sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt()
    elif objective == "epsilon":
        c_skip, c_out, c_in = one, -sigma, vp
    elif objective == "x0":
        c_skip, c_out, c_in = torch.zeros_like(sigma), one, vp
    elif objective == "v":
        c_skip, c_out, c_in = vp.square(), -sigma * vp, vp
    elif objective == "flow":
        c_skip, c_out, c_in = 1 / (1 + sigma), -sigma / (1 + sigma), 1 / (1 + sigma)
    else:
        raise ValueError(f"no objective {objective!r}: use one of {', '.join(OBJECTIVES)}")
    return Preconditioning(c_skip, c_out, c_in, sigma.log() / 4)


class Denoiser(nn.Module):
    """A network F with an objective's preconditioning around it; for ``edm`` also the log-variance head that weighs its loss.

    The network sees images centred on their mean, so that it need not learn what all of them share.

    Args:
        network: F(x, c_noise, c, augmentation) with output in the shape of x.
        mean: mean of the training images in −1..1, ``float32 [C, H, W]`` or ``[C, D, H, W]``.
        sigma_data: standard deviation of the training images about it.
        objective: one of OBJECTIVES.
    """

    mean: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, sigma_data: float, objective: str = "edm") -> None:
        super().__init__()
        precondition(objective, torch.ones(1), sigma_data)
        self.network = network
        self.register_buffer("mean", mean)
        self.sigma_data = sigma_data
        self.objective = objective
        self.log_variance = LogVariance() if objective == "edm" else None

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition, augmentation: Tensor | None = None) -> Tensor:
        """D(x, sigma, c): an estimate of the clean images, ``float32`` in the shape of ``x``."""
        level = sigma.float()
        k = precondition(self.objective, _per_image(level, x), self.sigma_data)
        centred = x - self.mean
        output = self.network(k.c_in * centred, k.c_noise.flatten(), condition, augmentation)
        denoised: Tensor = self.mean + k.c_skip * centred + k.c_out * output.float()
        return denoised

    def loss(self, images: Tensor, noise: Tensor, sigma: Tensor, condition: Condition, augmentation: Tensor | None = None) -> Tensor:
        """|D − image|² / c_out² of each image, averaged over its pixels: ``float32 [n]``.

        For ``edm``, 1 / c_out² is its lambda(sigma), and the loss comes under EDM2's learned uncertainty u(sigma) (Karras et al. 2024,
        arXiv:2312.02696, eq. 21): loss / e^u + u. The minimiser in D is E[image | x], whatever the objective and u.
        """
        level = sigma.float()
        denoised = self(images + _per_image(level, images) * noise, sigma, condition, augmentation)
        k = precondition(self.objective, level, self.sigma_data)
        error: Tensor = (denoised - images).square().flatten(1).mean(dim=1) / k.c_out.square()
        if self.log_variance is None:
            return error
        uncertainty: Tensor = self.log_variance(k.c_noise)
        return error * torch.exp(-uncertainty) + uncertainty


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """``[n]`` to ``[n, 1, ...]`` with as many axes as the images have."""
    return values.reshape(-1, *[1] * (images.ndim - 1))


class LogVariance(nn.Module):
    """u(sigma): one linear layer over Fourier features of c_noise (EDM2, appendix B.3); starts at 0."""

    frequencies: Tensor

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(0.1, 2.0, channels), persistent=False)
        self.linear = nn.Linear(2 * channels, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c_noise: Tensor) -> Tensor:
        """``[n]`` to ``[n]``."""
        phase = 2 * math.pi * c_noise.float()[:, None] * self.frequencies
        value: Tensor = self.linear(torch.cat([phase.cos(), phase.sin()], dim=1)).squeeze(1)
        return value
