"""Volumes: slices put together by their place in the patient.

Slices belong together by orientation, size and spacing, and follow each other by their position along the normal (PS3.3 C.7.6.2.1.1), never
by file name or number. Positions and directions are written as decimal strings and by many programs: they are compared with a tolerance.
What has a gap or irregular steps, or fewer slices than its header tells, is no volume: it would be distorted.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.intensity import percentiles
from pipeline.ingest.readers import dicom
from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.reading import Quarantined, Reading, Refuse, Unusable, nothing

MIN_SLICES = 3
# Share of the usual step by which a step may differ.
TOLERANCE = 0.05
# By how much directions (of length 1) and spacings (as a share) of parallel slices may differ.
PARALLEL = 0.002
# Share of a pixel by which positions along the normal may differ and be one.
SAME = 0.02
# So many attributes together may tell phases apart, such as echo, b-value and image type.
DEEP = 3
REPEATED = "the same slice as another file of its series: left out, the volume is read without it"
FEW = f"fewer than {MIN_SLICES} parallel slices of one size in its series: a scout or a single image, not a volume"
TURNING = "the slices of its series turn from one to the next: they are not parallel, and no volume"
AT_ONE_PLACE = (
    "several slices of its series lie at one position, and nothing in the headers tells them apart: give each phase its own series"
)
GAPS = "slices of its series are missing: there are gaps of more than 1.5 x the usual distance; export the whole series"
IRREGULAR = "the slices of its series lie at irregular distances: as a volume they would be distorted"
THINNED = "slices of its series are missing: they lie farther apart than its Spacing Between Slices says; export the whole series"
SHORT = "slices of its series are missing: its header tells of more; export the whole series"


@dataclass(frozen=True)
class Slice:
    """Where a slice lies, and what its header says of the others.

    Attributes:
        series: Series Instance UID.
        acquisition: the study and the number of the acquisition in it.
        shape: height and width.
        affine: as in :class:`~pipeline.ingest.readers.reading.Reading`, ``[4, 4]``.
        phase: values of :data:`pipeline.ingest.readers.attributes.PHASES`.
        trigger_time, time: when it was acquired, in the heart's cycle and in the day; None where that is not known.
        between: Spacing Between Slices, mm.
        slices, images: how many there are in the volume, and of the acquisition.
        content: digest of the pixels, where it was needed.
    """

    series: str
    acquisition: tuple[str, str]
    shape: tuple[int, int]
    affine: NDArray[np.float64]
    phase: tuple[str, ...]
    trigger_time: float | None
    time: float | None
    between: float | None
    slices: int | None
    images: int | None
    content: str = ""


def place(header: Header, affine: NDArray[np.float64], shape: tuple[int, int]) -> Slice:
    """Where a slice lies, from its header, affine and size."""
    facts = header.acquisition
    return Slice(
        header.series_instance_uid,
        (header.study_instance_uid, facts.number),
        shape,
        affine,
        facts.phase,
        facts.trigger_time,
        facts.time,
        header.geometry.between,
        facts.slices,
        facts.images,
    )


def arrange(slices: Sequence[Slice]) -> tuple[list[list[int]], list[tuple[int, str]]]:
    """Which slices make volumes: numbers of each volume's slices, from the first along the normal to the last; and why others make none.

    Of slices at one place with equal contents, the first counts (:func:`doubtful` says whose contents are needed).
    """
    volumes: list[list[int]] = []
    left: list[tuple[int, str]] = []
    for part, repeats, levels in _parts(slices):
        part.sort(key=lambda number: levels[number])
        why = _why_not(slices, part, levels)
        left += [(number, why or REPEATED) for number in repeats]
        if why is None:
            volumes.append(part)
        else:
            left += [(number, why) for number in part]
    short = _short(slices, volumes, {number for number, why in left if why == REPEATED})
    left += [(number, SHORT) for volume in short for number in volume]
    return [volume for volume in volumes if volume not in short], left


def doubtful(slices: Sequence[Slice]) -> list[int]:
    """Slices that lie where another one does, told apart from it by nothing: only their contents say whether they are repeats."""
    found: list[int] = []
    for part, _, levels in _parts(slices):
        visits = Counter(levels[number] for number in part)
        found += [number for number in part if visits[levels[number]] > 1]
    return sorted(found)


def step(slices: Sequence[Slice], members: Sequence[int]) -> NDArray[np.float64]:
    """Vector from one slice to the next, ``[3]`` in mm."""
    first, last = (slices[members[end]].affine[:3, 3] for end in (0, -1))
    return np.asarray((last - first) / (len(members) - 1), np.float64)


def _parts(slices: Sequence[Slice]) -> Iterator[tuple[list[int], list[int], dict[int, int]]]:
    """Parallel slices of one series, size and phase; repeats that are left out of them; and the level of each, counted along the normal."""
    groups: dict[tuple[str, tuple[int, int]], list[int]] = defaultdict(list)
    for number, one in enumerate(slices):
        groups[one.series, one.shape].append(number)
    for group in groups.values():
        for members in _parallel(slices, group):
            levels = _levels(slices, members)
            seen: set[tuple[int, tuple[str, ...], str]] = set()
            repeats = []
            for number in members:
                what = (levels[number], slices[number].phase, slices[number].content)
                if slices[number].content and what in seen:
                    repeats.append(number)
                seen.add(what)
            kept = [number for number in members if number not in set(repeats)]
            for index, part in enumerate(_phases(slices, kept, levels)):
                yield part, [] if index else repeats, levels


def _parallel(slices: Sequence[Slice], members: list[int]) -> list[list[int]]:
    """Members of like directions and spacings: those between which no coordinate has a gap, whatever their order."""
    axes = np.array([slices[number].affine[:3, :3] for number in members])
    spacing = np.linalg.norm(axes, axis=1)
    features = np.concatenate([(axes / spacing[:, None]).reshape(len(members), -1), np.log(spacing)], axis=1)
    waiting, found = [np.arange(len(members))], []
    while waiting:
        some = waiting.pop()
        labels = next((labels for column in features[some].T if (labels := _runs(column, PARALLEL)).any()), None)
        if labels is None:
            found.append(sorted(members[place] for place in some))
        else:
            waiting += [some[labels == label] for label in range(labels.max() + 1)]
    return sorted(found)


def _runs(values: NDArray[np.float64], gap: float) -> NDArray[np.intp]:
    """The number of each value's run, counted upwards: between runs are gaps of more than ``gap``."""
    order = np.argsort(values, kind="stable")
    runs = np.empty(len(values), np.intp)
    runs[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > gap)])
    return runs


