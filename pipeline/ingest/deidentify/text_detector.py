"""Where a picture has writing: a small convolutional network, and before it a cheaper one, the screen, that says where it is to look.

Both are fitted to drawn text (``tests/benchmarks/fit_text_detector.py``) and measured by ``tests/benchmarks/text_guard.py``. The screen
(:mod:`~pipeline.ingest.deidentify.text_screen`) sees all scales of a picture at once, at half their resolution; the detector sees the few
places that the screen leaves, at full resolution.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.deidentify.text_screen import FLOOR, Grey, kernel, screen, weights

STRIDE = 8
# Side of the blocks in which mean and contrast are evened out.
BLOCK = 8
# Deviations beyond which a pixel tells nothing more.
LIMIT = 6.0
# The networks see letters 8 to 26 px high; each halving of the image doubles that.
SCALES = 4
LEAST_SIDE = 24
# Length, at its scale, of three letters of a height that no finer scale sees: a smaller picture cannot hold them.
LEAST_LINE = 40
# The screen's logit for a cell of 16x16 pixels from which the detector looks there: of 180 lines of 10 and 12 px at contrasts of .2 and .4
# that misses 1 which -3 would find; 0 would miss 11.
LOOK = -1.0
CELL = 16
# Context that the detector is given around such places, in pixels.
MARGIN = 24
# Lines that are told apart in one such place.
LINES = 8
BAND = 32
# Pixels of a halving that are made together: a large picture takes a third less time where what lies between stays in the cache.
HALVED = 1 << 14

_HALVES = np.full(2, 0.5, np.float32)


@dataclass(frozen=True)
class Place:
    """A line of writing, or what looks like one.

    Attributes:
        score: how sure the detector is, a logit: that of the weakest of the three neighbouring cells that are surest together.
        box: ``(top, left, bottom, right)`` in the picture's pixels.
        scale: how many of the picture's pixels the detector saw as one: letters are 8 to 26 times as high.
        upright: whether the line lies in a row, not in a column: whether it is wider than high.
    """

    score: float
    box: tuple[int, int, int, int]
    scale: int
    upright: bool


def places(picture: Grey, least: float = -np.inf) -> list[Place]:
    """Where ``[H, W]``, in any unit, may have writing, the surest first, with scores of ``least`` and more.

    Lines of three letters or more are looked for, upright and turned, with letters of 8 px and higher, at every scale. NaN is padding.
    """
    levels, span = _levels(picture)
    found: list[Place] = []
    if len(levels) > 1 and span > 0:
        for number, looks in enumerate(screen(levels[1:], span)):
            for rows, columns in _windows(looks >= LOOK, levels[number].shape):
                found += _read(levels[number], span, rows, columns, 1 << number, least)
    return sorted(found, key=lambda place: -place.score)


def value_range(picture: Grey) -> float:
    """The range of a picture's values that contrasts are shares of: quantiles .005 to .995, and a tenth of all of it or more."""
    return _levels(picture)[1]


