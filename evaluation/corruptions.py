"""Image corruptions at severities 1 to 5, after the convention of MedMNIST-C (Di Salvo et al. 2024) and ImageNet-C.

Each is a pure function of the images, a strength and a generator; strength 0 is the identity (JPEG: nearly). Lengths are
shares of the image's side, so that a severity means the same at any size. Random directions are drawn per image.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

Images = NDArray[np.float32]
Function = Callable[[Images, float, np.random.Generator], Images]


def _gaussian_noise(x: Images, strength: float, rng: np.random.Generator) -> Images:
    return x + np.float32(strength) * rng.standard_normal(x.shape, dtype=np.float32)


def _quantum_noise(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """Poisson counts; ``strength`` is the relative noise of a white pixel, 1 / sqrt(photons)."""
    if strength == 0:
        return x
    return (rng.poisson(x / strength**2) * strength**2).astype(np.float32)


def _rician_noise(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """Magnitude of a complex signal with Gaussian noise in both parts (Gudbjartsson & Patz 1995)."""
    return np.hypot(_gaussian_noise(x, strength, rng), _gaussian_noise(np.zeros_like(x), strength, rng))


def _filtered(x: Images, transfer: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]) -> Images:
    """Multiply the spectrum by ``transfer(fy, fx)``, in cycles a pixel; reflected borders keep the sides from wrapping around."""
    height, width = x.shape[2:]
    border = [(0, 0), (0, 0), (height // 2, height // 2), (width // 2, width // 2)]
    spectrum = np.fft.rfft2(np.pad(x, border, mode="reflect"))
    fy = np.fft.fftfreq(height + 2 * (height // 2))[:, None]
    fx = np.fft.rfftfreq(width + 2 * (width // 2))[None, :]
    result = np.fft.irfft2(spectrum * transfer(fy, fx), s=(height + 2 * (height // 2), width + 2 * (width // 2)))
    inner = result[:, :, height // 2 : height // 2 + height, width // 2 : width // 2 + width]
    return np.asarray(inner, dtype=np.float32)


def _gaussian_blur(x: Images, strength: float, rng: np.random.Generator) -> Images:
    sigma = strength * x.shape[-1]
    return _filtered(x, lambda fy, fx: np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2)))


def _motion_blur(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """The mean along a straight path: its transfer function is sinc(length x frequency along it)."""
    angle = rng.uniform(0, np.pi, (len(x), 1, 1, 1))
    length = strength * x.shape[-1]
    return _filtered(x, lambda fy, fx: np.sinc(length * (fy * np.sin(angle) + fx * np.cos(angle))))


def _pixelate(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """Averaged to ``1 - strength`` of the side, and enlarged again without interpolation."""
    size = (max(1, round(x.shape[2] * (1 - strength))), max(1, round(x.shape[3] * (1 - strength))))
    reduced = functional.interpolate(torch.from_numpy(np.ascontiguousarray(x)), size, mode="area")
    return functional.interpolate(reduced, x.shape[2:], mode="nearest-exact").numpy()


def _jpeg(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """Stored at quality ``100 - strength``; one or three channels."""
    if x.shape[1] not in (1, 3):
        raise ValueError(f"jpeg stores one or three channels, not {x.shape[1]}")
    result = np.empty_like(x)
    for source, target in zip(np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8), result, strict=True):
        buffer = io.BytesIO()
        picture = source[0] if len(source) == 1 else source.transpose(1, 2, 0)
        Image.fromarray(picture).save(buffer, "JPEG", quality=round(100 - strength))
        decoded = np.asarray(Image.open(buffer), dtype=np.float32) / 255
        target[:] = decoded[None] if decoded.ndim == 2 else decoded.transpose(2, 0, 1)
    return result


def _contrast_up(x: Images, strength: float, rng: np.random.Generator) -> Images:
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(mean + (x - mean) * np.float32(1 + strength))


def _contrast_down(x: Images, strength: float, rng: np.random.Generator) -> Images:
    return _contrast_up(x, -strength, rng)


def _brightness_up(x: Images, strength: float, rng: np.random.Generator) -> Images:
    return x + np.float32(strength)


def _brightness_down(x: Images, strength: float, rng: np.random.Generator) -> Images:
    return x - np.float32(strength)


def _gamma(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """Exponent ``exp(+-strength)``, darker or brighter by chance."""
    sign = rng.choice(np.array([-1, 1], dtype=np.float32), (len(x), 1, 1, 1))
    return np.asarray(np.clip(x, 0, 1) ** np.exp(np.float32(strength) * sign), dtype=np.float32)


def _bias_field(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """Multiplied by ``exp`` of a random quadratic of the position, whose largest magnitude is ``strength``."""
    v, u = np.meshgrid(np.linspace(-1, 1, x.shape[2]), np.linspace(-1, 1, x.shape[3]), indexing="ij")
    terms = np.stack([u, v, u * v, u**2 - 1 / 3, v**2 - 1 / 3])
    field = np.einsum("nk,kij->nij", rng.standard_normal((len(x), len(terms))), terms)[:, None]
    field *= strength / np.abs(field).max(axis=(2, 3), keepdims=True)
    return np.asarray(x * np.exp(field), dtype=np.float32)


def _gibbs_ringing(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """k-space truncated to ``1 - strength`` of its extent in both directions."""
    limit = 0.5 * (1 - strength) + 1e-9
    return _filtered(x, lambda fy, fx: (np.abs(fy) <= limit) & (np.abs(fx) <= limit))


def _kspace_spike(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """One spurious sample in k-space: a wave of amplitude ``strength`` over the whole image."""
    radius, angle, phase = (rng.uniform(low, high, (len(x), 1, 1, 1)) for low, high in ((0.08, 0.4), (0, np.pi), (0, 2 * np.pi)))
    row, column = np.arange(x.shape[2])[:, None], np.arange(x.shape[3])[None, :]
    wave = np.cos(2 * np.pi * radius * (row * np.sin(angle) + column * np.cos(angle)) + phase)
    return (x + strength * wave).astype(np.float32)


def _warped(x: Images, angle: NDArray[np.float64], offset: NDArray[np.float64]) -> Images:
    """Rotated by ``angle`` [n] (radians) and moved by ``offset`` [n, 2] (shares of the side), bilinear, border repeated."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.stack([np.stack([cos, -sin, 2 * offset[:, 0]], axis=1), np.stack([sin, cos, 2 * offset[:, 1]], axis=1)], axis=1)
    images = torch.from_numpy(np.ascontiguousarray(x))
    grid = functional.affine_grid(torch.from_numpy(matrix.astype(np.float32)), list(x.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).numpy()


def _rotation(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """By ``strength`` degrees, to either side."""
    return _warped(x, np.deg2rad(strength) * rng.choice([-1, 1], len(x)), np.zeros((len(x), 2)))


def _translation(x: Images, strength: float, rng: np.random.Generator) -> Images:
    direction = rng.uniform(0, 2 * np.pi, len(x))
    return _warped(x, np.zeros(len(x)), strength * np.stack([np.cos(direction), np.sin(direction)], axis=1))


def _metal_object(x: Images, strength: float, rng: np.random.Generator) -> Images:
    """A saturated disc whose diameter is ``strength`` of the side, somewhere in the central part."""
    centre = rng.uniform(0.25, 0.75, (2, len(x), 1, 1, 1))
    row, column = (np.arange(x.shape[2])[:, None] + 0.5) / x.shape[2], (np.arange(x.shape[3])[None, :] + 0.5) / x.shape[3]
    # One pixel of soft edge keeps small discs from vanishing between pixels.
    distance = np.hypot(row - centre[0], column - centre[1]) * x.shape[-1]
    cover = np.clip(strength * x.shape[-1] / 2 - distance + 0.5, 0, 1) if strength else np.zeros_like(distance)
    return np.asarray(x * (1 - cover) + cover, dtype=np.float32)


@dataclass(frozen=True)
class Corruption:
    """What a corruption does, and its strength at severities 1 to 5."""

    function: Function
    strengths: tuple[float, float, float, float, float]


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(_gaussian_noise, (0.03, 0.06, 0.10, 0.15, 0.22)),
    "quantum_noise": Corruption(_quantum_noise, (0.05, 0.09, 0.14, 0.20, 0.28)),
    "rician_noise": Corruption(_rician_noise, (0.03, 0.06, 0.10, 0.15, 0.22)),
    "gaussian_blur": Corruption(_gaussian_blur, (0.012, 0.02, 0.03, 0.045, 0.065)),
    "motion_blur": Corruption(_motion_blur, (0.06, 0.10, 0.15, 0.21, 0.30)),
    "pixelate": Corruption(_pixelate, (0.15, 0.30, 0.45, 0.60, 0.72)),
    "jpeg": Corruption(_jpeg, (40, 60, 75, 85, 93)),
    "contrast_down": Corruption(_contrast_down, (0.20, 0.35, 0.50, 0.65, 0.80)),
    "contrast_up": Corruption(_contrast_up, (0.25, 0.50, 0.90, 1.40, 2.00)),
    "brightness_up": Corruption(_brightness_up, (0.08, 0.15, 0.22, 0.30, 0.40)),
    "brightness_down": Corruption(_brightness_down, (0.08, 0.15, 0.22, 0.30, 0.40)),
    "gamma": Corruption(_gamma, (0.20, 0.35, 0.55, 0.80, 1.10)),
    "bias_field": Corruption(_bias_field, (0.15, 0.30, 0.45, 0.65, 0.90)),
    "gibbs_ringing": Corruption(_gibbs_ringing, (0.30, 0.45, 0.58, 0.68, 0.78)),
    "kspace_spike": Corruption(_kspace_spike, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "rotation": Corruption(_rotation, (4, 8, 13, 19, 26)),
    "translation": Corruption(_translation, (0.03, 0.06, 0.09, 0.13, 0.18)),
    "metal_object": Corruption(_metal_object, (0.08, 0.14, 0.20, 0.28, 0.38)),
}


def corrupt(images: Images, name: str, severity: int, rng: np.random.Generator) -> Images:
    """Apply one corruption.

    Args:
        images: float32 ``[n, C, H, W]`` in -1..1; they are left as they are.
        name: a key of :data:`CORRUPTIONS`.
        severity: 1 (mild) to 5 (severe).
        rng: the only source of randomness.

    Returns:
        float32 ``[n, C, H, W]``, clipped to -1..1.

    Raises:
        ValueError: no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"no corruption {name!r}: one of {', '.join(CORRUPTIONS)}")
    if severity not in range(1, 6):
        raise ValueError(f"severity {severity!r}: an integer from 1 to 5")
    return apply(images, CORRUPTIONS[name].function, CORRUPTIONS[name].strengths[severity - 1], rng)


def apply(images: Images, function: Function, strength: float, rng: np.random.Generator) -> Images:
    """A corruption of any strength; the functions work in 0..1, ``images`` and the result lie in -1..1."""
    unit = (images + np.float32(1)) / np.float32(2)
    return np.asarray(np.clip(function(unit, strength, rng), 0, 1) * 2 - 1, dtype=np.float32)
