"""The eighteen MedMNIST sets, 2-D and 3-D, read from their ``.npz`` as a stream (Yang et al. 2023, Scientific Data 10:41)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import medmnist
import numpy as np
from numpy.typing import NDArray

from pipeline.config import IngestConfig
from pipeline.errors import InputError
from pipeline.ingest.standardize import fit

SPLITS = ("train", "val", "test")
CITATION = (
    "Yang J, Shi R, Wei D, et al. MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image classification. "
    "Scientific Data 2023;10:41. doi:10.1038/s41597-022-01721-8; and the source data set's own paper, see medmnist.com"
)
# The sets do not say it in a field of their own. DICOM modalities; SM is slide microscopy, GM general microscopy.
MODALITY = {
    "breastmnist": "US",
    "pneumoniamnist": "DX",
    "octmnist": "OPT",
    "retinamnist": "OP",
    "dermamnist": "XC",
    "pathmnist": "SM",
    "bloodmnist": "GM",
    "tissuemnist": "GM",
    "organamnist": "CT",
    "organcmnist": "CT",
    "organsmnist": "CT",
    "chestmnist": "DX",
    "organmnist3d": "CT",
    "nodulemnist3d": "CT",
    "adrenalmnist3d": "CT",
    "fracturemnist3d": "CT",
    "vesselmnist3d": "MR",
    "synapsemnist3d": "OT",
}


BLOCK = 64 << 20


@dataclass(frozen=True)
class Published:
    """A data set as published, its three splits one after the other.

    Attributes:
        path: the ``.npz``; :meth:`blocks` reads its images.
        shape: of one image, ``(C, (D,) side, side)``.
        findings: ``int8 [n, classes]``: 1 present, 0 absent.
        split: ``train``, ``val`` or ``test`` of every image.
        number: place of every image in its split.
        classes: names in lower case, without blanks.
        modality: as DICOM calls it.
        facts: what ``cohort.json`` says of the set.
    """

    path: Path
    shape: tuple[int, ...]
    findings: NDArray[np.int8]
    split: NDArray[np.str_]
    number: NDArray[np.int64]
    classes: tuple[str, ...]
    modality: str
    facts: dict[str, Any]

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """The images, ``uint8 [k, C, (D,) side, side]``, a few at a time, in order. Raises InputError where the file is damaged."""
        for name in SPLITS:
            with _damaged(self.path), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}_images.npy") as file:
                count, *shape = _header(file)
                each = math.prod(shape)
                step = max(1, BLOCK // each)
                for start in range(0, count, step):
                    wanted = min(step, count - start)
                    data = file.read(wanted * each)
                    if len(data) < wanted * each:
                        raise ValueError("cut short")
                    block = np.frombuffer(data, np.uint8).reshape(wanted, *shape)
                    yield np.moveaxis(block, -1, 1) if len(shape) == len(self.shape) else block[:, None]


def fitted(
    found: Published, size: int, folder: Path, seen: Callable[[NDArray[np.uint8]], None], done: Callable[[int], None]
) -> NDArray[np.uint8]:
    """All images at ``size``, ``uint8 [n, C, (D,) size, size]``, memory-mapped from a file that is written in ``folder``.

    ``seen`` is given them as they were published, block by block; ``done`` is told how many are fitted.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, count = folder / "pixels.bin", 0
    with path.open("wb") as file:
        for block in found.blocks():
            seen(block)
            file.write(np.ascontiguousarray(fit(block, size)).tobytes())
            done(count := count + len(block))
    return np.memmap(path, np.uint8, "r", shape=(count, found.shape[0], *[size] * (len(found.shape) - 1)))


def information(flag: str) -> dict[str, Any]:
    """The entry of ``medmnist.INFO``. Raises InputError where the set is unknown."""
    if flag not in medmnist.INFO:
        raise InputError(f"ingest.dataset {flag!r} is not a MedMNIST data set: choose one of {', '.join(sorted(medmnist.INFO))}")
    entry: dict[str, Any] = medmnist.INFO[flag]
    return entry


