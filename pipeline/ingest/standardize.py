"""From pixel values of any size and unit to square 8- or 16-bit images, without distortion, and with what leads back.

A value v of the result means ``low + v / top * (high - low)`` in the source's units, top being 255 or 65535, and its pixels are square.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.ingest.intensity import Scaling
from pipeline.ingest.readers.reading import Unusable

if TYPE_CHECKING:
    from pipeline.ingest.readers.reading import Reading

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Target:
    """What every image becomes.

    Attributes:
        size: side of the square or cube; 0 leaves an image its own size and channels.
        channels: 1 (colour becomes luminance) or 3 (grey is repeated).
        bits: 8 or 16.
        spacing: mm between pixels; None lets the longer physical side fill the square.
        scaling: for a modality, the display range: that of its header (by default), the percentiles of its own values, or a fixed window in
            the modality's units.
    """

    size: int
    channels: int = 1
    bits: int = 8
    spacing: float | None = None
    scaling: Mapping[str, Scaling] = field(default_factory=dict)

    @property
    def top(self) -> int:
        """The value of white."""
        return int((1 << self.bits) - 1)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of the images."""
        return np.uint8 if self.bits == 8 else np.uint16


def coloured(pixels: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """``[C, ...]`` with the wanted number of channels: colour becomes luminance (ITU-R BT.601), grey is repeated."""
    if len(pixels) == channels:
        return pixels
    if channels == 1:
        return np.asarray(np.tensordot(_LUMINANCE, pixels, 1), np.float32)[None]
    return np.repeat(pixels, channels, axis=0)


def standardize(
    pixels: NDArray[np.float32],
    low: float,
    high: float,
    target: Target,
    aspect: float = 1.0,
    height_mm: float | None = None,
    overwrite: bool = False,
) -> tuple[NDArray[Any], float]:
    """Window, resize and letterbox one image.

    Values are clipped to the window before the resize, so that saturated regions (markers, air) weigh no more than they do on a display.
    Reductions average over the exact area that a new pixel covers, which damps aliases and cannot ring; enlargements are bilinear. What the
    image does not fill is black, and so is padding (NaN).

    Args:
        pixels: ``[C, H, W]`` in any unit.
        low: the value that becomes 0; above ``high`` for an image that is displayed inverted.
        high: the value that becomes white.
        target: size, channels and bits of the result.
        aspect: height of a pixel over its width.
        height_mm: height of a pixel, where ``target.spacing`` is to be met.
        overwrite: whether ``pixels`` may be written over: large arrays cost their pages.

    Returns:
        The image ``[channels, size, size]``, and the number of source rows in one row of it.

    Raises:
        ValueError: ``low`` equals ``high``.
        Unusable: ``target.spacing`` cannot be met.
    """
    if low == high:
        raise ValueError("the window is empty")
    if not target.size:
        return np.rint(displayed(pixels, low, high, target.top)).astype(target.dtype), 1.0
    size, (height, width) = target.size, pixels.shape[1:]
    longest = max(height * aspect, width)
    scale = size / longest
    if target.spacing is not None:
        if height_mm is None:
            raise Unusable("its pixel spacing is not known, and ingest.spacing asks for millimetres: leave ingest.spacing out")
        scale = height_mm / aspect / target.spacing
        if round(scale * longest) > size:
            raise Unusable("larger than ingest.size pixels of ingest.spacing mm: raise one of them")
    rows, columns = min(size, max(1, round(height * aspect * scale))), min(size, max(1, round(width * scale)))
    image = np.zeros((target.channels, size, size), target.dtype)
    top, left = (size - rows) // 2, (size - columns) // 2
    for plane, result in zip(coloured(pixels, target.channels), image):
        shown = clipped(plane, low, high, plane if overwrite else None)
        small = resize(shown, rows, columns)
        if np.isnan(small.min()):  # looked for here, where there are few values: it shows wherever it was averaged in
            small = resize(np.nan_to_num(shown, copy=False, nan=low), rows, columns)
        result[top : top + rows, left : left + columns] = np.clip(np.rint(above(small, low, high, target.top)), 0, target.top)
    return image, height / rows


def displayed(pixels: NDArray[np.float32], low: float, high: float, top: int) -> NDArray[np.float32]:
    """Values from ``low`` to ``high`` as 0 to ``top``; those beside them are clipped, NaN is 0."""
    return above(np.nan_to_num(clipped(pixels, low, high), copy=False, nan=low), low, high, top)


def clipped(pixels: NDArray[np.float32], low: float, high: float, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The values, kept between ``low`` and ``high``, whichever is greater, in ``out`` where it is given; NaN stays."""
    return np.clip(pixels, np.float32(min(low, high)), np.float32(max(low, high)), out=out)


def above(values: NDArray[np.float32], low: float, high: float, top: int) -> NDArray[np.float32]:
    """How far the values lie from ``low`` towards ``high``, as 0 to ``top``; in place."""
    values -= np.float32(low)
    values *= np.float32(top / (high - low))
    return values


def resize(image: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """``[H, W]`` to ``[rows, columns]``: the mean over exactly the covered area along a shrinking axis, bilinear along a growing one.

    (Pillow's BOX weighs every pixel that it touches alike, which distorts at ratios near one.)
    """
    height, width = image.shape
    small = shrink(shrink(image, min(rows, height)), min(columns, width), axis=1)
    if small.shape == (rows, columns):
        return small
    return np.array(Image.fromarray(np.ascontiguousarray(small)).resize((columns, rows), Image.Resampling.BILINEAR), np.float32)


def shrink(values: NDArray[np.float32], length: int, axis: int = 0) -> NDArray[np.float32]:
    """``values`` with one axis, of length n, brought to ``length``, at most n: the mean over exactly what each new entry covers of it."""
    moved = np.moveaxis(values, axis, 0)
    many, rest = divmod(len(moved), length)
    if rest:
        total = _shrink_unevenly(np.ascontiguousarray(moved), length)
    else:
        if axis == 0:
            total = values.reshape(length, many, *values.shape[1:]).sum(axis=1)
        else:  # numpy is slow in sums of a few neighbours
            total = moved[::many].copy(order="K")
            for start in range(1, many):
                total += moved[start::many]
        total *= np.float32(1 / many)
    return np.moveaxis(total, 0, axis)


def _shrink_unevenly(values: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """``[n, ...]`` to ``[length, ...]``, where new entries share old ones."""
    places, weights = _covered(len(values), length)
    total = np.zeros((length, *values.shape[1:]), np.float32)
    part = np.empty_like(total)
    for place, weight in zip(places, weights):
        np.take(values, place, axis=0, out=part, mode="clip")  # the mode that needs no copy of its own
        part *= weight.reshape(-1, *[1] * (values.ndim - 1))
        total += part
    return total


@functools.lru_cache(maxsize=64)
def _covered(before: int, after: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The old places that each new one touches, first to last, and their shares of it: both ``[most touched, after]``."""
    edges = np.linspace(0, before, after + 1)
    first, last = np.floor(edges[:-1]).astype(np.intp), np.ceil(edges[1:]).astype(np.intp)
    places = first + np.arange((last - first).max())[:, None]
    overlap = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    return np.minimum(places, before - 1), np.asarray(np.clip(overlap, 0, None) * after / before, np.float32)


def fit(images: NDArray[Any], size: int) -> NDArray[Any]:
    """Square or cubic ready-made images ``[n, C, (side,) side, side]`` to ``size``, in their own type.

    Images that are too small are padded, centred, by repeating their border (28 becomes 32): every pixel stays as published, a centred crop
    gives the original back, and no artificial frame appears, as black padding makes around bright images. Larger ones are averaged over the
    area, or volume, of each new pixel.
    """
    side, axes = images.shape[-1], images.ndim - 2
    if side <= size:
        before = (size - side) // 2
        after = size - side - before
        return np.pad(images, ((0, 0), (0, 0), *[(before, after)] * axes), mode="edge")
    fitted = np.empty((*images.shape[:2], *[size] * axes), images.dtype)
    for image, result in zip(images.reshape(-1, *images.shape[2:]), fitted.reshape(-1, *fitted.shape[2:])):
        small = image.astype(np.float32)
        if axes == 3:
            result[:] = np.rint(np.stack([resize(plane, size, size) for plane in shrink(small, size)]))
        else:
            result[:] = np.rint(resize(small, size, size))
    return fitted


def standardize_volume(reading: Reading, low: float, high: float, target: Target) -> tuple[NDArray[Any], float, NDArray[np.float64]]:
    """Window a volume and resample it into a cube whose axes are the patient's: up (D), to the front (H), to the right (W).

    The cube shares its centre with the volume's bounding box; its voxels are cubes of ``target.spacing`` mm, or as large as the longest
    side needs. Values are interpolated linearly after a Gaussian that damps what the new voxels cannot hold (Cardoso et al. 2015, "Scale
    factor point spread function matching", MICCAI). What lies outside the volume is black.

    Returns:
        The image ``[channels, size, size, size]``, mm between its voxels, and its affine from ``(D, H, W, 1)`` to RAS+ mm.

    Raises:
        ValueError: ``low`` equals ``high``.
        Unusable: the position is not known or ``target.spacing`` cannot be met.
    """
    from scipy.ndimage import gaussian_filter1d

    if low == high:
        raise ValueError("the window is empty")
    if reading.affine is None or abs(np.linalg.det(reading.affine[:3, :3])) < 1e-9:
        raise Unusable("the place of its voxels in the patient is not known or not possible: mend its affine")
    affine, spacing = _grid(reading.affine, reading.pixels.shape[1:], target)
    shown = displayed(coloured(reading.pixels, target.channels), low, high, target.top)
    ratios = spacing / np.linalg.norm(reading.affine[:3, :3], axis=0)
    for axis, ratio in enumerate(ratios, 1):
        if ratio > 1 and shown.shape[axis] > 1:
            shown = gaussian_filter1d(shown, np.sqrt((ratio**2 - 1) / (8 * np.log(2))), axis=axis, mode="nearest")
    return _sampled(shown, np.linalg.inv(reading.affine) @ affine, target), spacing, affine


def _grid(affine: NDArray[np.float64], shape: tuple[int, ...], target: Target) -> tuple[NDArray[np.float64], float]:
    """Affine of the cube around a volume, and its spacing."""
    ends = np.array(np.meshgrid(*[(-0.5, length - 0.5) for length in shape])).reshape(3, -1)
    corners = affine[:3, :3] @ ends + affine[:3, 3:]
    lowest, highest = corners.min(axis=1), corners.max(axis=1)
    longest = float((highest - lowest).max())
    spacing = target.spacing or longest / target.size
    if round(longest / spacing) > target.size:
        raise Unusable("larger than ingest.size voxels of ingest.spacing mm: raise one of them")
    cube = np.zeros((4, 4))
    cube[[2, 1, 0], [0, 1, 2]] = spacing
    cube[:3, 3] = (lowest + highest) / 2 - spacing * (target.size - 1) / 2
    cube[3, 3] = 1
    return cube, spacing


def _sampled(pixels: NDArray[np.float32], matrix: NDArray[np.float64], target: Target) -> NDArray[Any]:
    """``pixels`` at ``matrix`` times each voxel of the cube, 0 outside, plane by plane."""
    from scipy.ndimage import map_coordinates

    size = target.size
    image = np.zeros((len(pixels), size, size, size), target.dtype)
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    limits = np.array(pixels.shape[1:]).reshape(3, 1, 1) - 0.5
    for plane in range(size):
        at = np.tensordot(matrix[:3, :3], np.stack([np.full_like(rows, plane), rows, columns]), 1) + matrix[:3, 3].reshape(3, 1, 1)
        inside = ((at >= -0.5 - 1e-6) & (at <= limits + 1e-6)).all(axis=0)
        if inside.any():
            for channel, result in zip(pixels, image):
                values = map_coordinates(channel, at[:, inside], order=1, mode="nearest", output=np.float32)
                result[plane][inside] = np.clip(np.rint(values), 0, target.top)
    return image
