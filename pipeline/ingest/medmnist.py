"""The 2-D MedMNIST sets with one label an image, read from their ``.npz`` (Yang et al. 2023, Scientific Data 10:41)."""

from __future__ import annotations

import hashlib
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medmnist
import numpy as np
from numpy.typing import NDArray

from pipeline.config import IngestConfig
from pipeline.errors import InputError
from pipeline.ingest.source import medmnist_file, medmnist_side

TASKS = ("binary-class", "multi-class", "ordinal-regression")
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
}


@dataclass(frozen=True)
class Published:
    """A data set as published, its three splits one after the other.

    Attributes:
        images: ``uint8 [n, C, side, side]``, C 1 or 3.
        labels: class indices ``int64 [n]``.
        split: official split of every image: ``train``, ``val`` or ``test``.
        number: position of every image in its official split.
        classes: class names fit for columns and file names, in the order of the indices.
        modality: DICOM modality.
        facts: title, licence, citation, address, class names as published, and whether the file is the official one.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    split: NDArray[np.str_]
    number: NDArray[np.int64]
    classes: tuple[str, ...]
    modality: str
    facts: dict[str, Any]


def information(flag: str) -> dict[str, Any]:
    """The entry of ``medmnist.INFO``. Raises InputError where the set is unknown or of a kind that is not read."""
    usable = sorted(name for name, info in medmnist.INFO.items() if info["task"] in TASKS and not name.endswith("3d"))
    if flag not in usable:
        why = "is not a 2-D set with one label an image" if flag in medmnist.INFO else "is not a MedMNIST data set"
        raise InputError(f"ingest.dataset {flag!r} {why}: choose one of {', '.join(usable)}")
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


def read(ingest: IngestConfig) -> Published:
    """Read the set that the configuration names, at the published size that serves ``ingest.size``.

    Raises:
        InputError: the set is unknown, of another kind, absent, or its file damaged.
    """
    assert ingest.dataset is not None
    info = information(ingest.dataset)
    path = medmnist_file(ingest)
    side = medmnist_side(ingest.size)
    broken = InputError(f"{path} is damaged or not {ingest.dataset}'s file: delete it, and it is downloaded again")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = [arrays[f"{name}_images"] for name in SPLITS]
            labels = [arrays[f"{name}_labels"] for name in SPLITS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise broken from None
    channels = int(info["n_channels"])
    shape = (side, side) if channels == 1 else (side, side, channels)
    classes = [str(info["label"][str(index)]) for index in range(len(info["label"]))]
    for part, marks in zip(images, labels):
        valid = part.dtype == np.uint8 and part.shape[1:] == shape and marks.shape == (len(part), 1)
        if not valid or not np.issubdtype(marks.dtype, np.integer) or not np.isin(marks, range(len(classes))).all():
            raise broken
    stacked = np.concatenate(images)
    official = info["MD5" if side == 28 else f"MD5_{side}"]
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "md5").hexdigest() == official
    return Published(
        images=stacked[:, None] if channels == 1 else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)),
        labels=np.concatenate(labels)[:, 0].astype(np.int64),
        split=np.repeat(np.array(SPLITS), [len(part) for part in images]),
        number=np.concatenate([np.arange(len(part)) for part in images]),
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
