"""Planted copies: what a memorised image may look like, so that the search's power is measured before any verdict."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Images = NDArray[np.uint8]
Transform = Callable[[Images, np.random.Generator], Images]
Mixture = Callable[[Images, Images, np.random.Generator], Images]
"""Of an image and another one."""


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
    return turned(image, rng.uniform(-15, 15))


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
    return _blurred(image, width)


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


def blur_1px(image: Images, rng: np.random.Generator) -> Images:
    """Gaussian blur with a standard deviation of one pixel."""
    return _blurred(image, 1.0)


def down_up(image: Images, rng: np.random.Generator) -> Images:
    """Halved in size by means of 2 × 2 pixels, and enlarged again, linearly."""
    small = _halved(image)
    rows, columns = (np.clip((np.arange(side) - 0.5) / 2, 0, half - 1) for side, half in zip(image.shape[1:], small.shape[1:]))
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    return _to_uint8(np.stack([ndimage.map_coordinates(plane, grid, order=1, mode="nearest") for plane in small]))


def sharpened(image: Images, rng: np.random.Generator) -> Images:
    """Unsharp mask: the image plus its difference from a blur of one pixel."""
    value = image.astype(np.float64)
    return _to_uint8(2 * value - ndimage.gaussian_filter(value, (0, 1, 1), mode="nearest"))


def elastic(image: Images, rng: np.random.Generator) -> Images:
    """Every point moved by a smooth random field of up to 4 % of the side."""
    return _elastic(image, 0.04, rng)


def bias_field(image: Images, rng: np.random.Generator) -> Images:
    """Multiplied by a smooth random field between 0.7 and 1.4."""
    return _to_uint8(image * np.exp(np.log(1.4) * _smooth_field(image.shape[1:], rng)))


def clahe(image: Images, rng: np.random.Generator) -> Images:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994): 4 × 4 tiles, clip limit 3."""
    return np.stack([_equalised(plane, 4, 3.0) for plane in image])


def occlusion(image: Images, rng: np.random.Generator) -> Images:
    """A rectangle of a quarter of the area, anywhere, in one random grey."""
    height, width = image.shape[1:]
    ratio = np.exp(rng.uniform(-0.5, 0.5))
    tall, wide = min(height, round(height * ratio / 2)), min(width, round(width / ratio / 2))
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    covered = image.copy()
    covered[:, top : top + tall, left : left + wide] = rng.integers(0, 256)
    return covered


def inversion(image: Images, rng: np.random.Generator) -> Images:
    """Black for white."""
    return 255 - image


def zoom_80(image: Images, rng: np.random.Generator) -> Images:
    """The central 80 % of the side, enlarged to full size."""
    return _warp(image, 0.8 * np.eye(2), np.zeros(2))


def turn_25(image: Images, rng: np.random.Generator) -> Images:
    """Turned by 25 degrees either way."""
    return turned(image, 25.0 * rng.choice((-1, 1)))


def shrunk(image: Images, rng: np.random.Generator) -> Images:
    """At half its side, anywhere on black."""
    small, made = _to_uint8(_halved(image)), np.zeros_like(image)
    tall, wide = small.shape[1:]
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(image.shape[1:], (tall, wide)))
    made[:, top : top + tall, left : left + wide] = small
    return made


def few_greys(image: Images, rng: np.random.Generator) -> Images:
    """Of four greys, black and white among them, each value the nearest."""
    return _to_uint8(85 * np.rint(image / 85))


def recoloured(image: Images, rng: np.random.Generator) -> Images:
    """In other colours: hue (of an image of three channels) turned by an angle of 30 to 330 degrees."""
    hue, *others = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).convert("HSV").split()
    turn = int(rng.integers(22, 235))  # of 256
    turned_hue = Image.fromarray(np.asarray(hue) + np.uint8(turn))
    return np.asarray(Image.merge("HSV", (turned_hue, *others)).convert("RGB")).transpose(2, 0, 1)


