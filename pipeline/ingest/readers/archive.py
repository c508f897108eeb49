"""Images in an ``.npz`` of MedMNIST's layout, whatever set it is: unpacked into pictures, which are then read like any others.

``*_images`` are uint8 ``[n, H, W]`` or ``[n, H, W, 3]``, ``*_labels`` class indices ``[n, 1]`` or ``[n]``, or of several findings an image
``[n, K]`` of 1 present, 0 absent, -1 unknown, for the splits train, val and test, of which some may be missing or empty. Nothing unpickles.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SPLITS = ("train", "val", "test")
UNLABELLED = "unlabelled"
TABLE, TOGETHER = "labels.csv", "images"
"""Of an archive of several findings an image: its table, with a column ``file`` and one for each finding by its index, and its folder."""
MAX_FINDINGS = 1000
MAX_IMAGES = 1_000_000
# Bytes of pixels that an archive may hold, however small it is compressed.
MAX_BYTES = 32 << 30
BLOCK = 16 << 20


class NotAnArchive(Exception):
    """Why the file cannot be used; the message holds nothing of its content."""


def unpack(path: Path, folder: Path, several: bool = False) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Write every image as ``<class index>/<number>.png`` into ``folder``; ``({"images": n}, [])``, or ``({"why": reason}, [])``.

    Meant for :func:`pipeline.ingest.isolate.isolated`: a hostile file costs its worker only. Without labels the folder is
    :data:`UNLABELLED`. With ``several``, images can have several findings: they lie in :data:`TOGETHER` then, beside a :data:`TABLE`.
    """
    count, findings = 0, set[int]()
    try:
        with zipfile.ZipFile(path) as archive:
            present = [name for name in SPLITS if f"{name}_images.npy" in archive.namelist()]
            if not present:
                raise NotAnArchive("it holds none of train_images, val_images and test_images")
            marks = {name: _labels(archive, name, several) for name in present}
            findings = {of.shape[1] if of is not None and of.ndim == 2 else 0 for of in marks.values()}
            if len(findings) > 1:
                raise NotAnArchive("its splits have different numbers of findings")
            for name in present:
                count += _write(archive, name, marks[name], folder, count)
        if findings != {0}:
            _write_table(folder / TABLE, [of for of in marks.values() if of is not None])
    except NotAnArchive as error:
        return {"why": str(error)}, []
    except MemoryError:
        raise
    except Exception:
        return {"why": "it is damaged, or no .npz of MedMNIST's layout with 8-bit images"}, []
    return {"images": count}, []


def _write(archive: zipfile.ZipFile, name: str, marks: NDArray[Any] | None, folder: Path, before: int) -> int:
    """Write the images of a split, of which so many are the first's number; how many they are."""
    count = 0
    for block in _blocks(archive, f"{name}_images.npy"):
        if marks is not None and count + len(block) > len(marks):
            raise NotAnArchive("it holds more images than labels")
        for image in block:
            label = UNLABELLED if marks is None else TOGETHER if marks.ndim == 2 else str(int(marks[count]))
            place = folder / label
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            Image.fromarray(image).save(place / _name(before + count), compress_level=1)
            count += 1
    if marks is not None and count != len(marks):
        raise NotAnArchive("it holds more labels than images")
    return count


def _write_table(path: Path, marks: list[NDArray[Any]]) -> None:
    every = np.concatenate(marks)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", *range(every.shape[1])])
        table.writerows([f"{TOGETHER}/{_name(number)}", *row] for number, row in enumerate(every.tolist()))


def _name(number: int) -> str:
    return f"{number:07d}.png"


def counts(path: Path) -> dict[str, int]:
    """Images of each split. Raises NotAnArchive where it is damaged, or of another layout."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            for name in SPLITS:
                if f"{name}_images.npy" in archive.namelist():
                    with archive.open(f"{name}_images.npy") as file:
                        found[name] = int(_header(file)[0][0])
            return found
    except (OSError, ValueError, IndexError, zipfile.BadZipFile):
        raise NotAnArchive("it is damaged, or no .npz of MedMNIST's layout") from None


def _blocks(archive: zipfile.ZipFile, member: str) -> Iterator[NDArray[np.uint8]]:
    with archive.open(member) as file:
        (count, *shape), dtype = _header(file)
        each = math.prod(shape)
        if dtype != np.uint8 or len(shape) not in (2, 3) or (len(shape) == 3 and shape[-1] != 3):
            raise NotAnArchive("its images are not uint8 [n, H, W] or [n, H, W, 3]")
        if count > MAX_IMAGES or count * each > MAX_BYTES or (count and not each):
            raise NotAnArchive("it declares more images than are read, or empty ones")
        step = max(1, BLOCK // max(each, 1))
        for start in range(0, count, step):
            wanted = min(step, count - start)
            data = file.read(wanted * each)
            if len(data) < wanted * each:
                raise NotAnArchive("it is cut short")
            yield np.frombuffer(data, np.uint8).reshape(wanted, *shape)


def _labels(archive: zipfile.ZipFile, name: str, several: bool) -> NDArray[Any] | None:
    """Class indices ``[n]``, or with ``several`` also findings ``[n, K]``; None where there are none."""
    member = f"{name}_labels.npy"
    if member not in archive.namelist():
        return None
    with archive.open(member) as file:
        shape, fortran, dtype = _described(file)
        count, columns = math.prod(shape), math.prod(shape[1:])
        allowed = MAX_FINDINGS if several else 1
        if not np.issubdtype(dtype, np.integer) or len(shape) not in (1, 2) or shape[0] > MAX_IMAGES or not 1 <= columns <= allowed:
            raise NotAnArchive("its labels are not one class index an image")
        marks = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    if columns == 1:
        return marks
    if not np.isin(marks, (-1, 0, 1)).all():
        raise NotAnArchive("its labels of several findings are other numbers than 1, 0 and -1")
    return marks.reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the images' array whose ``.npy`` begins here; the file is left at its first value."""
    shape, fortran, dtype = _described(file)
    if fortran:
        raise NotAnArchive("its images are not in C order")
    return shape, dtype


def _described(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran's order, and type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise NotAnArchive("its arrays are not plain numbers")
    return tuple(shape), bool(fortran), dtype


def is_archive(path: Path) -> bool:
    """Whether a file says of itself that it is a zip file, as ``.npz`` are."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
