"""Acquisition shifts by modality, at an image's own size: what another scanner, protocol, operator or patient does to an image.

A shift is a deterministic function of the image, a strength and what was drawn for that image: a few parameters (:func:`drawn`), and noise.
What was drawn is the same for all severities, so that a higher one is more of the same, and can be written down and applied again.
Lengths are shares of the image's width, so that a severity means the same at any size. Strengths that :mod:`evaluation.corruptions` has
too are taken from there.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.corruptions import CORRUPTIONS
from evaluation.optics import coloured_noise, filtered, filtered_along, gaussian, jpeg, positions, restained, separable, turned

SEVERITIES = (1, 2, 3, 4, 5)
RADIOGRAPH = frozenset({"CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA"})
PHOTOGRAPH = frozenset({"ES", "OP", "XC"})
MICROSCOPE = frozenset({"GM", "SM"})
KNOWN = RADIOGRAPH | PHOTOGRAPH | MICROSCOPE | {"CT", "MR", "OPT", "US"}
"""DICOM's codes (PS3.3 C.7.3.1.1.1) of modalities that have shifts of their own."""
_LETTERS = (
    ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
)
Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Draw:
    """What chance decides of one shift of n images.

    Attributes:
        parameters: by name, ``[n, 1, 1, 1]``.
        normal: the k-th field of independent standard normal numbers ``[n, C, H, W]``, the same at every call.
    """

    parameters: Parameters
    normal: Callable[[int], Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[name]


Function = Callable[[Tensor, float, Draw], Tensor]


@dataclass(frozen=True)
class Shift:
    """One shift.

    Attributes:
        function: of images in 0..1, a strength and what was drawn.
        strengths: at severities 1 to 5.
        meaning: what the strength is, with its unit.
        modalities: which it fits; empty for all.
        ranges: what is drawn for every image, evenly between two ends, by name.
        colour: whether it takes three channels only.
        beside: another shift whose draws it shares, so that both stand at one place in an image; empty where it has draws of its own.
    """

    function: Function
    strengths: tuple[float, ...]
    meaning: str
    modalities: frozenset[str] = frozenset()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    colour: bool = False
    beside: str = ""


def _quantum_noise(x: Tensor, s: float, d: Draw) -> Tensor:
    return x + s * x.clamp_min(0).sqrt() * d.normal(0)  # counts' variance is their mean


def _gaussian_noise(x: Tensor, s: float, d: Draw) -> Tensor:
    return x + s * d.normal(0)


def _scatter(x: Tensor, s: float, d: Draw) -> Tensor:
    """A veil of what lies around; contrast falls to 1 / (1 + scatter-to-primary ratio)."""
    return (x + s * gaussian(x, d["width"] * x.shape[3])) / (1 + s)


def _gamma(x: Tensor, s: float, d: Draw) -> Tensor:
    return x.clamp(0, 1) ** torch.exp(s * d["direction"].sign())


def _collimation(x: Tensor, s: float, d: Draw) -> Tensor:
    v, u = positions(x)
    inside = (u > s * d["left"]) & (u < 1 - s * (1 - d["left"])) & (v > s * d["top"]) & (v < 1 - s * (1 - d["top"]))
    return x * inside


def _grid_lines(x: Tensor, s: float, d: Draw) -> Tensor:
    column = torch.arange(x.shape[3], device=x.device, dtype=x.dtype)
    return x * (1 + s * torch.cos(2 * math.pi * (d["frequency"] * column + d["phase"])))


def _marker(x: Tensor, s: float, d: Draw) -> Tensor:
    """A lead letter, L or R, in one of the upper corners. A pixel takes the share of it that a dot covers, however small the image."""
    letters = torch.tensor([[[int(dot) for dot in row] for row in letter] for letter in _LETTERS], device=x.device, dtype=x.dtype)
    height, width = x.shape[2:]
    side = s / 7 * height  # of a dot, in pixels
    left = torch.where(d["side"] > 0, 0.97 * width - 5 * side, torch.full_like(d["side"], 0.03 * width))
    rows, columns = _covered(height, torch.full_like(left, 0.04 * height), side, 7), _covered(width, left, side, 5)
    cover = rows @ letters[(d["letter"] > 0).long().flatten()] @ columns.transpose(1, 2)
    return x + (0.97 - x) * cover[:, None]


def _covered(pixels: int, start: Tensor, side: float, dots: int) -> Tensor:
    """Which share of each pixel of a line lies in each of some dots of this side, one after the other: ``[n, pixels, dots]``."""
    pixel = torch.arange(pixels, device=start.device, dtype=start.dtype)[:, None]
    dot = start.reshape(-1, 1, 1) + side * torch.arange(dots, device=start.device, dtype=start.dtype)
    return (torch.minimum(pixel + 1, dot + side) - torch.maximum(pixel, dot)).clamp_min(0)


def _patch(x: Tensor, s: float, d: Draw) -> Tensor:
    """As much light as a marker's letter has, at its place, and no letter: a soft disc."""
    v, u = positions(x)
    width = s * 5 / 7 * x.shape[2] / x.shape[3]
    left = torch.where(d["side"] > 0, 0.97 - width, torch.full_like(d["side"], 0.03))
    upright, across = v - (0.04 + s / 2), (u - (left + width / 2)) * x.shape[3] / x.shape[2]
    light = [torch.exp(-((distance / (0.22 * s)) ** 2) / 2) for distance in (upright, across)]
    return x + (0.97 - x).clamp_min(0) * (light[0] * light[1])


def _device(x: Tensor, s: float, d: Draw) -> Tensor:
    """A saturated disc, as of a battery or a button."""
    v, u = positions(x)
    distance = torch.hypot((v - d["row"]) * x.shape[2], (u - d["column"]) * x.shape[3])
    cover = (s * x.shape[3] / 2 - distance + 0.5).clamp(0, 1)
    return x * (1 - cover) + cover


def _blur(x: Tensor, s: float, d: Draw) -> Tensor:
    return gaussian(x, s * x.shape[3])


def _defocus(x: Tensor, s: float, d: Draw) -> Tensor:
    """A disc of confusion: its transfer function is 2 J1(a) / a, a = 2 pi x radius x frequency."""

    def transfer(fy: Tensor, fx: Tensor) -> Tensor:
        a = 2 * math.pi * s * x.shape[3] * torch.hypot(fy, fx)
        return torch.where(a > 1e-4, 2 * torch.special.bessel_j1(a) / a.clamp_min(1e-4), 1.0)

    return filtered(x, transfer)


def _motion_blur(x: Tensor, s: float, d: Draw) -> Tensor:
    """The mean along a straight path."""
    length, cos, sin = s * x.shape[3], d["angle"].cos(), d["angle"].sin()
    return filtered(x, lambda fy, fx: torch.sinc(length * (fy * sin + fx * cos)))


def _jpeg(x: Tensor, s: float, d: Draw) -> Tensor:
    return jpeg(x.clamp(0, 1), 100 - s)


def _contrast(x: Tensor, s: float, d: Draw) -> Tensor:
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * (1 - s)


def _brightness(x: Tensor, s: float, d: Draw) -> Tensor:
    return x + s * d["direction"].sign()


def _rotation(x: Tensor, s: float, d: Draw) -> Tensor:
    return turned(x, math.radians(s) * d["direction"].sign())


def _ct_noise(x: Tensor, s: float, d: Draw) -> Tensor:
    """Noise as filtered back-projection colours it: its power grows with the frequency up to the kernel's end."""
    return x + s * coloured_noise(d.normal(0), lambda fy, fx: torch.hypot(fy, fx).sqrt() * torch.exp(-((fy**2 + fx**2) / 0.3**2)))


def _streaks(x: Tensor, s: float, d: Draw) -> Tensor:
    """Photon starvation along the rows, where the row is dense."""
    along = coloured_noise(d.normal(0), lambda fy, fx: torch.exp(-((fx * 0.25 * x.shape[3]) ** 2)))
    dense = x.mean(dim=3, keepdim=True) / x.mean(dim=(2, 3), keepdim=True).clamp_min(1e-3)
    return x + s * along * dense


def _sharp_kernel(x: Tensor, s: float, d: Draw) -> Tensor:
    return x + s * (x - separable(x, lambda f: torch.exp(-((f / 0.15) ** 2))))


def _slice_thickness(x: Tensor, s: float, d: Draw) -> Tensor:
    """The mean over a thicker slice, whose axis lies upright in the image, as in coronal and sagittal planes."""
    return filtered_along(x, lambda f: torch.sinc(s * x.shape[3] * f), 2)


def _window(x: Tensor, s: float, d: Draw) -> Tensor:
    """A display window that is narrower by a share, at one end of the one before."""
    low = torch.where(d["direction"] > 0, s, 0.0)
    return (x - low) / (1 - s)


def _rician_noise(x: Tensor, s: float, d: Draw) -> Tensor:
    """Magnitude of a complex signal with Gaussian noise in both parts (Gudbjartsson & Patz 1995)."""
    return torch.hypot(x + s * d.normal(0), s * d.normal(1))


def _bias_field(x: Tensor, s: float, d: Draw) -> Tensor:
    """Multiplied by the exponential of a quadratic of the position, whose largest magnitude is the strength."""
    v, u = (2 * place - 1 for place in positions(x))
    exponent = d["a"] * u + d["b"] * v + d["c"] * u * v + d["d"] * (u**2 - 1 / 3) + d["e"] * (v**2 - 1 / 3)
    return x * torch.exp(s * exponent / exponent.abs().amax(dim=(2, 3), keepdim=True).clamp_min(1e-6))


def _gibbs_ringing(x: Tensor, s: float, d: Draw) -> Tensor:
    limit = 0.5 * (1 - s) + 1e-6
    return separable(x, lambda f: (f <= limit).to(x.dtype))


def _kspace_spike(x: Tensor, s: float, d: Draw) -> Tensor:
    row = torch.arange(x.shape[2], device=x.device, dtype=x.dtype)[:, None]
    column = torch.arange(x.shape[3], device=x.device, dtype=x.dtype)[None, :]
    path = row * d["angle"].sin() + column * d["angle"].cos()
    return x + s * torch.cos(2 * math.pi * (d["radius"] * path + d["phase"]))


def _motion_ghosts(x: Tensor, s: float, d: Draw) -> Tensor:
    """Periodic motion modulates k-space along the phase encoding, which repeats the image above and below (Wood & Henkelman 1985)."""
    distance = d["distance"] * x.shape[2]
    return filtered_along(x, lambda f: 1 + s * torch.cos(2 * math.pi * f * distance), 2, wrap=True).abs()


def _speckle(x: Tensor, s: float, d: Draw) -> Tensor:
    """Fully developed speckle: an amplitude of Rayleigh's distribution (Wagner et al. 1983), mixed in by a share."""
    sigma = d["grain"] * x.shape[3]
    parts = [coloured_noise(d.normal(k), lambda fy, fx: torch.exp(-2 * (math.pi * sigma) ** 2 * (fy**2 + fx**2))) for k in (0, 1)]
    return x * (1 - s + s * math.sqrt(2 / math.pi) * torch.hypot(*parts))


def _gain(x: Tensor, s: float, d: Draw) -> Tensor:
    """A time-gain curve that is wrong with the depth."""
    v, _ = positions(x)
    return x * torch.exp(s * d["direction"].sign() * (2 * v - 1))


def _shadow(x: Tensor, s: float, d: Draw) -> Tensor:
    """Behind something that lets no sound through."""
    v, u = positions(x)
    across = torch.sigmoid((d["width"] / 2 - (u - d["column"]).abs()) * 60)
    return x * (1 - s * across * torch.sigmoid((v - d["depth"]) * 60))


def _stain(x: Tensor, s: float, d: Draw) -> Tensor:
    return restained(x, torch.exp(s * d["haematoxylin"]), torch.exp(s * d["eosin"]))


def _illumination(x: Tensor, s: float, d: Draw) -> Tensor:
    v, u = positions(x)
    return x * (1 - s * ((v - d["row"]) ** 2 + (u - d["column"]) ** 2))


def _tint(x: Tensor, s: float, d: Draw) -> Tensor:
    return x * torch.exp(s * torch.cat([d["red"], d["green"], d["blue"]], dim=1))


def _same(name: str) -> tuple[float, ...]:
    return CORRUPTIONS[name].strengths


_EITHER = {"direction": (-1.0, 1.0)}
_PLACE = {"row": (0.25, 0.75), "column": (0.25, 0.75)}
_SOUND = frozenset({"US", "OPT"})
_OPTICAL = PHOTOGRAPH | MICROSCOPE
SHIFTS: dict[str, Shift] = {
    "blur": Shift(_blur, _same("gaussian_blur"), "standard deviation, share of the width"),
    "noise": Shift(_gaussian_noise, _same("gaussian_noise"), "standard deviation, share of white"),
    "motion_blur": Shift(_motion_blur, _same("motion_blur"), "path, share of the width", ranges={"angle": (0, math.pi)}),
    "contrast": Shift(_contrast, _same("contrast_down"), "share of the contrast that is lost"),
    "brightness": Shift(_brightness, _same("brightness_up"), "share of white, up or down", ranges=_EITHER),
    "gamma": Shift(_gamma, _same("gamma"), "logarithm of the exponent, up or down", ranges=_EITHER),
    "rotation": Shift(_rotation, _same("rotation"), "degrees, to either side", ranges=_EITHER),
    "jpeg": Shift(_jpeg, _same("jpeg"), "100 - quality"),
    "quantum_noise": Shift(_quantum_noise, _same("quantum_noise"), "relative noise of white, 1 / sqrt(photons)", RADIOGRAPH),
    "scatter": Shift(_scatter, (0.3, 0.6, 1.0, 1.6, 2.5), "scatter-to-primary ratio", RADIOGRAPH, {"width": (0.05, 0.15)}),
    "collimation": Shift(
        _collimation, (0.08, 0.15, 0.22, 0.30, 0.40), "share of each side that is covered", RADIOGRAPH, {"left": (0, 1), "top": (0, 1)}
    ),
    "grid_lines": Shift(
        _grid_lines, (0.03, 0.06, 0.10, 0.16, 0.25), "modulation", RADIOGRAPH, {"frequency": (0.15, 0.45), "phase": (0, 1)}
    ),
    "marker": Shift(
        _marker, (0.06, 0.09, 0.12, 0.16, 0.20), "height of the letter, share of the height", RADIOGRAPH,
        {"side": (-1, 1), "letter": (-1, 1)},
    ),
    "patch": Shift(
        _patch, (0.06, 0.09, 0.12, 0.16, 0.20), "height of the letter whose light it has, share of the height", RADIOGRAPH,
        {"side": (-1, 1), "letter": (-1, 1)}, beside="marker",
    ),
    "device": Shift(_device, _same("metal_object"), "diameter, share of the width", RADIOGRAPH | {"CT"}, _PLACE),
    "ct_noise": Shift(_ct_noise, _same("gaussian_noise"), "standard deviation, share of the window", frozenset({"CT"})),
    "streaks": Shift(_streaks, (0.03, 0.06, 0.10, 0.15, 0.22), "standard deviation, share of the window", frozenset({"CT"})),
    "sharp_kernel": Shift(_sharp_kernel, (0.5, 1.0, 1.6, 2.4, 3.5), "gain of the highest frequencies, beyond 1", frozenset({"CT"})),
    "slice_thickness": Shift(
        _slice_thickness, (0.02, 0.04, 0.07, 0.11, 0.16), "thickness, share of the width", frozenset({"CT", "MR"})
    ),
    "window": Shift(_window, (0.10, 0.20, 0.30, 0.42, 0.55), "share of the window that is lost", frozenset({"CT"}), _EITHER),
    "rician_noise": Shift(_rician_noise, _same("rician_noise"), "standard deviation, share of white", frozenset({"MR"})),
    "bias_field": Shift(
        _bias_field, _same("bias_field"), "largest logarithm of the field", frozenset({"MR"}), {name: (-1, 1) for name in "abcde"}
    ),
    "gibbs_ringing": Shift(_gibbs_ringing, _same("gibbs_ringing"), "share of k-space that is cut off", frozenset({"MR"})),
    "kspace_spike": Shift(
        _kspace_spike, _same("kspace_spike"), "amplitude, share of white", frozenset({"MR"}),
        {"radius": (0.08, 0.4), "angle": (0, math.pi), "phase": (0, 1)},
    ),
    "motion_ghosts": Shift(
        _motion_ghosts, (0.10, 0.20, 0.32, 0.48, 0.70), "intensity of the ghosts", frozenset({"MR"}), {"distance": (0.1, 0.4)}
    ),
    "speckle": Shift(_speckle, (0.15, 0.30, 0.45, 0.65, 0.90), "share of speckle", _SOUND, {"grain": (0.004, 0.012)}),
    "gain": Shift(_gain, (0.20, 0.40, 0.65, 0.95, 1.30), "logarithm of the gain at either end", _SOUND, _EITHER),
    "shadow": Shift(
        _shadow, (0.30, 0.50, 0.70, 0.85, 0.95), "share of the echoes that is lost", _SOUND,
        {"column": (0.25, 0.75), "depth": (0.2, 0.5), "width": (0.15, 0.35)},
    ),
    "stain": Shift(
        _stain, (0.15, 0.30, 0.45, 0.65, 0.90), "logarithm of the stains' change", MICROSCOPE,
        {"haematoxylin": (-1, 1), "eosin": (-1, 1)}, colour=True,
    ),
    "defocus": Shift(_defocus, (0.010, 0.018, 0.028, 0.042, 0.060), "radius of the disc, share of the width", _OPTICAL),
    "illumination": Shift(_illumination, (0.3, 0.6, 0.9, 1.3, 1.8), "loss at a distance of one side", _OPTICAL, _PLACE),
    "tint": Shift(
        _tint, (0.08, 0.15, 0.24, 0.35, 0.50), "logarithm of the channels' gain", _OPTICAL,
        {name: (-1, 1) for name in ("red", "green", "blue")}, colour=True,
    ),
}  # fmt: skip


def fitting(modality: str, channels: int) -> tuple[str, ...]:
    """Names of the shifts that fit a modality (DICOM's code, or empty where it is not known) and a number of channels."""
    return tuple(
        name for name, one in SHIFTS.items() if (not one.modalities or modality in one.modalities) and (channels == 3 or not one.colour)
    )


def drawn(name: str, seeds: Sequence[int]) -> NDArray[np.float32]:
    """What is drawn of a shift's ``ranges`` for images with these seeds (0 <= seed < 2**63), ``float32 [n, parameters]``, in their order.

    An image's are a function of its seed and the shift's name alone, or the name of the one that it stands beside.
    """
    one = SHIFTS[name]
    if not one.ranges:
        return np.zeros((len(seeds), 0), np.float32)
    ranges = np.array(list(one.ranges.values()), np.float64).reshape(-1, 2)
    shares = np.array([np.random.default_rng([seed, zlib.crc32((one.beside or name).encode())]).random(len(ranges)) for seed in seeds])
    return (ranges[:, 0] + shares.reshape(len(seeds), -1) * (ranges[:, 1] - ranges[:, 0])).astype(np.float32)


def shift(images: Tensor, name: str, severity: int, draw: Draw) -> Tensor:
    """Apply one shift: float32 ``[n, C, H, W]`` in 0..1 to the same, clipped to that range.

    Raises:
        ValueError: no such shift or severity, or channels that it does not take.
    """
    if name not in SHIFTS:
        raise ValueError(f"no shift {name!r}: one of {', '.join(SHIFTS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r}: an integer from 1 to 5")
    one = SHIFTS[name]
    if one.colour and images.shape[1] != 3:
        raise ValueError(f"{name} changes colours, and these images have {images.shape[1]} channels")
    return one.function(images, one.strengths[severity - 1], draw).clamp(0, 1)
