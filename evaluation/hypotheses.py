"""Synthetic cases as a question to a classifier: only those whose label real-trained judges are sure of, and only as hypotheses.

The judges learn from real cases, each half by patient, and are scored on the other, so that it is known what they can tell. A synthetic
case is kept where every one of them names its label. What a model misses among those may be the model's weakness or the generator's: it
says where to look for real cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.classifiers import Classifier
from evaluation.data import Labelled, halve
from evaluation.intervals import share_interval
from evaluation.judges import Fitness, fitness
from evaluation.metrics import Floats, recall_estimate
from evaluation.training import Task, train, unfinished

CHOOSE = 5
"""One patient in so many of a half only says when a judge has reached its plateau."""
NOTE = (
    "A failure on synthetic cases is a hypothesis: it may be the model's, or the generator's. Only cases were asked whose label every one "
    "of {judges} judges named, who had learned from the real cases; what they are unsure of was left out."
)


@dataclass(frozen=True)
class Judges:
    """Networks that learned from real cases.

    Attributes:
        networks: two a seed, of one half each.
        fitness: what they score on the half that they did not see.
    """

    networks: tuple[Classifier, ...]
    fitness: Fitness


def learned(
    real: Labelled,
    names: tuple[str, ...],
    *,
    seeds: int,
    ceiling: int,
    rng: np.random.Generator,
    device: str,
    progress: Callable[[int], None] | None = None,
) -> Judges:
    """Train the judges, all side by side.

    Args:
        real: cases with their images, of one size.
        ceiling: images in training one judge, at the most; one that is still learning then is unfit.
    """
    half = halve(real.groups, rng, real.labels)
    patients, member = np.unique(real.groups, return_inverse=True)
    held = (rng.permutation(len(patients)) % CHOOSE == 0)[member.reshape(-1)]
    tasks = []
    for _ in range(seeds):
        for side in (0, 1):
            learn, choose = np.flatnonzero((half == side) & ~held), np.flatnonzero((half == side) & held)
            tasks.append(Task(real.unit[learn], real.labels[learn], real.classes, int(rng.integers(2**31)), real.take(choose)))
    trained = train(tasks, kind="small", ceiling=ceiling, device=device, progress=progress)
    scores = np.empty((seeds, len(real), real.classes))
    for number, one in enumerate(trained):
        other = half != number % 2
        scores[number // 2, other] = one.classifier.predict(real.unit[other])
    return Judges(tuple(one.classifier for one in trained), fitness(scores, real, names, unfinished(trained)))


def sure(judges: Judges, images: NDArray[np.float32], labels: NDArray[np.int64], names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which synthetic images ``[n, C, H, W]`` in -1..1 every judge gives its own label; none of a class that they are not fit for."""
    fit = np.array([judges.fitness.class_unfit[name] is None for name in names])
    kept = fit[labels]
    for one in judges.networks:
        kept = kept & (one.predict(images).argmax(axis=1) == labels)
    return np.asarray(kept, bool)


def hypotheses(judges: Judges, kept: NDArray[np.bool_], p: Floats, labels: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Any]:
    """What the model misses among synthetic cases whose label is sure.

    Args:
        kept: of :func:`sure`, ``[n]``.
        p: the model's probabilities for the kept ones, in their order.
        labels: of all synthetic cases, ``[n]``.

    Returns:
        ``note``; ``judges``, with what they score; ``images``, ``kept``; ``classes``: by name ``images``, ``kept`` and ``sensitivity``, or
        ``unfit``, why the judges say nothing of it.
    """
    rows = labels[kept]
    classes: dict[str, Any] = {}
    for k, name in enumerate(names):
        found: dict[str, Any] = {"images": int((labels == k).sum()), "kept": int((rows == k).sum())}
        if (why := judges.fitness.class_unfit[name]) is not None:
            found["unfit"] = f"a judge {why}"
        found["sensitivity"] = share_interval(recall_estimate(p.argmax(axis=1), rows, np.arange(len(rows)), k))
        classes[name] = found
    return {
        "note": NOTE.format(judges=len(judges.networks)),
        "judges": judges.fitness.to_dict(),
        "images": len(labels),
        "kept": len(rows),
        "classes": classes,
    }