def _levels(slices: Sequence[Slice], members: Sequence[int]) -> dict[int, int]:
    """Places along the common normal, counted from the first: positions that differ by less than :data:`SAME` of a pixel are one."""
    affines = np.array([slices[number].affine for number in members])
    normal = affines[:, :3, 0].mean(axis=0)
    heights = affines[:, :3, 3] @ (normal / np.linalg.norm(normal))
    pixel = float(np.linalg.norm(affines[0, :3, 1:3], axis=0).min())
    return dict(zip(members, _runs(heights, SAME * pixel).tolist()))


def _phases(slices: Sequence[Slice], members: list[int], levels: dict[int, int], first: int = 0, depth: int = DEEP) -> list[list[int]]:
    """The parts of a group that visits its positions several times (echoes, phases, b-values); the group itself where nothing tells."""
    if _unique(members, levels):
        return [members]
    for index in range(first, len(slices[members[0]].phase) if depth else 0):
        parts: dict[str, list[int]] = defaultdict(list)
        for number in members:
            parts[slices[number].phase[index]].append(number)
        if len(parts) > 1 and all(len(part) >= MIN_SLICES for part in parts.values()):
            found = [piece for part in parts.values() for piece in _phases(slices, part, levels, index + 1, depth - 1)]
            if all(_unique(piece, levels) for piece in found):
                return found
    for times in ({number: slices[number].trigger_time for number in members}, {number: slices[number].time for number in members}):
        if found := _in_turn(members, levels, times):
            return found
    return [members]


