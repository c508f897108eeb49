"""Volumes: slices put together by their place in the patient, and any volume resampled into the patient's own axes.

Slices belong together by orientation, size and spacing, and follow each other by their position along the normal (PS3.3 C.7.6.2.1.1), never
by file name or number. What has a gap or irregular steps is no volume: it would be distorted.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest import dicom
from pipeline.ingest.collect import Left, Task
from pipeline.ingest.deidentify import text
from pipeline.ingest.display import percentiles
from pipeline.ingest.isolate import Failed, isolated
from pipeline.ingest.reading import Quarantined, Reading, Refuse, Unusable, nothing
from pipeline.ingest.standardize import Target, coloured, displayed

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
        affine: as in :class:`~pipeline.ingest.reading.Reading`, ``[4, 4]``.
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


def series(root: Path, names: Sequence[str], workers: int | None, done: Callable[[int], None]) -> tuple[list[Task], Left]:
    """The volumes in a folder of DICOM files, each a task with its files in their order; and why other files are in none."""
    slices: list[Slice] = []
    files: list[str] = []
    tasks: list[Task] = []
    left: Left = []
    for number, (name, found) in enumerate(zip(names, isolated(functools.partial(_survey, root=root), names, workers=workers)), 1):
        if isinstance(found, Failed):
            left.append((name, found.reason))
        elif "why" in found.value:
            left.append((name, found.value["why"]))
        elif found.arrays:
            slices.append(Slice(tuple(found.value["group"]), found.arrays[0], tuple(found.value["apart"])))
            files.append(name)
        else:
            tasks.append(Task((name,)))
        done(number)
    volumes, others = arrange(slices)
    tasks += [Task(tuple(files[number] for number in members)) for members in volumes]
    return sorted(tasks, key=lambda task: task.files), left + [(files[number], why) for number, why in others]


def _survey(name: str, root: Path) -> tuple[dict[str, Any], list[NDArray[np.float64]]]:
    """What :func:`series` needs of one file: a slice's place, nothing for a file of several frames, or why it is left out."""
    header = dicom.read_header(root / name)
    if isinstance(header, Quarantined):
        return {"why": header.reason}, []
    with dicom.quiet():
        if (why := dicom.not_an_image(header)) is not None:
            return {"why": why}, []
        if not header.get("Rows") or not header.get("Columns"):
            return {"why": dicom.NO_PIXELS}, []
        if int(header.get("NumberOfFrames") or 1) > 1:
            return {}, []
        affine = dicom.place(header, dicom.spacing(header)[0])
        if affine is None:
            return {"why": "no position and orientation in the patient: not a slice of a volume"}, []
        found = place(header, affine, (int(header.get("Rows") or 0), int(header.get("Columns") or 0)))
    return {"group": found.group, "apart": found.apart}, [affine]


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