def download(flag: str, side: int, path: Path) -> None:
    """Fetch the set's file with the medmnist package. Raises InputError where that fails, offline for one."""
    info = information(flag)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Into a folder of its own: an interrupted download is never taken for the file.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            getattr(medmnist, info["python_class"])(split="test", download=True, root=folder, size=side)
            (Path(folder) / path.name).replace(path)
    except Exception:
        raise InputError(
            f"{path} is not there, and the medmnist package could not download it: check the network, or put the file there "
            f"(from {info['url' if side == 28 else f'url_{side}']}), or name its folder in ingest.path"
        ) from None


def read(ingest: IngestConfig, path: Path) -> Published:
    """Read the set that the configuration names from its file, whose name ends with the side of its images where that is not 28.

    Raises:
        InputError: the set is unknown, its file is damaged, or lacks a split.
    """
    assert ingest.dataset is not None
    info = information(ingest.dataset)
    side = int(path.stem.partition("_")[2] or 28)
    channels = int(info["n_channels"])
    classes = [str(info["label"][str(index)]) for index in range(len(info["label"]))]
    several = "multi-label" in info["task"]
    stored = (*[side] * (3 if ingest.volumes else 2), *([channels] if channels > 1 else []))
    findings = []
    with _damaged(path), zipfile.ZipFile(path) as archive:
        absent = [name for name in SPLITS if not {f"{name}_images.npy", f"{name}_labels.npy"} <= set(archive.namelist())]
        if absent:
            raise InputError(f"{path} has no split {' and no '.join(absent)}: give it {', '.join(SPLITS)}, each with images and labels")
        for name in SPLITS:
            with archive.open(f"{name}_images.npy") as file:
                count, *shape = _header(file)
            with archive.open(f"{name}_labels.npy") as file:
                marks = np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)
            if tuple(shape) != stored or marks.shape != (count, len(classes) if several else 1):
                raise ValueError("other images than the set's")
            if not np.issubdtype(marks.dtype, np.integer) or not np.isin(marks, (0, 1) if several else range(len(classes))).all():
                raise ValueError("other labels than the set's")
            findings.append((marks if several else marks == np.arange(len(classes))).astype(np.int8))
    official = info["MD5" if side == 28 else f"MD5_{side}"]
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "md5").hexdigest() == official
    return Published(
        path=path,
        shape=(channels, *stored[: 3 if ingest.volumes else 2]),
        findings=np.concatenate(findings),
        split=np.repeat(np.array(SPLITS), [len(part) for part in findings]),
        number=np.concatenate([np.arange(len(part)) for part in findings]),
        classes=tuple(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in classes),
        modality=MODALITY[ingest.dataset],
        facts={
            "title": info["python_class"],
            "description": info["description"],
            "licence": info["license"],
            "citation": CITATION,
            "url": info["url" if side == 28 else f"url_{side}"],
            "published_side": side,
            "published_classes": classes,
            "checksum": "the official file" if same else "differs from the official file",
        },
    )


def check_classes(found: Published) -> None:
    """Raises InputError where a split has no image of a class: no stage after ingest could learn it, or judge it."""
    for name in SPLITS:
        there = (found.findings[found.split == name] == 1).any(axis=0)
        if missing := [label for label, some in zip(found.facts["published_classes"], there) if not some]:
            raise InputError(f"{found.path}: its split {name} has no image of {', '.join(missing)}: give each split images of every class")


def _header(file: IO[bytes]) -> tuple[int, ...]:
    """Shape of the uint8 array whose ``.npy`` begins here; the file is left at its first value. Raises ValueError for any other."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if fortran or dtype != np.uint8 or len(shape) < 3:
        raise ValueError("not images of 8 bits")
    return tuple(shape)


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """One line for a file that is cut, or holds something else."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path} is damaged or not {path.stem.split('_')[0]}'s file: delete it, and it is downloaded again") from None
