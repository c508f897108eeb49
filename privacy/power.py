"""Planted copies: what a memorised image may look like, so that the search's power is measured before any verdict."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Images = NDArray[np.uint8]
Transform = Callable[[Images, np.random.Generator], Images]


def identity(image: Images, rng: np.random.Generator) -> Images:
    """The image as it is."""
    return image


def flip(image: Images, rng: np.random.Generator) -> Images:
    """Mirrored left to right."""
    return image[:, :, ::-1]


def rot90(image: Images, rng: np.random.Generator) -> Images:
    """Turned by a quarter or half turn."""
    return np.rot90(image, int(rng.integers(1, 4)), axes=(1, 2))


def shift(image: Images, rng: np.random.Generator) -> Images:
    """Moved by up to 10 % of the side in both directions, edges repeated."""
    reach = max(1, round(0.1 * image.shape[-1]))
    moves = rng.integers(-reach, reach + 1, size=2)
    return _warp(image, np.eye(2), moves.astype(float))


def crop(image: Images, rng: np.random.Generator) -> Images:
    """A window of 90–97 % of the side anywhere in the image, enlarged to full size."""
    zoom = rng.uniform(0.90, 0.97)
    room = (1 - zoom) * image.shape[-1] / 2
    return _warp(image, zoom * np.eye(2), rng.uniform(-room, room, size=2))


def rotate(image: Images, rng: np.random.Generator) -> Images:
    """Turned by up to 15 degrees."""
    angle = np.deg2rad(rng.uniform(-15, 15))
    return _warp(image, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), np.zeros(2))


def intensity(image: Images, rng: np.random.Generator) -> Images:
    """Rescaled: contrast ± 20 % about the mean, brightness ± 10 % of the range."""
    value = image.astype(np.float64)
    return _to_uint8((value - value.mean()) * rng.uniform(0.8, 1.2) + value.mean() + rng.uniform(-25.5, 25.5))


def gamma(image: Images, rng: np.random.Generator) -> Images:
    """Gamma between 0.8 and 1.25."""
    return _to_uint8(255 * (image / 255) ** np.exp(rng.uniform(np.log(0.8), np.log(1.25))))


def noise_weak(image: Images, rng: np.random.Generator) -> Images:
    """Gaussian noise with a standard deviation of 5 % of the range."""
    return _to_uint8(image + 0.05 * 255 * rng.standard_normal(image.shape))


def noise_strong(image: Images, rng: np.random.Generator) -> Images:
    """Gaussian noise with a standard deviation of 10 % of the range."""
    return _to_uint8(image + 0.10 * 255 * rng.standard_normal(image.shape))


def blur(image: Images, rng: np.random.Generator) -> Images:
    """Gaussian blur of 1–2 % of the side: an image recalled without its finest detail."""
    width = rng.uniform(0.01, 0.02) * image.shape[-1]
    return _to_uint8(ndimage.gaussian_filter(image.astype(np.float64), (0, width, width), mode="nearest"))


def jpeg_50(image: Images, rng: np.random.Generator) -> Images:
    """JPEG at quality 50."""
    return _jpeg(image, 50)


def jpeg_15(image: Images, rng: np.random.Generator) -> Images:
    """JPEG at quality 15."""
    return _jpeg(image, 15)


def flip_shift(image: Images, rng: np.random.Generator) -> Images:
    """Mirrored and moved."""
    return shift(flip(image, rng), rng)


def flip_intensity(image: Images, rng: np.random.Generator) -> Images:
    """Mirrored and rescaled in intensity."""
    return intensity(flip(image, rng), rng)


def crop_noise(image: Images, rng: np.random.Generator) -> Images:
    """Cropped, with 5 % noise."""
    return noise_weak(crop(image, rng), rng)


CORE: tuple[Transform, ...] = (identity, flip, shift, intensity, blur)
"""The copies that a verdict rests on: what published memorisation looks like in images generated under mild augmentation."""

FURTHER: tuple[Transform, ...] = (
    rot90,
    crop,
    rotate,
    gamma,
    noise_weak,
    noise_strong,
    jpeg_50,
    jpeg_15,
    flip_shift,
    flip_intensity,
    crop_noise,
)
"""Copies whose recall is measured and reported beside, and bounds no verdict."""


def plant(images: Images, transform: Transform, count: int, rng: np.random.Generator) -> tuple[Images, NDArray[np.int64]]:
    """``count`` transformed copies of distinct images (as many as there are, where fewer).

    Returns:
        Copies ``uint8 [count, C, H, W]`` and which image each was made from.
    """
    chosen = rng.permutation(len(images))[:count]
    copies = [np.ascontiguousarray(transform(np.asarray(images[index]), rng)) for index in chosen]
    return np.stack(copies).astype(np.uint8), chosen


def _warp(image: Images, matrix: NDArray[np.float64], shift_: NDArray[np.float64]) -> Images:
    centre = (np.array(image.shape[1:]) - 1) / 2
    offset = centre - matrix @ centre + shift_
    planes = [ndimage.affine_transform(plane.astype(np.float64), matrix, offset, order=1, mode="nearest") for plane in image]
    return _to_uint8(np.stack(planes))


def _jpeg(image: Images, quality: int) -> Images:
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(buffer))
    return decoded[None] if len(image) == 1 else decoded.transpose(2, 0, 1)


def _to_uint8(value: NDArray[np.float64]) -> Images:
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)
