"""The screen before the text detector: a network small enough for every cell of a picture, at all its scales and half their resolution.

Every picture pays for it, so it passes over the half picture few times: sums over 4x4 values are small matrix products, by which cells
without strokes are told, and only the others go through the network.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WEIGHTS = Path(__file__).with_name("text_detector.safetensors")
# Contrast, as a share of the image's range, below which differences are noise and are not amplified further.
FLOOR = 0.02
# Deviation from a plane in 8x8 pixels, as a share of the image's range, below which there are no strokes: a line of contrast .1 has .016.
FAINT = 0.008
# Sums over four rows, and cells in the network, of which so many are made together: what lies between stays in the cache.
SUMMED, TOGETHER = 1 << 15, 1 << 10

Grey = NDArray[np.float32]
# Their outer products are an orthonormal basis of the planes over 4x4 values.
_FLAT, _ALONG = np.full(4, 0.5, np.float32), np.array([-1.5, -0.5, 0.5, 1.5], np.float32) / np.float32(5**0.5)
_ONES = np.ones(4, np.float32)


def screen(halves: list[Grey], span: float) -> list[Grey]:
    """For each scale's picture at half resolution ``[H/2, W/2]``, a logit for every cell of 16x16 pixels ``[ceil(H/16), ceil(W/16)]``.

    Cells are 2x2 blocks of 4x4 values. Those that a plane fits have no strokes; the deviations of the others from the mean around them,
    over the deviation there, go through four small layers. All pictures lie on one sheet, so that each step is done once.
    """
    sheet, layout = _sheet(halves)
    moments, rest = _blocks(sheet)
    blocks = moments.reshape(2, -1)
    blocks[:, layout.beside] = blocks.take(layout.border, axis=1)
    where = np.flatnonzero((rest > 64 * (FAINT * span) ** 2) & layout.inside)
    logits = _layered(sheet, _around(moments, FLOOR * span), where, layout.inside)
    return [logits[place] for place in layout.places]


@dataclass(frozen=True)
class _Layout:
    """Where pictures lie on a sheet.

    Attributes:
        places: the cells of each, rows and columns.
        inside: whether a cell is one of them ``[H/8, W/8]``; those at the sheet's own border are not.
        beside: blocks next to a picture; none sees its neighbour on the sheet, because they are filled with what is at its border.
        border: the nearest block of the picture, for each of them.
    """

    places: tuple[tuple[slice, slice], ...]
    inside: NDArray[np.bool_]
    beside: NDArray[np.intp]
    border: NDArray[np.intp]


def _sheet(halves: list[Grey]) -> tuple[Grey, _Layout]:
    """All pictures on one sheet, whole cells of them, and where they lie."""
    sizes = tuple((-(-half.shape[0] // 8), -(-half.shape[1] // 8)) for half in halves)
    layout = _layout(sizes)
    sheet = np.zeros((8 * layout.inside.shape[0], 8 * layout.inside.shape[1]), np.float32)
    for half, (high, wide), (rows, columns) in zip(halves, sizes, layout.places):
        if half.shape != (8 * high, 8 * wide):
            half = np.pad(half, ((0, 8 * high - half.shape[0]), (0, 8 * wide - half.shape[1])), mode="edge")
        sheet[8 * rows.start : 8 * rows.stop, 8 * columns.start : 8 * columns.stop] = half
    return sheet, layout


@functools.lru_cache(maxsize=16)
def _layout(sizes: tuple[tuple[int, int], ...]) -> _Layout:
    """Beside the first of the pictures, of so many cells each, the others in a column, a cell between them."""
    (first, second), top = sizes[0], 1
    places = [(slice(1, 1 + first), slice(1, 1 + second))]
    for high, wide in sizes[1:]:
        places.append((slice(top, top + high), slice(second + 2, second + 2 + wide)))
        top += high + 1
    inside = np.zeros((max(first + 2, top), second + 2 + (sizes[1][1] + 1 if len(sizes) > 1 else 0)), bool)
    blocks = np.arange(4 * inside.size).reshape(2 * inside.shape[0], -1)
    beside, border = [], []
    for rows, columns in places:
        inside[rows, columns] = True
        around = blocks[2 * rows.start - 1 : 2 * rows.stop + 1, 2 * columns.start - 1 : 2 * columns.stop + 1]
        nearest = np.pad(around[1:-1, 1:-1], 1, mode="edge")
        beside.append(around[around != nearest])
        border.append(nearest[around != nearest])
    return _Layout(tuple(places), inside, np.concatenate(beside), np.concatenate(border))


def _blocks(sheet: Grey) -> tuple[Grey, Grey]:
    """Of every block of 4x4 values its mean and mean square ``[2, H/4, W/4]``; of every cell, the energy that a plane in each of its blocks
    leaves ``[H/8, W/8]``."""
    grid = (sheet.shape[0] // 4, sheet.shape[1] // 4)
    four = sheet.reshape(-1, 4, sheet.shape[1])
    planes, energy = np.empty((3, *grid), np.float32), np.empty(grid, np.float32)
    some = max(1, SUMMED // sheet.shape[1])
    for start in range(0, grid[0], some):
        part = slice(start, start + some)
        rows = four[part]
        # Along columns, then along rows: a block's share of each plane of the basis, and its sum of squares.
        level, slope, square = _FLAT[None] @ rows, _ALONG[None] @ rows, np.einsum("ijk,ijk->ik", rows, rows)
        sums = ((level, _FLAT, planes[0]), (level, _ALONG, planes[1]), (slope, _FLAT, planes[2]), (square, _ONES, energy))
        for values, along, found in sums:
            np.matmul(values.reshape(-1, 4), along, out=found[part].reshape(-1))
    moments = np.stack([planes[0] / np.float32(4), energy / np.float32(16)])
    energy -= np.einsum("ijk,ijk->jk", planes, planes)
    rest = energy[::2] + energy[1::2]
    return moments, rest[:, ::2] + rest[:, 1::2]


def _around(moments: Grey, floor: float) -> Grey:
    """Mean, and deviation with ``floor`` added, of the 3x3 blocks that begin at each block, in the sheet's order ``[2, blocks]``.

    The rows are taken for one long row, which costs a third less: squares that reach over its ends are not asked for.
    """
    wide, blocks = moments.shape[2], moments.reshape(2, -1)
    rows = blocks[:, : -2 * wide] + blocks[:, wide:-wide]
    rows += blocks[:, 2 * wide :]
    mean, square = found = rows[:, :-2] + rows[:, 1:-1]
    found += rows[:, 2:]
    found /= np.float32(9)
    square -= mean * mean
    np.sqrt(np.maximum(square, 0, out=square), out=square)
    square += np.float32(floor)
    return found


def _layered(sheet: Grey, around: Grey, where: NDArray[np.intp], inside: NDArray[np.bool_]) -> Grey:
    """The screen's logit for every cell of a sheet: of those ``where``; the others, minus infinity, count as cells of no contrast."""
    (first, first_bias), (second, second_bias), (third, third_bias), (last, last_bias) = _layers()
    logits = np.full(inside.size, -np.inf, np.float32)
    # What the first two layers make of a cell: beside the pictures zero, where nothing is to be seen always the same.
    spread = np.zeros((len(where) + 2, second.shape[1]), np.float32)
    spread[1] = _nothing()
    which = inside.ravel().astype(np.intp)
    which[where] = np.arange(2, len(spread))
    parts = [slice(start, start + TOGETHER) for start in range(0, len(where), TOGETHER)]
    for part in parts:
        values = _evened(sheet, around, where[part]) @ first
        values += first_bias
        np.maximum(values, 0, out=values)
        values = values.reshape(-1, len(second)) @ second
        values += second_bias
        np.maximum(values, 0, out=spread[2:][part])
    wide = inside.shape[1]
    neighbours = np.array([row * wide + column for row in (-1, 0, 1) for column in (-1, 0, 1)])
    for part in parts:  # the sheet has an empty border, so no index leaves it
        at = where[part]
        patches = spread.take(which.take(at[:, None] + neighbours), axis=0)
        values = patches.reshape(len(at), -1) @ third
        values += third_bias
        logits[at] = (np.maximum(values, 0, out=values) @ last)[:, 0] + last_bias[0]
    return logits.reshape(inside.shape)


