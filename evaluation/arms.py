"""Downstream classifiers, one arm for each way to make use of synthetic images: what they are trained on differs, and nothing else.

All arms have the same network, the same seeds, and the same number of images seen: none stops before the last has reached its plateau on
the same real held-out patients, and each keeps its best state. Every arm but one draws all classes equally often.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.classifiers import Kind
from evaluation.data import Labelled
from evaluation.metrics import Floats
from evaluation.training import Task, Trained, train

CONTROL = "real"
"""What every other arm is compared with."""
DEFAULT = (CONTROL, "real+augmentation", "real+synthetic")
RATIOS = {"real+synthetic": 1.0, "real+synthetic x0.5": 0.5, "real+synthetic x2": 2.0, "real+synthetic x4": 4.0}
"""Synthetic images drawn for each real one of the same class; all of them are in the pool, whatever the ratio."""
FULL = (
    *DEFAULT,
    "real unweighted",
    "synthetic",
    "real+synthetic x0.5",
    "real+synthetic x2",
    "real+synthetic x4",
    "real+synthetic rare",
    "synthetic then real",
)
PRETRAINING = 1 / 8
"""Share of the ceiling that ``synthetic then real`` spends on synthetic images."""


@dataclass(frozen=True)
class Recipe:
    """What an arm draws from the real training images followed by the synthetic ones: weights ``[n + m]``, as :class:`Task` takes them."""

    weights: Floats
    before: Floats | None = None
    augment: bool = False


def recipe(arm: str, train: Labelled, synthetic: Labelled) -> Recipe:
    """How an arm of :data:`FULL` draws.

    ``real+synthetic rare`` adds synthetic images of the class with the fewest real ones only; ``real unweighted`` draws real images as
    often as they occur, which shows what drawing the classes equally does by itself.

    Raises:
        ValueError: there is no such arm.
    """
    real = np.arange(len(train) + len(synthetic)) < len(train)
    labels = np.concatenate([train.labels, synthetic.labels])
    alone = _mixed(labels, real, 0.0)
    if arm in ("real", "real+augmentation"):
        return Recipe(alone, augment=arm != CONTROL)
    if arm in RATIOS:
        return Recipe(_mixed(labels, real, RATIOS[arm]))
    if arm == "real unweighted":
        return Recipe(real.astype(np.float64))
    if arm == "synthetic":
        return Recipe(_mixed(labels, ~real, 0.0))
    if arm == "real+synthetic rare":
        counts = np.bincount(train.labels, minlength=train.classes)
        rare = labels == np.where(counts > 0, counts, len(labels)).argmin()
        return Recipe(np.where(rare, _mixed(labels, real, 1.0), alone))
    if arm == "synthetic then real":
        return Recipe(alone, before=_mixed(labels, ~real, 0.0))
    raise ValueError(f"no arm {arm!r}: {', '.join(FULL)}")


def train_arms(
    real: Labelled,
    synthetic: Labelled,
    choose: Labelled,
    *,
    arms: Sequence[str],
    seeds: int,
    kind: Kind,
    ceiling: int,
    rng: np.random.Generator,
    device: str,
    progress: Callable[[int], None] | None = None,
) -> dict[str, list[Trained]]:
    """``seeds`` classifiers of every arm; an arm's i-th network shares its seed with the others' i-th.

    Args:
        choose: real images of other patients, on which the plateau is seen.
        ceiling: images in training one network, at the most.
    """
    images = np.concatenate([real.unit, synthetic.unit])
    labels = np.concatenate([real.labels, synthetic.labels])
    numbers = [int(number) for number in rng.integers(2**31, size=seeds)]
    recipes = [recipe(arm, real, synthetic) for arm in arms]
    tasks = [
        Task(
            images,
            labels,
            real.classes,
            number,
            choose,
            how.weights,
            None if how.before is None else (how.before, int(PRETRAINING * ceiling)),
            how.augment,
            arm,
        )
        for arm, how in zip(arms, recipes)
        for number in numbers
    ]
    trained = iter(train(tasks, kind=kind, ceiling=ceiling, device=device, together=True, progress=progress))
    return {arm: list(itertools.islice(trained, seeds)) for arm in arms}


def course(trained: Sequence[Trained]) -> dict[str, Any]:
    """How trainings of one kind went: ``images`` seen by each kept state, ``plateau`` (whether each ended by itself), and ``curve``.

    The curve is ``[[images seen, held-out loss]]``, the mean over the trainings that were still going.
    """
    at = sorted({seen for one in trained for seen, _ in one.curve})
    means = [[seen, float(np.mean([loss for one in trained for when, loss in one.curve if when == seen]))] for seen in at]
    return {"images": [one.images for one in trained], "plateau": [one.plateau for one in trained], "curve": means}


def _mixed(labels: NDArray[np.int64], first: NDArray[np.bool_], ratio: float) -> Floats:
    """Classes equally often; within each, ``ratio`` images of the second set for one of the first, or all of the one that has any."""
    weights = np.zeros(len(labels))
    for label in np.unique(labels):
        sides = [np.flatnonzero((labels == label) & side) for side in (first, ~first)]
        shares = [1 / (1 + ratio), ratio / (1 + ratio)]
        whole = sum(share for rows, share in zip(sides, shares) if len(rows))
        for rows, share in zip(sides, shares):
            if len(rows) and whole > 0:
                weights[rows] = share / whole / len(rows)
    return weights
