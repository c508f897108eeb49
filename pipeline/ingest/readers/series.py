"""Volumes: slices put together by their place in the patient, and any volume resampled into the patient's own axes.

Slices belong together by orientation, size and spacing, and follow each other by their position along the normal (PS3.3 C.7.6.2.1.1), never
by file name or number. What has a gap or irregular steps is no volume: it would be distorted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.intensity import percentiles
from pipeline.ingest.readers import dicom
from pipeline.ingest.readers.header import text
from pipeline.ingest.readers.reading import Quarantined, Reading, Refuse, Unusable, nothing

MIN_SLICES = 3
# Share of the usual step by which a step may differ.
TOLERANCE = 0.05
# What tells slices at one position apart, in the order in which it is tried.
APART = ("AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "ImageType")


@dataclass(frozen=True)
class Slice:
    """Where a slice lies.

    Attributes:
        group: what slices of one volume have in common.
        affine: as in :class:`~pipeline.ingest.readers.reading.Reading`, ``[4, 4]``.
        apart: values of :data:`APART`.
    """

    group: tuple[Any, ...]
    affine: NDArray[np.float64]
    apart: tuple[str, ...]


def place(header: Any, affine: NDArray[np.float64], shape: tuple[int, ...]) -> Slice:
    """Where a slice lies, from its header, affine and size."""
    # Cosines and spacings are written as decimal strings: the same plane may differ in its last digits.
    directions = tuple(np.round(affine[:3, :3].T.ravel(), 3).tolist())
    return Slice((text(header, "SeriesInstanceUID"), *shape, *directions), affine, tuple(str(header.get(name) or "") for name in APART))


def arrange(slices: Sequence[Slice]) -> tuple[list[list[int]], list[tuple[int, str]]]:
    """Which slices make volumes: numbers of each volume's slices, from the first along the normal to the last; and why others make none."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, one in enumerate(slices):
        groups[one.group].append(number)
    volumes: list[list[int]] = []
    left: list[tuple[int, str]] = []
    for members in groups.values():
        for part in _apart(slices, members):
            part.sort(key=lambda number: _height(slices[number]))
            why = _why_not(slices, part)
            if why is None:
                volumes.append(part)
            else:
                left += [(number, why) for number in part]
    return volumes, left


def step(slices: Sequence[Slice], members: Sequence[int]) -> NDArray[np.float64]:
    """Vector from one slice to the next, ``[3]`` in mm."""
    first, last = (slices[members[end]].affine[:3, 3] for end in (0, -1))
    return np.asarray((last - first) / (len(members) - 1), np.float64)


def _height(one: Slice) -> float:
    return float(one.affine[:3, 0] @ one.affine[:3, 3])


def _apart(slices: Sequence[Slice], members: list[int]) -> list[list[int]]:
    """The parts of a group that visits its positions several times (echoes, phases, b-values); the group itself where nothing tells."""
    if _unique(slices, members):
        return [members]
    for index in range(len(APART)):
        parts: dict[str, list[int]] = defaultdict(list)
        for number in members:
            parts[slices[number].apart[index]].append(number)
        if len(parts) > 1 and all(_unique(slices, part) for part in parts.values()):
            return list(parts.values())
    return [members]


def _unique(slices: Sequence[Slice], members: Sequence[int]) -> bool:
    heights = np.sort([_height(slices[number]) for number in members])
    return bool((np.diff(heights) > 1e-3).all())


def _why_not(slices: Sequence[Slice], members: Sequence[int]) -> str | None:
    if len(members) < MIN_SLICES:
        return f"fewer than {MIN_SLICES} parallel slices of one size in its series: a scout or a single image, not a volume"
    if not _unique(slices, members):
        return (
            "several slices of its series lie at one position, and nothing in the headers tells them apart: give each phase its own series"
        )
    steps = np.diff([slices[number].affine[:3, 3] for number in members], axis=0)
    usual = np.median(steps, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    if (lengths > (1.5 * np.median(lengths))).any():
        return "slices of its series are missing: there are gaps of more than 1.5 x the usual distance; export the whole series"
    if (np.linalg.norm(steps - usual, axis=1) > TOLERANCE * np.linalg.norm(usual)).any():
        return "the slices of its series lie at irregular distances: as a volume they would be distorted"
    return None


def read_series(paths: Sequence[Path], refuse: Refuse = nothing, also: tuple[str, ...] = ()) -> Iterator[Reading | Quarantined]:
    """The volume of these files' slices in this order, or the volumes of one file of several frames; raises nothing but MemoryError."""
    readings: list[Reading] = []
    for found in dicom.read_each(paths, refuse, also):
        if isinstance(found, Quarantined):
            yield found if len(paths) == 1 else Quarantined(f"a slice of its series cannot be used: {found.reason}")
            return
        readings.append(found)
    try:
        if any(one.affine is None for one in readings):
            raise Unusable("its frames have no position and orientation in the patient: not a volume")
        slices = [place(one.header, one.affine, one.pixels.shape) for one in readings if one.affine is not None]
        volumes, left = arrange(slices)
        for number, members in enumerate(volumes):
            yield stack([readings[index] for index in members], step(slices, members), number if len(volumes) > 1 else None)
        yield from [Quarantined(why) for why in dict.fromkeys(why for _, why in left)]
    except Unusable as error:
        yield Quarantined(str(error))


def stack(readings: Sequence[Reading], vector: NDArray[np.float64], number: int | None) -> Reading:
    """Slices in their order as one volume ``[C, D, H, W]``; ``vector`` leads from one to the next, in mm."""
    first = readings[0]
    assert first.affine is not None
    pixels = np.stack([one.pixels for one in readings], axis=1)
    low, high = first.low, first.high
    if len({(one.low, one.high) for one in readings}) > 1:
        low, high = percentiles(pixels)
        if first.low > first.high:
            low, high = high, low
    affine = first.affine.copy()
    affine[:3, 0] = vector
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    linear = all(one.linear for one in readings)
    return Reading(pixels, low, high, linear, spacing, first.aspect, affine, first.header, "volume", number)