def _levels(picture: Grey) -> tuple[list[Grey], float]:
    """The picture and its halvings, down to where nothing is to be seen, and the range of its values."""
    half = _halved(picture)
    lowest, highest = (float(half.min()), float(half.max())) if half.size else (0.0, 0.0)
    if not np.isfinite(lowest + highest):  # padding
        known = np.isfinite(picture)
        picture = np.where(known, picture, picture[known].min() if known.any() else np.float32(0))
        half = _halved(picture)
        lowest, highest = float(half.min()), float(half.max())
    few = picture[:: max(1, len(picture) // 60), :: max(1, picture.shape[1] // 60)].ravel()
    stray = len(few) // 200
    few = np.partition(few, sorted({stray, len(few) // 2, len(few) - 1 - stray}))
    # Little text on an empty picture is less than the share that the quantiles leave out.
    span = max(float(few[-1 - stray] - few[stray]), 0.1 * (highest - lowest))
    half -= few[len(few) // 2]  # so that squares keep their digits
    levels = [picture]
    while len(levels) <= SCALES and min(levels[-1].shape) >= LEAST_SIDE and (len(levels) == 1 or max(levels[-1].shape) >= LEAST_LINE):
        levels.append(half if len(levels) == 1 else _halved(levels[-1]))
    return levels, span


def _halved(picture: Grey) -> Grey:
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    pairs, half = picture[: 2 * rows, : 2 * columns].reshape(rows, 2, 2 * columns), np.empty((rows, columns), np.float32)
    some = max(1, HALVED // max(1, columns))
    for start in range(0, rows, some):
        part = half[start : start + some]
        np.matmul((_HALVES[None] @ pairs[start : start + some]).reshape(-1, 2), _HALVES, out=part.reshape(-1))
    return half


def _windows(looks: NDArray[np.bool_], shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Rows and columns of pixels to look at, around connected cells, on the grid of :data:`BLOCK`; the whole where they are most of it."""
    if not looks.any():
        return []
    if looks.mean() > 0.4:
        return [(slice(0, shape[0]), slice(0, shape[1]))]
    from scipy.ndimage import find_objects, label

    groups, _ = label(looks, np.ones((3, 3)))
    found = []
    for rows, columns in find_objects(groups):
        ends = ((rows, shape[0]), (columns, shape[1]))
        found.append(tuple(slice(max(0, (one.start - 1) * CELL), min(end, (one.stop + 1) * CELL)) for one, end in ends))
    return found  # type: ignore[return-value]


def _read(picture: Grey, span: float, rows: slice, columns: slice, scale: int, least: float) -> list[Place]:
    """What the detector finds in a window of a picture, which is ``scale`` times as small as the whole."""
    top, left = max(0, rows.start - MARGIN), max(0, columns.start - MARGIN)
    cells = text_map(picture[top : rows.stop + MARGIN, left : columns.stop + MARGIN], span)
    inner = cells[
        (rows.start - top) // STRIDE : -(-(rows.stop - top) // STRIDE),
        (columns.start - left) // STRIDE : -(-(columns.stop - left) // STRIDE),
    ]
    cells, found = inner.copy(), []
    for _ in range(LINES):
        across, down = _strongest(cells), _strongest(cells.T)
        score = max(across[0], down[0])
        if score < least or not np.isfinite(score):
            break
        if across[0] >= down[0] - 2:  # of a block of lines, a row is one of them
            top, left, bottom, right = _line(cells, *across[1:])
        else:
            left, top, right, bottom = _line(cells.T, *down[1:])
        cells[top:bottom, left:right] = -np.inf
        y, bottom = (scale * (STRIDE * side + rows.start) for side in (top, bottom))
        x, right = (scale * (STRIDE * side + columns.start) for side in (left, right))
        box = (y, x, min(bottom, picture.shape[0] * scale), min(right, picture.shape[1] * scale))
        found.append(Place(score, box, scale, box[3] - box[1] >= box[2] - box[0]))
    return found


def _strongest(cells: Grey) -> tuple[float, int, int]:
    """The largest value that three neighbours in a row all reach, and the place of the first of them."""
    if cells.shape[1] < 3:
        return -np.inf, 0, 0
    least = np.minimum(np.minimum(cells[:, :-2], cells[:, 1:-1]), cells[:, 2:])
    row, column = np.unravel_index(int(least.argmax()), least.shape)
    return float(least[row, column]), int(row), int(column)


def _line(cells: Grey, row: int, column: int) -> tuple[int, int, int, int]:
    """The cells of the line that ``(row, column)`` is in, ``(top, left, bottom, right)``: as far as the next are text, over gaps."""
    high: NDArray[np.bool_] = cells > 0
    top, bottom = row, row + 1
    while top > 0 and row - top < 3 and high[top - 1, column : column + 3].sum() >= 2:
        top -= 1
    while bottom < len(cells) and bottom - row < 4 and high[bottom, column : column + 3].sum() >= 2:
        bottom += 1
    along: NDArray[np.bool_] = np.logical_or.reduce(high[top:bottom], axis=0)
    left, right = column, column + 3
    while left > 0 and along[max(0, left - 3) : left].any():
        left -= 1
    while right < len(along) and along[right : right + 3].any():
        right += 1
    return top, left, bottom, right


def text_map(picture: Grey, span: float) -> Grey:
    """The network's logit for every cell of 8x8 pixels, ``[ceil(H/8), ceil(W/8)]``; ``span`` is the range of the whole image's values."""
    rows, columns = (-(-side // BLOCK) * BLOCK for side in picture.shape)
    padded = np.pad(picture, ((0, rows - picture.shape[0]), (0, columns - picture.shape[1])), mode="edge")
    # The first layer, 8x8 with stride 4, as 2x2 over blocks of 4x4.
    blocks = np.pad(normalize(padded, span), 2).reshape(rows // 4 + 1, 4, columns // 4 + 1, 4).transpose(0, 2, 1, 3)
    values: Grey = np.ascontiguousarray(blocks).reshape(rows // 4 + 1, columns // 4 + 1, 16)
    layers = _layers()
    for number, (product, bias, side, stride) in enumerate(layers):
        if side == 3:
            values = np.pad(values, ((1, 1), (1, 1), (0, 0)))
        values = _convolve(values, product, side, stride)
        values += bias
        if number + 1 < len(layers):
            np.maximum(values, 0, out=values)
    return values[..., 0]


def normalize(pixels: Grey, span: float) -> Grey:
    """Local mean removed, local contrast evened out: ``float32 [H, W]``, both sides multiples of :data:`BLOCK`.

    ``span`` is the range of the whole image, in its unit: with it, the result does not depend on the unit.
    """
    mean, square = (_box(_block_means(values)) for values in (pixels, np.square(pixels)))
    deviation = np.sqrt(np.maximum(square - mean**2, 0)) + np.float32(FLOOR * span)
    even = pixels - _enlarged(mean)
    even /= _enlarged(deviation)
    np.clip(even, -LIMIT, LIMIT, out=even)
    return even


def _block_means(pixels: Grey) -> Grey:
    rows = pixels.reshape(-1, BLOCK, pixels.shape[1])
    total = rows[:, 0].copy()
    for number in range(1, BLOCK):
        total += rows[:, number]
    return np.asarray(total.reshape(len(rows), -1, BLOCK).sum(axis=2) / np.float32(BLOCK**2), np.float32)


def _enlarged(blocks: Grey) -> Grey:
    """Bilinear, by :data:`BLOCK` in both directions, the border repeated: two small products, a sixth of Pillow's time."""
    offset = (np.arange(BLOCK) + 0.5) / BLOCK - 0.5
    weights = np.stack([np.maximum(-offset, 0), 1 - np.abs(offset), np.maximum(offset, 0)]).astype(np.float32)
    padded = np.pad(blocks, 1, mode="edge")
    rows = np.tensordot(np.stack([padded[:-2], padded[1:-1], padded[2:]], axis=-1), weights, 1)
    rows = np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(len(blocks) * BLOCK, -1)
    neighbours = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(rows, 3, 1))
    return np.asarray((neighbours.reshape(-1, 3) @ weights).reshape(len(rows), -1), np.float32)


def _box(blocks: Grey) -> Grey:
    """Mean over 3x3, with the border repeated."""
    padded = np.pad(blocks, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9), np.float32)


def _convolve(values: Grey, product: Grey, side: int, stride: int) -> Grey:
    """``[H, W, C]`` with ``[side * side * C, K]``, no padding, in bands of rows that stay in the cache."""
    height, width, channels = values.shape
    rows, columns = (height - side) // stride + 1, (width - side) // stride + 1
    result = np.empty((rows, columns, product.shape[1]), np.float32)
    for start in range(0, rows, BAND):
        count = min(BAND, rows - start)
        patches = np.empty((count, columns, side * side, channels), np.float32)
        for tap in range(side * side):
            top, left = start * stride + tap // side, tap % side
            patches[:, :, tap] = values[top : top + (count - 1) * stride + 1 : stride, left : left + (columns - 1) * stride + 1 : stride]
        result[start : start + count] = (patches.reshape(count * columns, -1) @ product).reshape(count, columns, -1)
    return result


@functools.cache
def _layers() -> list[tuple[Grey, Grey, int, int]]:
    """The detector: kernel ``[side * side * C, K]``, bias ``[K]``, side and stride of every layer."""
    layers: list[tuple[Grey, Grey, int, int]] = []
    for weight, bias in weights(""):
        if weight.shape[-1] == 8:
            weight = weight.reshape(len(weight), 2, 4, 2, 4).transpose(0, 2, 4, 1, 3).reshape(len(weight), 16, 2, 2)
        layers.append((kernel(weight), bias, weight.shape[-1], 2 if len(layers) == 1 else 1))
    return layers
