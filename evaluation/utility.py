"""What synthetic images are good for: training on them, alone or beside real ones, judged on real test patients.

The arms are those of :mod:`evaluation.arms`. The test set is scored once per trained network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.intervals import interval_of, resample_weights, resampled_metrics
from evaluation.metrics import Floats

METRICS = ("auc", "accuracy", "balanced_accuracy", "class_auc", "class_recall")


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