def blend(image: Images, other: Images, rng: np.random.Generator) -> Images:
    """0.7 of the image and 0.3 of another."""
    return _to_uint8(0.7 * image + 0.3 * other.astype(np.float64))


def splice(image: Images, other: Images, rng: np.random.Generator) -> Images:
    """One half of the image (left, right, upper or lower), the other half of another."""
    axis, first = int(rng.integers(1, 3)), bool(rng.integers(2))
    half = np.arange(image.shape[axis]) < image.shape[axis] // 2
    return np.where((half == first)[:, None] if axis == 1 else half == first, image, other)


CORE: tuple[Transform, ...] = (identity, flip, shift, intensity, blur)
"""Near-identical copies: what published memorisation looks like in images generated under mild augmentation."""

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
    blur_1px,
    down_up,
    sharpened,
    elastic,
    bias_field,
    clahe,
    occlusion,
    inversion,
    zoom_80,
    turn_25,
    shrunk,
    few_greys,
)
"""Copies that are altered further."""

COLOURED: tuple[Transform, ...] = (recoloured,)
"""Copies of images in colour that are altered in nothing else."""

MIXED: tuple[Mixture, ...] = (blend, splice)
"""Copies that hold part of a second image."""


def any_noise(image: Images, rng: np.random.Generator) -> Images:
    """Gaussian noise with a standard deviation of 1–10 % of the range."""
    return _to_uint8(image + rng.uniform(0.01, 0.1) * 255 * rng.standard_normal(image.shape))


def any_blur(image: Images, rng: np.random.Generator) -> Images:
    """Gaussian blur with a standard deviation of half a pixel to one and a half."""
    return _blurred(image, rng.uniform(0.5, 1.5))


def any_jpeg(image: Images, rng: np.random.Generator) -> Images:
    """JPEG at a quality of 10 to 60."""
    return _jpeg(image, int(rng.integers(10, 61)))


def any_elastic(image: Images, rng: np.random.Generator) -> Images:
    """Every point moved by a smooth random field of up to 1–4 % of the side."""
    return _elastic(image, rng.uniform(0.01, 0.04), rng)


def any_blend(image: Images, other: Images, rng: np.random.Generator) -> Images:
    """0.6–0.9 of the image, the rest of another."""
    share = rng.uniform(0.6, 0.9)
    return _to_uint8(share * image + (1 - share) * other.astype(np.float64))


LEARNED: tuple[Transform | Mixture, ...] = (
    identity,
    flip_shift,
    crop,
    rotate,
    intensity,
    gamma,
    any_noise,
    any_blur,
    any_jpeg,
    any_elastic,
    bias_field,
    occlusion,
    any_blend,
)
"""What a score of copies is learned from (:mod:`privacy.copy_score`). Not among them, so that they show how it generalises: down_up,
sharpened, clahe, splice, inversion, zoom_80, turn_25, shrunk, few_greys, recoloured, and images made anew by a model."""

REGENERATED = (0.1, 0.25, 0.5, 1.0)
"""Noise levels, for images in −1..1, to which a model of the cohort takes a training image before it makes it anew."""

Kind = Transform | Mixture


def plant(images: Images, kind: Kind, count: int, rng: np.random.Generator) -> tuple[Images, NDArray[np.int64]]:
    """``count`` altered copies of distinct images (as many as there are, where fewer); a second image, where one is mixed in, is another.

    Returns:
        Copies ``uint8 [count, C, H, W]`` and which image each was made from.
    """
    chosen = rng.permutation(len(images))[:count]
    return np.stack([alter(images, int(index), kind, rng) for index in chosen]).astype(np.uint8), chosen


def alter(images: Images, index: int, kind: Kind, rng: np.random.Generator) -> Images:
    """A copy of ``images[index]`` of one kind."""
    image = np.asarray(images[index])
    if kind in (*MIXED, any_blend):
        other = (index + rng.integers(1, max(2, len(images)))) % len(images)
        return np.ascontiguousarray(kind(image, np.asarray(images[other]), rng))
    return np.ascontiguousarray(cast(Transform, kind)(image, rng))


