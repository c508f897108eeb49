"""What synthetic images are good for: training on them, alone or beside real ones, judged on real test patients.

Arms differ in their training images only: the same network, number of images seen, seeds, and selection on the same real
validation images. The test set is scored once per trained network.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.encoder import Classifier, Kind, train_classifier, train_together
from evaluation.intervals import clopper_pearson, interval_of, resample_weights, resampled_metrics
from evaluation.metrics import Floats

ARMS = ("real", "synthetic", "real+synthetic")
METRICS = ("auc", "accuracy", "balanced_accuracy", "class_auc", "class_recall")


def join(first: Labelled, second: Labelled) -> Labelled:
    """Both sets one after the other; their groups stay apart."""
    groups = [np.array([f"{side}:{group}" for group in part.groups]) for side, part in enumerate((first, second))]
    return Labelled(np.concatenate([first.unit, second.unit]), np.concatenate([first.findings, second.findings]), np.concatenate(groups))


def train_arms(
    train: Labelled,
    synthetic: Labelled,
    val: Labelled,
    classes: int,
    *,
    seeds: int,
    kind: Kind,
    images_seen: int,
    rng: np.random.Generator,
    device: str,
) -> dict[str, list[Classifier]]:
    """``seeds`` classifiers of every arm of :data:`ARMS`; an arm's i-th network shares its seed with the others' i-th."""
    sets = dict(zip(ARMS, (train, synthetic, join(train, synthetic)), strict=True))
    numbers = rng.integers(2**31, size=seeds)
    jobs = [
        functools.partial(
            train_classifier,
            data.unit,
            data.labels,
            kind=kind,
            images_seen=images_seen,
            seed=int(number),
            device=device,
            val=val,
            classes=classes,
        )
        for data in sets.values()
        for number in numbers
    ]
    trained = iter(train_together(jobs, device))
    return {arm: list(itertools.islice(trained, seeds)) for arm in sets}


def label_fidelity(
    probabilities: Floats, labels: NDArray[np.int64], class_names: tuple[str, ...], rng: np.random.Generator
) -> dict[str, Any]:
    """How often real-trained classifiers name a synthetic image's own class.

    Args:
        probabilities: ``[seeds, n, K]``, averaged over the seeds before the largest is taken.
        labels: the classes that were asked for, ``[n]``.

    Returns:
        ``per_class``: recall with its Clopper-Pearson interval; ``macro``: their mean, bootstrapped by image.
    """
    predicted = probabilities.mean(axis=0).argmax(axis=1)
    per_class = {
        name: clopper_pearson(int((predicted[labels == k] == k).sum()), int((labels == k).sum())) for k, name in enumerate(class_names)
    }
    one_hot = np.eye(len(class_names))[predicted]
    macro = resampled_metrics(one_hot, labels, resample_weights(np.arange(len(labels)), rng, 500)).balanced_accuracy
    return {"per_class": per_class, "macro": interval_of(macro, len(labels))}


def utility(
    probabilities: dict[str, Floats], test: Labelled, class_names: tuple[str, ...], rng: np.random.Generator, resamples: int = 1000
) -> dict[str, Any]:
    """Every arm's metrics on the test patients, and the paired differences of macro AUC to the real arm.

    An interval resamples patients and, independently for each arm, seeds: it holds both the luck of the test set and that
    of training. The differences are paired by patient: each resample holds the same patients for both arms.

    Args:
        probabilities: of the test images by arm, ``[seeds, n, K]`` each, with an arm ``real``.

    Returns:
        ``seeds``, ``n_test``, ``arms`` and ``paired_auc``, with :class:`Interval` leaves.
    """
    seeds, n, _ = probabilities["real"].shape
    weights = resample_weights(test.groups, rng, resamples)
    arms: dict[str, Any] = {}
    macro: dict[str, Floats] = {}
    for arm, p in probabilities.items():
        by_seed = [resampled_metrics(one, test.labels, weights) for one in p]
        choice = rng.integers(seeds, size=(resamples, seeds))
        mixed = {name: _over_seeds(np.stack([getattr(one, name) for one in by_seed]), choice) for name in METRICS}
        macro[arm] = mixed["auc"]
        arms[arm] = {name: interval_of(mixed[name], n) for name in METRICS[:3]}
        arms[arm]["per_class"] = {
            name: {
                "auc": interval_of(mixed["class_auc"][:, k], n),
                "recall": interval_of(mixed["class_recall"][:, k], int((test.labels == k).sum())),
            }
            for k, name in enumerate(class_names)
        }
    paired = {f"{arm}-real": interval_of(macro[arm] - macro["real"], n) for arm in probabilities if arm != "real"}
    return {"seeds": seeds, "n_test": n, "arms": arms, "paired_auc": paired}


def _over_seeds(values: Floats, choice: NDArray[np.int64]) -> Floats:
    """Mean over seeds of ``values`` [S, 1 + B, ...]: all seeds for the sample itself, the chosen ones [B, S] for its resamples."""
    rows = np.arange(1, values.shape[1])[:, None]
    return np.concatenate([values[:, :1].mean(axis=0), values[choice, rows].mean(axis=1)])