def _in_turn(members: Sequence[int], levels: dict[int, int], times: dict[int, float | None]) -> list[list[int]]:
    """The first visits of every place, the second ones, and so on; nothing unless all places are visited as often, at known times."""
    visits: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for number in members:
        time = times[number]
        if time is None:
            return []
        visits[levels[number]].append((time, number))
    often = {len(visit) for visit in visits.values()}
    if len(often) != 1 or any(len({time for time, _ in visit}) < len(visit) for visit in visits.values()):
        return []
    return [sorted(turn) for turn in zip(*([number for _, number in sorted(visit)] for visit in visits.values()))]


def _unique(members: Sequence[int], levels: dict[int, int]) -> bool:
    return len({levels[number] for number in members}) == len(members)


def _why_not(slices: Sequence[Slice], members: Sequence[int], levels: dict[int, int]) -> str | None:
    """Why these slices, in their order, make no volume."""
    if len(members) < MIN_SLICES:
        return FEW
    normals = np.array([slices[number].affine[:3, 0] for number in members])
    if np.ptp(normals, axis=0).max() > 3 * PARALLEL:
        return TURNING
    if not _unique(members, levels):
        return AT_ONE_PLACE
    steps = np.diff([slices[number].affine[:3, 3] for number in members], axis=0)
    usual = np.median(steps, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    if (lengths > (1.5 * np.median(lengths))).any():
        return GAPS
    if (np.linalg.norm(steps - usual, axis=1) > TOLERANCE * np.linalg.norm(usual)).any():
        return IRREGULAR
    told = [slices[number].between for number in members]
    between = float(np.median([abs(one) for one in told if one])) if any(told) else 0.0
    times = float(np.median(lengths)) / between if between else 1.0
    # A whole number of times: every second slice, or third, was left out. Other numbers are those of scanners that mean something else.
    return THINNED if round(times) >= 2 and abs(times - round(times)) < TOLERANCE * times else None


def _short(slices: Sequence[Slice], volumes: Sequence[list[int]], repeats: set[int]) -> list[list[int]]:
    """Volumes that have fewer slices than their headers tell: in the volume, or in the acquisition wherever its images are."""
    kept = [number for number in range(len(slices)) if number not in repeats]
    of_series = Counter(slices[number].series for number in kept)
    of_acquisition = Counter(slices[number].acquisition for number in kept)
    short = []
    for volume in volumes:
        one = slices[volume[0]]
        there = max(of_series[one.series], of_acquisition[one.acquisition] if all(one.acquisition) else 0)
        if len(volume) < (one.slices or 0) or there < (one.images or 0):
            short.append(volume)
    return short


def digest(reading: Reading) -> str:
    """Of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(reading.pixels).tobytes()).hexdigest()


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
        slices = [_own(one) for one in readings]
        for number in doubtful(slices):
            slices[number] = dataclasses.replace(slices[number], content=digest(readings[number]))
        volumes, left = arrange(slices)
        for number, members in enumerate(volumes):
            yield stack([readings[index] for index in members], step(slices, members), number if len(volumes) > 1 else None)
        yield from [Quarantined(why) for why in dict.fromkeys(why for _, why in left)]
    except Unusable as error:
        yield Quarantined(str(error))


def _own(reading: Reading) -> Slice:
    """A slice among those that were found to make a volume, or among a file's frames: how many there are, no other file tells."""
    assert reading.affine is not None
    rows, columns = reading.pixels.shape[-2:]
    return dataclasses.replace(place(reading.header, reading.affine, (rows, columns)), slices=None, images=None)


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
