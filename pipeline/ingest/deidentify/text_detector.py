"""Where a picture has writing: a small convolutional network, and before it a cheaper one, the screen, that says where it is to look.

Both are fitted to drawn text (``tests/benchmarks/fit_text_detector.py``) and measured by ``tests/benchmarks/text_guard.py``. The screen
sees all scales of a picture at once, at half their resolution; the detector sees the few places that the screen leaves, at full resolution.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WEIGHTS = Path(__file__).with_name("text_detector.safetensors")
STRIDE = 8
# Side of the blocks in which mean and contrast are evened out.
BLOCK = 8
# Contrast, as a share of the image's range, below which differences are noise and are not amplified further.
FLOOR = 0.02
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
# Deviation from a plane in 8x8 pixels, as a share of the image's range, below which there are no strokes: a line of contrast .1 has .016.
FAINT = 0.008
CELL = 16
# Context that the detector is given around such places, in pixels.
MARGIN = 24
# Lines that are told apart in one such place.
LINES = 8
BAND = 32

Grey = NDArray[np.float32]
_ALONG = np.array([-1.5, -0.5, 0.5, 1.5], np.float32) / np.float32(20**0.5)
# An orthonormal basis of the planes over 4x4 values.
PLANE = np.stack([np.full(16, 0.25, np.float32), np.tile(_ALONG, 4), np.repeat(_ALONG, 4)], axis=1)
_ONES = np.ones((4, 1), np.float32)
_ACROSS = np.stack([np.full(4, 0.25, np.float32), _ALONG], axis=1)


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


def text_score(picture: Grey) -> float:
    """The score of the most text-like place of ``[H, W]``, a logit; minus infinity where there is none worth a look."""
    return max((place.score for place in places(picture)), default=-np.inf)


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
    rows, columns = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    sums = picture[:rows:2, :columns] + picture[1:rows:2, :columns]
    sums = sums[:, ::2] + sums[:, 1::2]
    sums *= np.float32(0.25)
    return sums


def screen(halves: list[Grey], span: float) -> list[Grey]:
    """For each scale's picture at half resolution ``[H/2, W/2]``, a logit for every cell of 16x16 pixels ``[ceil(H/16), ceil(W/16)]``.

    Cells are 2x2 blocks of 4x4 values. Those that a plane fits have no strokes; the deviations of the others from the mean around them,
    over the deviation there, go through four small layers. All pictures lie on one sheet, so that each step is done once.
    """
    sheet, places = _sheet(halves)
    moments, rest = _blocks(sheet)
    alive, inside = np.zeros(rest.shape, bool), np.zeros(rest.shape, bool)
    for rows, columns in places:
        alive[rows, columns] = rest[rows, columns] > 64 * (FAINT * span) ** 2
        inside[rows, columns] = True
        _continue(moments, rows, columns)
    logits = _layered(sheet, moments, FLOOR * span, np.flatnonzero(alive), inside)
    return [logits[place] for place in places]


def _sheet(halves: list[Grey]) -> tuple[Grey, list[tuple[slice, slice]]]:
    """All pictures on one sheet, and the cells of each, rows and columns: beside the first, the others in a column, a cell between them."""
    sizes = [(-(-half.shape[0] // 8), -(-half.shape[1] // 8)) for half in halves]
    places, top = [(slice(1, 1 + sizes[0][0]), slice(1, 1 + sizes[0][1]))], 1
    for high, wide in sizes[1:]:
        places.append((slice(top, top + high), slice(sizes[0][1] + 2, sizes[0][1] + 2 + wide)))
        top += high + 1
    sheet = np.zeros((8 * max(sizes[0][0] + 2, top), 8 * (sizes[0][1] + 2 + (sizes[1][1] + 1 if len(sizes) > 1 else 0))), np.float32)
    for half, (high, wide), (rows, columns) in zip(halves, sizes, places):
        if half.shape != (8 * high, 8 * wide):
            half = np.pad(half, ((0, 8 * high - half.shape[0]), (0, 8 * wide - half.shape[1])), mode="edge")
        sheet[8 * rows.start : 8 * rows.stop, 8 * columns.start : 8 * columns.stop] = half
    return sheet, places


def _blocks(sheet: Grey) -> tuple[Grey, Grey]:
    """Of every block of 4x4 values its mean and mean square ``[2, H/4, W/4]``; of every cell, the energy that a plane in each of its blocks
    leaves ``[H/8, W/8]``."""
    four = sheet.reshape(-1, 4, sheet.shape[1])
    first, second, third, fourth = (four[:, row] for row in range(4))
    low, high = first + fourth, second + third
    low += high
    outer, inner = fourth - first, np.subtract(third, second, out=high)
    outer *= _ALONG[3]
    inner *= _ALONG[2]
    outer += inner
    squares = np.square(sheet).reshape(four.shape)
    energy = squares[:, 0] + squares[:, 1]
    energy += squares[:, 2]
    energy += squares[:, 3]
    grid = (sheet.shape[0] // 4, sheet.shape[1] // 4)
    # The constant and the two slopes are orthonormal planes over 4x4 values.
    constant, across = (low.reshape(-1, 4) @ _ACROSS).T.reshape(2, *grid)
    down, whole = ((part.reshape(-1, 4) @ _ONES).reshape(grid) for part in (outer, energy))
    rest = whole - constant * constant
    rest -= across * across
    rest -= down * down
    rest = rest[::2] + rest[1::2]
    return np.stack([constant / np.float32(4), whole / np.float32(16)]), rest[:, ::2] + rest[:, 1::2]


def _continue(moments: Grey, rows: slice, columns: slice) -> None:
    """Continue a picture's blocks by its border, by one block, so that none sees its neighbour on the sheet."""
    top, bottom, left, right = 2 * rows.start, 2 * rows.stop, 2 * columns.start, 2 * columns.stop
    moments[:, top:bottom, left - 1] = moments[:, top:bottom, left]
    moments[:, top:bottom, right] = moments[:, top:bottom, right - 1]
    moments[:, top - 1, left - 1 : right + 1] = moments[:, top, left - 1 : right + 1]
    moments[:, bottom, left - 1 : right + 1] = moments[:, bottom - 1, left - 1 : right + 1]


