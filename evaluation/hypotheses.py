"""Synthetic cases as a question to a classifier: only those whose label real-trained judges are sure of, and only as hypotheses.

The judges learn from real cases, each half by patient, and are scored on the other, so that it is known what they can tell. A synthetic
case is kept where every one of them names its label. What a model misses among those may be the model's weakness or the generator's: it
says where to look for real cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.classifiers import Classifier
from evaluation.data import Labelled, halve, rarest
from evaluation.intervals import share_interval
from evaluation.judges import Fitness, fitness
from evaluation.metrics import Floats, recall_estimate, share_estimate
from evaluation.training import Task, Trained, train, unfinished

CHOOSE = 5
"""One patient in so many of a half only says when a judge has reached its plateau."""
NEIGHBOURS = 2000
"""Real cases at the most among which a judge looks for the nearest one."""
SPARSE = 0.9
"""A synthetic case is called one of low density where it lies farther from the real ones than this share of them from each other."""
NOTE = (
    "A failure on synthetic cases is a hypothesis: it may be the model's, or the generator's. Only cases were asked whose label every one "
    "of {judges} judges named, who had learned from the real cases; what they are unsure of was left out."
)


@dataclass(frozen=True)
class Space:
    """Real cases in a judge's features, which it did not learn from.

    Attributes:
        mean, deviation: of each feature, ``[D]``.
        points: the cases, standardised, ``[m, D]``.
        apart: distance of each to the nearest one of another patient, ascending ``[m]``.
    """

    mean: Floats
    deviation: Floats
    points: Floats
    apart: Floats

    @classmethod
    def of(cls, features: NDArray[np.float32], groups: NDArray[Any]) -> Space:
        """Of real cases' features ``[m, D]`` and patients ``[m]``, two of them at the least."""
        values = features.astype(np.float64)
        mean, deviation = values.mean(axis=0), values.std(axis=0) + 1e-6
        points = (values - mean) / deviation
        distances = _distances(points, points)
        distances[groups[:, None] == groups[None, :]] = np.inf
        return cls(mean, deviation, points, np.sort(distances.min(axis=1)))

    def rank(self, features: NDArray[np.float32]) -> Floats:
        """Share of the real cases that lie nearer to another patient's than each of these ``[n, D]`` to any: 0..1, ``[n]``."""
        if not len(features):
            return np.zeros(0)
        nearest = _distances((features.astype(np.float64) - self.mean) / self.deviation, self.points).min(axis=1)
        return np.asarray(np.searchsorted(self.apart, nearest) / len(self.apart), np.float64)