def turned(image: Images, degrees: float) -> Images:
    """Turned about the centre, bilinearly, edges repeated."""
    angle = np.deg2rad(degrees)
    return _warp(image, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), np.zeros(2))


def _warp(image: Images, matrix: NDArray[np.float64], shift_: NDArray[np.float64]) -> Images:
    centre = (np.array(image.shape[1:]) - 1) / 2
    offset = centre - matrix @ centre + shift_
    planes = [ndimage.affine_transform(plane.astype(np.float64), matrix, offset, order=1, mode="nearest") for plane in image]
    return _to_uint8(np.stack(planes))


def _halved(image: Images) -> NDArray[np.float64]:
    """Means of 2 × 2 pixels, ``[C, H // 2, W // 2]``."""
    height, width = image.shape[1] // 2, image.shape[2] // 2
    return np.asarray(image[:, : 2 * height, : 2 * width].reshape(len(image), height, 2, width, 2).mean(axis=(2, 4), dtype=np.float64))


def _blurred(image: Images, sigma: float) -> Images:
    return _to_uint8(ndimage.gaussian_filter(image.astype(np.float64), (0, sigma, sigma), mode="nearest"))


def _smooth_field(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """A random field ``[H, W]`` whose features are a third of a side wide, scaled so that its largest absolute value is 1."""
    field = ndimage.gaussian_filter(rng.standard_normal([3 * side for side in shape]), [side / 6 for side in shape])
    field = field[tuple(slice(side, 2 * side) for side in shape)]
    return np.asarray(field / np.abs(field).max())


def _elastic(image: Images, reach: float, rng: np.random.Generator) -> Images:
    shape = image.shape[1:]
    place = np.stack(np.meshgrid(*(np.arange(side, dtype=np.float64) for side in shape), indexing="ij"))
    place += np.stack([reach * side * _smooth_field(shape, rng) for side in shape])
    return _to_uint8(np.stack([ndimage.map_coordinates(plane.astype(np.float64), place, order=1, mode="nearest") for plane in image]))


def _equalised(plane: NDArray[np.uint8], tiles: int, clip: float) -> NDArray[np.uint8]:
    """Each tile's clipped histogram is equalised, and a pixel takes the bilinear mean of the four tiles around it."""
    edges = [np.linspace(0, side, tiles + 1).round().astype(int) for side in plane.shape]
    curves = np.empty((tiles, tiles, 256))
    for row, column in np.ndindex(tiles, tiles):
        tile = plane[edges[0][row] : edges[0][row + 1], edges[1][column] : edges[1][column + 1]]
        counts = np.bincount(tile.ravel(), minlength=256).astype(np.float64)
        limit = max(1.0, clip * tile.size / 256)
        counts = np.minimum(counts, limit) + np.maximum(counts - limit, 0).sum() / 256
        curves[row, column] = 255 * counts.cumsum() / tile.size
    places = [np.clip((np.arange(side) + 0.5) * tiles / side - 0.5, 0, tiles - 1) for side in plane.shape]
    low = [np.minimum(place.astype(int), tiles - 2) for place in places]
    down, right = (place - start for place, start in zip(places, low))
    weights = np.stack([1 - down, down])[:, None, :, None] * np.stack([1 - right, right])[None, :, None, :]
    corners = [[curves[low[0][:, None] + i, low[1] + j, plane] for j in (0, 1)] for i in (0, 1)]
    return _to_uint8((weights * np.array(corners)).sum(axis=(0, 1)))


def _jpeg(image: Images, quality: int) -> Images:
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(buffer))
    return decoded[None] if len(image) == 1 else decoded.transpose(2, 0, 1)


def _to_uint8(value: NDArray[np.float64]) -> Images:
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)
