"""Cohorts on which the copy search is measured: real images and phantoms, divided as an audit finds them, with honest ones besides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.copy_baselines import Images


@dataclass(frozen=True)
class Cohort:
    """Images divided as an audit finds them, and the class of every training image."""

    train: Images
    audit: Images
    learn: Images
    honest: Images
    audit_groups: NDArray[np.int64]
    learn_groups: NDArray[np.int64]
    labels: NDArray[np.int64]
    train_groups: NDArray[np.int64]


def pneumonia(path: Path, train: int, audit: int, honest: int, rng: np.random.Generator) -> Cohort:
    """PneumoniaMNIST's official training images divided at random, at most ``honest`` of them honest; *learn* is half of its validation
    images."""
    with np.load(path, allow_pickle=False) as stored:
        images, labels, val = stored["train_images"][:, None], stored["train_labels"].ravel(), stored["val_images"][:, None]
    order = rng.permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int64)
    # Exact repeats across the sides would be false alarms of nobody's making.
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    kept = np.sort(first)
    images, labels = images[kept], labels[kept]
    train = min(train, (len(images) - 200) // 2)
    audit = min(audit, (len(images) - train) // 2)
    half = val[rng.permutation(len(val))[: len(val) // 2]]
    parts = images[:train], images[train : train + audit], half, images[train + audit :][:honest]
    return Cohort(*parts, np.arange(audit), np.arange(len(half)), labels[:train], np.arange(train))


def phantoms(size: int, train: int, audit: int, honest: int, learn: int, seed: int) -> Cohort:
    """Phantoms by patient, about as many of each part as asked for."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from pipeline.phantom.anatomy import draw_patients
    from pipeline.system import usable_cores

    wanted = np.cumsum([train, audit, learn, honest])
    patients = draw_patients(int(wanted[-1] / 1.9) + 20, seed)
    visits = np.cumsum([len(patient.visits) for patient in patients])
    ends = np.searchsorted(visits, wanted) + 1
    with ProcessPoolExecutor(usable_cores(), multiprocessing.get_context("spawn")) as pool:
        shares = np.array_split(np.arange(ends[-1]), min(64, ends[-1]))
        many = len(shares)
        drawn = list(pool.map(_drawn, shares, [seed] * many, [size] * many, [len(patients)] * many))
    images, labels, groups = (np.concatenate(column) for column in zip(*drawn))
    part = [(groups >= low) & (groups < high) for low, high in zip([0, *ends], ends)]
    return Cohort(*(images[part[number]] for number in (0, 1, 2, 3)), groups[part[1]], groups[part[2]], labels[part[0]], groups[part[0]])


def _drawn(numbers: NDArray[np.int64], seed: int, size: int, count: int) -> tuple[Images, NDArray[np.int64], NDArray[np.int64]]:
    from pipeline.phantom.anatomy import CLASSES, draw_patients
    from pipeline.phantom.image import render

    patients = draw_patients(count, seed)
    visits = [(patients[number], visit) for number in numbers for visit in range(len(patients[number].visits))]
    images = np.stack([np.rint(render(patient, visit, size) * 255).astype(np.uint8)[None] for patient, visit in visits])
    labels = [CLASSES.index(patient.visits[visit].finding) for patient, visit in visits]
    return images, np.array(labels, np.int64), np.array([patient.index for patient, _ in visits], np.int64)
