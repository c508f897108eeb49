"""Whole pictures without text that look like trouble, for the benchmark of the text guard: none of it is used to fit the detector.

Real slices with noise and zeroed borders, pure magnitude noise, rulers, grids, and side and view markers, drawn by other means than
:mod:`tests.benchmarks.clean_pictures`, which the detector is fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.text_pictures import HELD_OUT_FACES, Grey, burn, ink, phantom

MARKERS = ("R", "L", "R CC", "L MLO", "RMLO", "LCC", "AP", "PA", "PA ERECT", "PORTABLE", "SUPINE", "AP SUPINE", "LAT", "L LATERAL")


def look_alikes(slices: Sequence[Grey], count: int, seed: int = 7) -> Iterator[tuple[str, Grey]]:
    """``count`` pictures of each kind, with its name; ``slices`` are real ones without text."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        if slices:
            yield "real slices, noise added, borders zeroed", bordered(rng, slices[number % len(slices)])
        yield "magnitude noise ending in zeros", bordered(rng, np.zeros(tuple(rng.integers(160, 500, 2)), np.float32))
        yield "rulers and ticks", ruled(rng, 320)
        yield "grids and lattices", lattice(rng, 320)
        yield "side and view markers alone", marked(rng, 320)


def bordered(rng: np.random.Generator, picture: Grey) -> Grey:
    """Magnitude noise of .3 to 6 % of the range over a picture, and exact zeros where a correction or a mask leaves nothing."""
    span = float(np.ptp(picture)) or 1000.0
    sigma = span * float(rng.choice([0.003, 0.006, 0.01, 0.02, 0.04, 0.06]))
    noise = rng.standard_normal((2, *picture.shape))
    noisy = np.sqrt((picture - picture.min() + sigma * noise[0]) ** 2 + (sigma * noise[1]) ** 2)
    noisy = np.floor(noisy) if rng.random() < 0.5 else noisy
    rows, columns = np.indices(picture.shape)
    high, wide = picture.shape
    bow = rng.uniform(0, 0.06) * high * np.cos(np.pi * (columns / wide - 0.5))  # a bent edge
    outside = (rows < rng.integers(0, high // 6) + bow) | (rows >= high - rng.integers(0, high // 6) - bow)
    outside |= (columns < rng.integers(0, wide // 6)) | (columns >= wide - rng.integers(0, wide // 6))
    if rng.random() < 0.3:
        outside |= (rows - high / 2) ** 2 / (0.5 * high) ** 2 + (columns - wide / 2) ** 2 / (0.5 * wide) ** 2 > 1
    noisy[outside] = 0
    if rng.random() < 0.3:
        noisy[rng.integers(0, high, 3)] = 0
        noisy[:, rng.integers(0, wide, 2)] = 0
    return np.asarray(noisy, np.float32)


def ruled(rng: np.random.Generator, side: int) -> Grey:
    """A phantom with scales at its sides: ticks of two or three lengths, some on a line, some of dots."""
    picture = phantom(rng, side, side) * np.float32(rng.uniform(0.3, 1))
    for _ in range(int(rng.integers(1, 4))):
        picture = np.rot90(picture, int(rng.integers(4))).copy()
        at, step, thick = int(rng.integers(4, side - 30)), float(rng.uniform(4, 30)), int(rng.integers(1, 3))
        lengths = sorted(rng.integers(2, 20, 3))
        for number, place in enumerate(np.arange(rng.uniform(0, step), side - 2, step)):
            length = lengths[2 if number % 10 == 0 else 1 if number % 5 == 0 else 0]
            picture[int(place) : int(place) + thick, at : at + length] = 1
        if rng.random() < 0.5:
            picture[:, at] = 1
    return np.asarray(picture + rng.normal(0, rng.uniform(0, 0.02), picture.shape), np.float32)


def lattice(rng: np.random.Generator, side: int) -> Grey:
    """A phantom under lines or beads of a lattice, fine or coarse, straight or turned."""
    picture = phantom(rng, side, side) * np.float32(rng.uniform(0.2, 0.8))
    rows, columns = np.indices((side, side))
    angle, pitch = float(rng.choice([0.0, 0.0, rng.uniform(0, 1.5)])), float(rng.uniform(5, 40))
    one = (columns * np.cos(angle) + rows * np.sin(angle)) % pitch
    two = (rows * np.cos(angle) - columns * np.sin(angle)) % pitch
    width = rng.uniform(1, max(1.5, pitch / 6))
    kind = rng.integers(3)
    drawn = (one < width) | (two < width) if kind == 0 else one < width if kind == 1 else np.hypot(one - pitch / 2, two - pitch / 2) < width
    picture[drawn] = rng.uniform(0.5, 1)
    return np.asarray(picture + rng.normal(0, rng.uniform(0, 0.02), picture.shape), np.float32)


def marked(rng: np.random.Generator, side: int, markers: Sequence[str] = MARKERS) -> Grey:
    """A phantom radiograph with a marker in white letters of 14 to 40 px."""
    face = str(rng.choice(("DejaVuSans-Bold", *HELD_OUT_FACES[:4])))
    covered = ink(str(rng.choice(markers)), face, int(rng.integers(14, 40)), True)
    burned, line = burn(phantom(rng, side, side), covered, 1.0, rng)
    return burned if line is not None else phantom(rng, side, side)


def slices(planes: Iterator[tuple[str, NDArray[np.float32]]], most: int = 400) -> list[Grey]:
    """Real slices to draw on: of those of NIfTI volumes every so many."""
    found = [plane for name, plane in planes if name.startswith("NIfTI")]
    return found[:: max(1, len(found) // most)]
