"""What is read together: one file, or the slices of one volume; and what is never read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipeline.ingest import source
from pipeline.ingest.isolate import Failed, isolated
from pipeline.ingest.labels import Labels
from pipeline.ingest.readers import dicom, geometry, nifti
from pipeline.ingest.readers.reading import Quarantined, Reading
from pipeline.ingest.readers.series import Slice, arrange, digest, doubtful, place

if TYPE_CHECKING:
    import numpy as np

    from pipeline.context import Context

Left = list[tuple[str, str]]
NOT_THERE = "named in the label table but not in the folder"
OUTSIDE = "a path out of the folder: refused"
NO_FILE = {NOT_THERE, OUTSIDE}
"""Reasons of what is a row of a label table, and no file."""


@dataclass(frozen=True)
class Task:
    """What is read together: one file, or the files of one volume, as relative POSIX paths."""

    files: tuple[str, ...]


def grouped(ctx: Context, root: Path, names: Sequence[str]) -> tuple[list[Task], Left]:
    """What is read together of the files ``names`` below ``root``, in its order; and why other files are in nothing."""
    if ctx.config.ingest.source == "nifti":
        return [Task(files) for files in nifti.paired(names)], []
    if not ctx.config.ingest.volumes:
        return [Task((name,)) for name in names], []
    with ctx.reporter.progress("finding series", len(names)) as done:
        return series(root, names, source.workers(), done)


def never_read(root: Path, table: Labels | None) -> Left:
    """What :func:`pipeline.ingest.source.never_read` lists, and the files that the label table names and that are not there."""
    left = source.never_read(root)
    if table is not None:
        outside = set(table.outside())
        left += [(name, OUTSIDE if name in outside else NOT_THERE) for name in sorted(table.unmatched)]
    return left


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
            told: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.value.items()}
            slices.append(Slice(**told, affine=found.arrays[0]))
            files.append(name)
        else:
            tasks.append(Task((name,)))
        done(number)
    unclear = doubtful(slices)
    contents = isolated(functools.partial(_content, root=root), [files[number] for number in unclear], workers=workers)
    for number, found in zip(unclear, contents):
        if not isinstance(found, Failed):
            slices[number] = replace(slices[number], content=found.value)
    volumes, others = arrange(slices)
    tasks += [Task(tuple(files[number] for number in members)) for members in volumes]
    return sorted(tasks, key=lambda task: task.files), left + [(files[number], why) for number, why in others]


def _survey(name: str, root: Path) -> tuple[dict[str, Any], list[NDArray[np.float64]]]:
    """What :func:`series` needs of one file: a slice's place, nothing for a file of several frames, or why it is left out."""
    header = dicom.read_header(root / name)
    if isinstance(header, Quarantined):
        return {"why": header.reason}, []
    if (why := dicom.not_an_image(header)) is not None:
        return {"why": why}, []
    if not header.pixels.rows or not header.pixels.columns:
        return {"why": dicom.NO_PIXELS}, []
    if header.pixels.frames > 1 or header.acquisition.mosaic != 0:
        return {}, []
    affine = geometry.place(header.geometry)
    if affine is None:
        return {"why": "no position and orientation in the patient: not a slice of a volume"}, []
    found = vars(place(header, affine, (header.pixels.rows, header.pixels.columns)))
    return {key: value for key, value in found.items() if key != "affine"}, [affine]


def _content(name: str, root: Path) -> tuple[str, list[NDArray[np.float64]]]:
    """A digest of the pixels of one file; an empty string where they cannot be read."""
    found = next(iter(dicom.read(root / name)))
    return digest(found) if isinstance(found, Reading) else "", []