def _evened(sheet: Grey, around: Grey, cells: NDArray[np.intp]) -> Grey:
    """Blocks of cells, ``[cells * 4, 16]``: their deviations from the mean of 3x3 blocks, over the deviation there."""
    wide = sheet.shape[1] // 4
    rows, columns = np.divmod(cells, wide // 2)
    # The sheet is read in fours of values: a block is four of them, each below the other.
    fours = np.add.outer([0, 1, 4 * wide, 4 * wide + 1], wide * np.arange(4)).ravel()
    values: Grey = sheet.reshape(-1, 4).take((8 * wide * rows + 2 * columns)[:, None] + fours, axis=0).reshape(-1, 16)
    corners = ((2 * rows - 1) * wide + 2 * columns - 1)[:, None] + np.array([0, 1, wide, wide + 1])
    mean, deviation = around.take(corners, axis=1).reshape(2, -1, 1)
    values -= mean
    values /= deviation
    return values


@functools.cache
def _layers() -> list[tuple[Grey, Grey]]:
    """Kernel ``[side * side * C, K]`` and bias ``[K]`` of every layer."""
    return [(kernel(weight), bias) for weight, bias in weights("screen.")]


@functools.cache
def _nothing() -> Grey:
    """What the first two layers make of a cell of no contrast, ``[K]``."""
    (_, first_bias), (second, second_bias), *_ = _layers()
    return np.asarray(np.maximum(np.tile(np.maximum(first_bias, 0), 4) @ second + second_bias, 0), np.float32)


def kernel(weight: Grey) -> Grey:
    """A convolution's weight ``[K, C, side, side]`` as the right side of a product, ``[side * side * C, K]``."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))


def weights(network: str) -> list[tuple[Grey, Grey]]:
    """Weight ``[K, C, side, side]`` and bias ``[K]`` of a network's layers, in their order; the detector's name is empty."""
    from safetensors.numpy import load_file

    arrays = load_file(WEIGHTS)
    numbers = sorted({int(name.split(".")[-2]) for name in arrays if name.rpartition(".")[0].rpartition(".")[0] == network.rstrip(".")})
    return [(arrays[f"{network}{number}.weight"], arrays[f"{network}{number}.bias"]) for number in numbers]
