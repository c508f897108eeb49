"""Operators that image shifts are made of: spectra, positions, warps and JPEG's quantisation, on batches in torch.

Images are float32 ``[n, C, H, W]`` in 0..1 (black to white) on any device; what differs from image to image is ``[n, 1, 1, 1]``. Nothing
here draws anything, so that a shift is the same on every device up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Transfer = Callable[[Tensor, Tensor], Tensor]
# Recommendation T.81, table K.1.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
# Rows are the optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok & Johnston 2001, table 1).
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


def positions(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel's centre as shares of the image's height and width: ``[H, 1]`` and ``[1, W]`` in 0..1."""
    height, width = x.shape[2:]
    rows = (torch.arange(height, device=x.device, dtype=x.dtype) + 0.5) / height
    columns = (torch.arange(width, device=x.device, dtype=x.dtype) + 0.5) / width
    return rows[:, None], columns[None, :]


def filtered(x: Tensor, transfer: Transfer, *, wrap: bool = False) -> Tensor:
    """The images with their spectrum multiplied by ``transfer(fy, fx)``, frequencies in cycles a pixel.

    Borders are reflected first, so that the sides do not reach into each other; with ``wrap`` they do, as in a scanner's k-space.
    """
    height, width = x.shape[2:]
    above, left = (0, 0) if wrap else (height // 2, width // 2)
    padded = functional.pad(x, (left, left, above, above), mode="reflect") if above or left else x
    rows, columns = padded.shape[2:]
    fy = torch.fft.fftfreq(rows, device=x.device, dtype=x.dtype)[:, None]
    fx = torch.fft.rfftfreq(columns, device=x.device, dtype=x.dtype)[None, :]
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer(fy, fx), s=(rows, columns))
    return result[:, :, above : above + height, left : left + width]


def filtered_along(x: Tensor, transfer: Callable[[Tensor], Tensor], dim: int, *, wrap: bool = False) -> Tensor:
    """:func:`filtered` by a ``transfer`` of the frequencies along one axis alone, 2 (upright) or 3: a share of the work."""
    size = x.shape[dim]
    beyond = 0 if wrap else size // 2
    ends = (beyond, beyond, 0, 0) if dim == 3 else (0, 0, beyond, beyond)
    padded = functional.pad(x, ends, mode="reflect") if beyond else x
    f = torch.fft.rfftfreq(padded.shape[dim], device=x.device, dtype=x.dtype)
    spectra = torch.fft.rfft(padded, dim=dim) * transfer(f if dim == 3 else f[:, None])
    result: Tensor = torch.fft.irfft(spectra, n=padded.shape[dim], dim=dim)
    return result.narrow(dim, beyond, size)


def separable(x: Tensor, transfer: Callable[[Tensor], Tensor]) -> Tensor:
    """:func:`filtered` by ``transfer(fy) * transfer(fx)``."""
    return filtered_along(filtered_along(x, transfer, 3), transfer, 2)


def gaussian(x: Tensor, sigma: float | Tensor) -> Tensor:
    """Gaussian blur; ``sigma`` in pixels."""
    return separable(x, lambda f: torch.exp(-2 * (math.pi * sigma) ** 2 * f**2))


def coloured_noise(white: Tensor, transfer: Transfer) -> Tensor:
    """White noise of unit variance with another spectrum, image by image, and again of unit variance on average."""
    rows, columns = white.shape[2:]
    fy = torch.fft.fftfreq(rows, device=white.device, dtype=white.dtype)[:, None]
    fx = torch.fft.fftfreq(columns, device=white.device, dtype=white.dtype)[None, :]
    power: Tensor = (transfer(fy, fx) + 0 * (fy + fx)).square().mean(dim=(-2, -1), keepdim=True)
    return filtered(white, transfer, wrap=True) / power.sqrt()


def turned(x: Tensor, angle: Tensor) -> Tensor:
    """Rotated about the centre by ``angle`` ``[n, 1, 1, 1]`` in radians, bilinear, the border repeated."""
    flat, ratio = angle.flatten(), x.shape[2] / x.shape[3]
    cos, sin, zero = flat.cos(), flat.sin(), torch.zeros_like(flat)
    # In units of half of each side, which differ where the image is no square.
    matrix = torch.stack([torch.stack([cos, -sin * ratio, zero], 1), torch.stack([sin / ratio, cos, zero], 1)], 1)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jpeg(x: Tensor, quality: float) -> Tensor:
    """What baseline JPEG leaves of each channel: 8 × 8 cosine transforms, rounded to T.81's table K.1 as the IJG scales it.

    ``quality`` lies in 1..99. Colour is quantised by channel, without subsampling.
    """
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    table = torch.tensor(_LUMINANCE, device=x.device, dtype=x.dtype)
    step = (table * scale + 0.5).floor().clamp(1, 255)
    k = torch.arange(8, device=x.device, dtype=x.dtype)
    basis = torch.cos(math.pi * (2 * k[None, :] + 1) * k[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    n, channels, height, width = x.shape
    below, right = -height % 8, -width % 8
    padded = functional.pad(x, (0, right, 0, below), mode="replicate")
    blocks = (padded * 255).round() - 128
    blocks = blocks.reshape(n, channels, padded.shape[2] // 8, 8, padded.shape[3] // 8, 8).transpose(3, 4)
    kept = (basis @ blocks @ basis.T / step).round() * step
    result = (basis.T @ kept @ basis + 128).round().transpose(3, 4).reshape(padded.shape)
    return result[:, :, :height, :width] / 255


def restained(x: Tensor, haematoxylin: Tensor, eosin: Tensor) -> Tensor:
    """RGB images ``[n, 3, H, W]`` with the two stains' optical densities multiplied (colour deconvolution, Ruifrok & Johnston 2001)."""
    stains = torch.tensor(_STAINS, device=x.device, dtype=x.dtype)
    stains = stains / stains.norm(dim=1, keepdim=True)
    density = -torch.log(x.clamp_min(1 / 255)).permute(0, 2, 3, 1)
    amounts = density @ torch.linalg.inv(stains)
    scale = torch.cat([haematoxylin, eosin, torch.ones_like(eosin)], dim=1).permute(0, 2, 3, 1)
    return torch.exp(-(amounts * scale) @ stains).permute(0, 3, 1, 2)
