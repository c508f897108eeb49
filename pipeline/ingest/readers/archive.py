"""Images in an ``.npz`` of MedMNIST's layout, whatever set it is: unpacked into pictures, which are then read like any others.

``*_images`` are uint8 ``[n, H, W]`` or ``[n, H, W, 3]``, ``*_labels`` class indices ``[n, 1]`` or ``[n]``, for the splits train, val and
test, of which some may be missing or empty. Nothing unpickles.
"""

from __future__ import annotations

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
MAX_IMAGES = 1_000_000
# Bytes of pixels that an archive may hold, however small it is compressed.
MAX_BYTES = 32 << 30
BLOCK = 16 << 20


class NotAnArchive(Exception):
    """Why the file cannot be used; the message holds nothing of its content."""


def unpack(path: Path, folder: Path) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Write every image as ``<class index>/<number>.png`` into ``folder``; ``({"images": n}, [])``, or ``({"why": reason}, [])``.

    Meant for :func:`pipeline.ingest.isolate.isolated`: a hostile file costs its worker only. Without labels the folder is
    :data:`UNLABELLED`.
    """
    count = 0
    try:
        with zipfile.ZipFile(path) as archive:
            present = [name for name in SPLITS if f"{name}_images.npy" in archive.namelist()]
            if not present:
                raise NotAnArchive("it holds none of train_images, val_images and test_images")
            for name in present:
                marks = _labels(archive, name)
                start = 0
                for block in _blocks(archive, f"{name}_images.npy"):
                    if marks is not None and start + len(block) > len(marks):
                        raise NotAnArchive("it holds more images than labels")
                    for number, image in enumerate(block):
                        label = UNLABELLED if marks is None else str(int(marks[start + number]))
                        place = folder / label
                        place.mkdir(mode=0o700, parents=True, exist_ok=True)
                        Image.fromarray(image).save(place / f"{count:07d}.png", compress_level=1)
                        count += 1
                    start += len(block)
                if marks is not None and start != len(marks):
                    raise NotAnArchive("it holds more labels than images")
    except NotAnArchive as error:
        return {"why": str(error)}, []
    except MemoryError:
        raise
    except Exception:
        return {"why": "it is damaged, or no .npz of MedMNIST's layout with 8-bit images"}, []
    return {"images": count}, []


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


def _labels(archive: zipfile.ZipFile, name: str) -> NDArray[Any] | None:
    """Class indices ``[n]``; None where there are none."""
    member = f"{name}_labels.npy"
    if member not in archive.namelist():
        return None
    with archive.open(member) as file:
        shape, dtype = _header(file)
        count = math.prod(shape)
        if not np.issubdtype(dtype, np.integer) or count > MAX_IMAGES or len(shape) not in (1, 2) or math.prod(shape[1:]) != 1:
            raise NotAnArchive("its labels are not one class index an image")
        return np.frombuffer(file.read(count * dtype.itemsize), dtype).ravel()


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array whose ``.npy`` begins here; the file is left at its first value."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or dtype.hasobject:
        raise NotAnArchive("its arrays are not plain numbers in C order")
    return tuple(shape), dtype


def is_archive(path: Path) -> bool:
    """Whether a file says of itself that it is a zip file, as ``.npz`` are."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
