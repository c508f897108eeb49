"""The EDM objective: preconditioning (Karras et al. 2022, Table 1) with a learned log-variance (EDM2: Karras et al. 2024, eq. 21).

One denoiser interface D(x, sigma, c) reaches every sampler, attack and guidance: ``x`` is ``float32 [n, C, H, W]`` = image + sigma · noise,
``sigma`` is ``[n]``, ``c`` is the class index ``int64 [n]`` (the null class is the last), and D is an estimate of the clean image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Preconditioning(NamedTuple):
    """Coefficients of D = c_skip · x + c_out · F(c_in · x, c_noise), each ``[n, 1, 1, 1]`` but ``c_noise [n]``."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def precondition(sigma: Tensor, sigma_data: float) -> Preconditioning:
    """EDM's coefficients (Table 1) at noise levels ``sigma [n]`` for data of standard deviation ``sigma_data``."""
    level = sigma.float().reshape(-1, 1, 1, 1)
    total = level.square() + sigma_data**2
    return Preconditioning(
        c_skip=sigma_data**2 / total,
        c_out=level * sigma_data / total.sqrt(),
        c_in=1 / total.sqrt(),
        c_noise=sigma.float().log() / 4,
    )


class Denoiser(nn.Module):
    """A network F with EDM's preconditioning around it, and the log-variance head that weighs its loss.

    The network sees images centred on their mean, so that it need not learn what all of them share.

    Args:
        network: F(x, c_noise, labels, augmentation) with output in the shape of x.
        mean: mean of the training images in −1..1, ``float32 [C, H, W]``.
        sigma_data: standard deviation of the training images about it.
    """

    mean: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, sigma_data: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.sigma_data = sigma_data
        self.log_variance = LogVariance()

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor, augmentation: Tensor | None = None) -> Tensor:
        """D(x, sigma, c): an estimate of the clean images, ``float32`` in the shape of ``x``."""
        k = precondition(sigma, self.sigma_data)
        centred = x - self.mean
        output = self.network(k.c_in * centred, k.c_noise, labels, augmentation)
        denoised: Tensor = self.mean + k.c_skip * centred + k.c_out * output.float()
        return denoised

    def loss(self, images: Tensor, noise: Tensor, sigma: Tensor, labels: Tensor, augmentation: Tensor | None = None) -> Tensor:
        """Weighted squared error of each image, ``float32 [n]``, averaged over its pixels.

        lambda(sigma) · |D − image|² with lambda = (sigma² + sigma_data²) / (sigma · sigma_data)², under EDM2's uncertainty
        u(sigma): loss / e^u + u. Its minimiser in D is E[image | x], whatever u.
        """
        denoised = self(images + sigma.reshape(-1, 1, 1, 1) * noise, sigma, labels, augmentation)
        weight = (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()
        error = weight * (denoised - images).square().flatten(1).mean(dim=1)
        uncertainty = self.log_variance(sigma.log() / 4)
        loss: Tensor = error * torch.exp(-uncertainty) + uncertainty
        return loss


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
