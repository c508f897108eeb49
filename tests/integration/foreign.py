"""Foreign sets for the tests: what a generator saw, a holdout, and synthetic images of other phantoms, as folders of pictures."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.phantom.image import phantom_arrays

CLASSES = ("abnormal", "normal")
SIDE = 24
QUICK = ("audit.planted=20", "evaluate.seeds=2", "evaluate.classifier_images=64", "stress.classifier_images=64")


@functools.cache
def phantoms(patients: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Images ``[n, H, W]``, their classes and their patients."""
    images, labels, of = phantom_arrays(patients, seed, SIDE)
    return images[:, 0], (labels == 0).astype(np.int64), of


def pictures(folder: Path, images: NDArray[Any], labels: NDArray[np.int64], patients: NDArray[np.int64] | None = None) -> Path:
    """PNG files in class folders; with ``patients`` a ``labels.csv`` says whose they are."""
    lines = ["file,label,patient_id"]
    for number, (image, label) in enumerate(zip(images, labels)):
        file = folder / CLASSES[label] / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        lines.append(f"{CLASSES[label]}/{file.name},{CLASSES[label]},{-1 if patients is None else patients[number]}")
    if patients is not None:
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def sets(folder: Path, train: int = 40, holdout: int = 30, synthetic: int = 25) -> tuple[Path, Path, Path]:
    """A, B and C: of so many patients, none in two of them."""
    images, labels, of = phantoms(train + holdout, 3)
    seen = of < train
    made, classes, _ = phantoms(synthetic, 11)
    return (
        pictures(folder / "A", images[seen], labels[seen], of[seen]),
        pictures(folder / "B", made, classes),
        pictures(folder / "C", images[~seen], labels[~seen], of[~seen]),
    )