@dataclass(frozen=True)
class Judges:
    """Networks that learned from real cases.

    Attributes:
        networks: two a seed, of one half each.
        fitness: what they score on the half that they did not see.
        spaces: that half in each one's features.
    """

    networks: tuple[Classifier, ...]
    fitness: Fitness
    spaces: tuple[Space, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """What the judges say of synthetic cases, each ``[n]``.

    Attributes:
        sure: whether every judge names the case's label, of a class that they are fit for.
        fidelity: mean probability that they give its label.
        distance: mean of :meth:`Space.rank`: how far it lies from all real cases, 0..1; NaN without a space.
    """

    sure: NDArray[np.bool_]
    fidelity: Floats
    distance: Floats


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
    trained, scores, spaces = by_halves(real, real.labels, seeds=seeds, ceiling=ceiling, rng=rng, device=device, progress=progress)
    return Judges(tuple(one.classifier for one in trained), fitness(scores, real, names, unfinished(trained)), spaces)


def by_halves(
    real: Labelled,
    labels: NDArray[Any],
    *,
    seeds: int,
    ceiling: int,
    rng: np.random.Generator,
    device: str,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Trained], Floats, tuple[Space, ...]]:
    """Two networks a seed, each of one half of the patients, side by side.

    Args:
        labels: what they learn, as :class:`evaluation.training.Task` has it.

    Returns:
        The networks; each case's scores by those that did not see it, ``[seeds, n, K]``; and what each did not see, in its features.
    """
    half = halve(real.groups, rng, rarest(real.findings == 1))
    patients, member = np.unique(real.groups, return_inverse=True)
    held = (rng.permutation(len(patients)) % CHOOSE == 0)[member.reshape(-1)]
    tasks = []
    for _ in range(seeds):
        for side in (0, 1):
            learn, choose = np.flatnonzero((half == side) & ~held), np.flatnonzero((half == side) & held)
            number, held_out = int(rng.integers(2**31)), real.take(choose)
            tasks.append(Task(real.unit[learn], labels[learn], real.classes, number, held_out))
    trained = train(tasks, kind="small", ceiling=ceiling, device=device, progress=progress)
    scores = np.empty((seeds, len(real), real.classes))
    spaces = []
    for number, one in enumerate(trained):
        other = np.flatnonzero(half != number % 2)
        scores[number // 2, other] = one.classifier.predict(real.unit[other])
        some = np.sort(rng.permutation(other)[:NEIGHBOURS])
        spaces.append(Space.of(one.classifier.features(real.unit[some]), real.groups[some]))
    return trained, scores, tuple(spaces)


def judgement(judges: Judges, images: NDArray[np.float32], labels: NDArray[np.int64], names: tuple[str, ...]) -> Judgement:
    """What the judges say of synthetic images ``[n, C, H, W]`` in -1..1 with these labels ``[n]``."""
    fit = np.array([judges.fitness.class_unfit[name] is None for name in names])
    p = np.stack([one.predict(images) for one in judges.networks])
    ranks = [space.rank(one.features(images)) for one, space in zip(judges.networks, judges.spaces)]
    return Judgement(
        fit[labels] & (p.argmax(axis=2) == labels).all(axis=0),
        np.asarray(p.mean(axis=0)[np.arange(len(labels)), labels], np.float64),
        np.mean(ranks, axis=0) if ranks else np.full(len(labels), np.nan),
    )


def hypotheses(
    judges: Judges, judged: Judgement, kept: NDArray[np.bool_], p: Floats, labels: NDArray[np.int64], names: tuple[str, ...]
) -> dict[str, Any]:
    """What the model misses among synthetic cases whose label is sure.

    Args:
        kept: which cases were asked: of those that are sure, ``[n]``.
        p: the model's probabilities for the kept ones, in their order.
        labels: of all synthetic cases, ``[n]``.

    Returns:
        ``images``, ``kept``; ``right``, the share of these that the model names; ``distance``, the median of the kept ones';
        ``low_density``: ``kept`` and ``right`` of those beyond :data:`SPARSE`; ``classes``: by name ``images``, ``kept`` and
        ``sensitivity``, or ``unfit``, why the judges say nothing of it.
    """
    rows, far = labels[kept], judged.distance[kept] >= SPARSE
    named = p.argmax(axis=1)
    classes: dict[str, Any] = {}
    for k, name in enumerate(names):
        found: dict[str, Any] = {"images": int((labels == k).sum()), "kept": int((rows == k).sum())}
        if (why := judges.fitness.class_unfit[name]) is not None:
            found["unfit"] = f"a judge {why}"
        found["sensitivity"] = share_interval(recall_estimate(named, rows, np.arange(len(rows)), k))
        classes[name] = found
    return {
        "images": len(labels),
        "kept": len(rows),
        "right": share_interval(share_estimate(named == rows, np.arange(len(rows)))),
        "distance": float(np.median(judged.distance[kept])) if len(rows) else float("nan"),
        "low_density": {
            "kept": int(far.sum()),
            "right": share_interval(share_estimate((named == rows)[far], np.arange(int(far.sum())))),
        },
        "classes": classes,
    }


def told(judges: Judges, sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``note``; ``judges``, with what they score; ``sets``: those of :func:`hypotheses`, each with its ``name``."""
    return {
        "note": NOTE.format(judges=len(judges.networks)),
        "judges": judges.fitness.to_dict(),
        "sets": [{"name": name} | dict(one) for name, one in sets.items()],
    }


def _distances(one: Floats, other: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(one, other), np.float64)