def _evened(sheet: Grey, moments: Grey, floor: float, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Grey:
    """Blocks of cells, ``[cells * 4, 16]``: their deviations from the mean of 3x3 blocks, over the deviation there."""
    corner = (2 * rows - 1) * moments.shape[2] + 2 * columns - 1
    four, width = np.arange(4), sheet.shape[1]
    around = moments.reshape(2, -1).take(corner[:, None, None] + four[:, None] * moments.shape[2] + four, axis=1)
    sums = around[:, :, :2] + around[:, :, 1:3] + around[:, :, 2:]
    mean, square = ((sums[..., :2] + sums[..., 1:3] + sums[..., 2:]) / np.float32(9)).reshape(2, -1, 1)
    deviation = np.sqrt(np.maximum(square - mean * mean, 0)) + np.float32(floor)
    cell = (np.array([0, 4, 4 * width, 4 * width + 4])[:, None, None] + four[:, None] * width + four).ravel()
    values = sheet.ravel().take((8 * width * rows + 8 * columns)[:, None] + cell).reshape(-1, 16)
    return np.asarray((values - mean) / deviation, np.float32)


def _layered(sheet: Grey, moments: Grey, floor: float, where: NDArray[np.intp], inside: NDArray[np.bool_]) -> Grey:
    """The screen's logit for every cell of a sheet: of those ``where``; the others, minus infinity, count as cells of no contrast."""
    (first, first_bias), (second, second_bias), (third, third_bias), (last, last_bias) = _screen_layers()
    logits = np.full(inside.size, -np.inf, np.float32)
    # What the first two layers make of a cell: beside the pictures zero, where nothing is to be seen always the same.
    spread = np.zeros((len(where) + 2, second.shape[1]), np.float32)
    spread[1] = np.maximum(np.tile(np.maximum(first_bias, 0), 4) @ second + second_bias, 0)
    which = inside.ravel().astype(np.intp)
    which[where] = np.arange(2, len(spread))
    parts = [slice(start, start + BAND * BAND) for start in range(0, len(where), BAND * BAND)]  # they stay in the cache
    for part in parts:
        values = _evened(sheet, moments, floor, *np.divmod(where[part], inside.shape[1])) @ first
        values += first_bias
        np.maximum(values, 0, out=values)
        values = values.reshape(-1, len(second)) @ second
        values += second_bias
        np.maximum(values, 0, out=spread[2:][part])
    for part in parts:
        at = where[part]
        patches = np.empty((len(at), 9, spread.shape[1]), np.float32)
        for tap in range(9):  # the sheet has an empty border, so no index leaves it
            patches[:, tap] = spread.take(which.take(at + ((tap // 3 - 1) * inside.shape[1] + tap % 3 - 1)), axis=0)
        values = patches.reshape(len(at), -1) @ third
        values += third_bias
        logits[at] = (np.maximum(values, 0, out=values) @ last)[:, 0] + last_bias[0]
    return logits.reshape(inside.shape)


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
    for number, (kernel, bias, side, stride) in enumerate(layers):
        if side == 3:
            values = np.pad(values, ((1, 1), (1, 1), (0, 0)))
        values = _convolve(values, kernel, side, stride)
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


def _convolve(values: Grey, kernel: Grey, side: int, stride: int) -> Grey:
    """``[H, W, C]`` with ``[side * side * C, K]``, no padding, in bands of rows that stay in the cache."""
    height, width, channels = values.shape
    rows, columns = (height - side) // stride + 1, (width - side) // stride + 1
    result = np.empty((rows, columns, kernel.shape[1]), np.float32)
    for start in range(0, rows, BAND):
        count = min(BAND, rows - start)
        patches = np.empty((count, columns, side * side, channels), np.float32)
        for tap in range(side * side):
            top, left = start * stride + tap // side, tap % side
            patches[:, :, tap] = values[top : top + (count - 1) * stride + 1 : stride, left : left + (columns - 1) * stride + 1 : stride]
        result[start : start + count] = (patches.reshape(count * columns, -1) @ kernel).reshape(count, columns, -1)
    return result


@functools.cache
def _layers() -> list[tuple[Grey, Grey, int, int]]:
    """The detector: kernel ``[side * side * C, K]``, bias ``[K]``, side and stride of every layer."""
    layers: list[tuple[Grey, Grey, int, int]] = []
    for weight, bias in _weights(""):
        if weight.shape[-1] == 8:
            weight = weight.reshape(len(weight), 2, 4, 2, 4).transpose(0, 2, 4, 1, 3).reshape(len(weight), 16, 2, 2)
        layers.append((_kernel(weight), bias, weight.shape[-1], 2 if len(layers) == 1 else 1))
    return layers


@functools.cache
def _screen_layers() -> list[tuple[Grey, Grey]]:
    """The screen: kernel ``[side * side * C, K]`` and bias ``[K]`` of every layer."""
    return [(_kernel(weight), bias) for weight, bias in _weights("screen.")]


def _kernel(weight: Grey) -> Grey:
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))


def _weights(network: str) -> list[tuple[Grey, Grey]]:
    """Weight ``[K, C, side, side]`` and bias ``[K]`` of a network's layers, in their order."""
    from safetensors.numpy import load_file

    arrays = load_file(WEIGHTS)
    numbers = sorted({int(name.split(".")[-2]) for name in arrays if name.rpartition(".")[0].rpartition(".")[0] == network.rstrip(".")})
    return [(arrays[f"{network}{number}.weight"], arrays[f"{network}{number}.bias"]) for number in numbers]
