"""The two-sample test of the quality benchmarks: one network, on halves that all candidates share, so that their floor is trained once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.classifiers import Kind
from evaluation.data import Labelled, halve
from evaluation.intervals import Interval
from evaluation.metrics import Floats
from evaluation.training import Task, train
from tests.benchmarks.bootstrap import percentile_interval, resample_weights, weighted_auc

HELD = 5
"""One group in so many of a training half only says when the network has reached its plateau."""


@dataclass(frozen=True)
class TwoSample:
    """A classifier two-sample test: scores are higher for the candidate; fold f was scored by the network of the other fold."""

    scores: Floats
    is_candidate: NDArray[np.bool_]
    fold: NDArray[np.int64]
    groups: NDArray[np.int64]
    labels: NDArray[np.int64]

    def scored(self, by_fold: Sequence[Floats]) -> TwoSample:
        """With the scores of fold 0's rows and of fold 1's, each by the network of the other fold."""
        scores = np.empty(len(self.labels))
        for f, values in enumerate(by_fold):
            scores[self.fold == f] = values
        return dataclasses.replace(self, scores=scores)

    def areas(self, weights: Floats, label: int | None = None) -> Floats:
        """AUC (0.5: cannot be told apart) under weights ``[B, n]``: ``[B]``, the mean of both folds; within one class if given."""
        keep = np.ones(len(self.labels), dtype=bool) if label is None else self.labels == label
        folds = [keep & (self.fold == f) for f in (0, 1)]
        return np.asarray(np.mean([weighted_auc(self.scores[rows], self.is_candidate[rows], weights[:, rows]) for rows in folds], axis=0))

    def interval(self, rng: np.random.Generator, resamples: int = 500, label: int | None = None) -> Interval:
        """:meth:`areas`, bootstrapped by group."""
        keep = np.ones(len(self.labels), dtype=bool) if label is None else self.labels == label
        if not (self.fold >= 0).any():
            return Interval(math.nan, math.nan, math.nan, int(keep.sum()))
        weights = np.concatenate([np.ones((1, len(self.groups))), resample_weights(self.groups, rng, resamples)])
        areas = self.areas(weights, label)
        return percentile_interval(float(areas[0]), areas[1:], int(keep.sum()))


def two_sample_halves(candidate: Labelled, reference: Labelled, rng: np.random.Generator) -> tuple[NDArray[np.float32], TwoSample]:
    """The images ``[n, C, H, W]`` of a two-sample test and their halves, drawn by group, before anything is scored (scores are 0).

    No patient is in both halves. With fewer than two groups a side nothing can be held out: no row is in a fold then (-1).
    """
    images = np.concatenate([candidate.unit, reference.unit])
    is_candidate = np.repeat([True, False], [len(candidate), len(reference)])
    groups = _joint_groups(candidate.groups, reference.groups)
    labels = np.concatenate([candidate.labels, reference.labels])
    fold = np.full(len(images), -1, dtype=np.int64)
    if min(len(np.unique(part.groups)) for part in (candidate, reference)) >= 2:
        for side in (True, False):
            rows = np.flatnonzero(is_candidate == side)
            fold[rows] = halve(groups[rows], rng)
    return images, TwoSample(np.zeros(len(images)), is_candidate, fold, groups, labels)


def two_sample_tasks(images: NDArray[np.float32], test: TwoSample, seeds: Sequence[int]) -> list[Task]:
    """The trainings of a test, one for each fold that it scores."""
    tasks = []
    for f, seed in enumerate(seeds):
        rows, y = np.flatnonzero(test.fold != f), test.is_candidate.astype(np.int64)
        groups = np.unique(test.groups[rows])
        held = np.isin(test.groups[rows], np.random.default_rng(seed).permutation(groups)[: max(1, len(groups) // HELD)])
        learn, watch = rows[~held], rows[held]
        choose = Labelled.of_classes(images[watch], y[watch], test.groups[watch], 2)
        tasks.append(Task(images[learn], y[learn], 2, seed, choose))
    return tasks


def two_sample_test(
    candidate: Labelled, reference: Labelled, *, kind: Kind, images_seen: int, rng: np.random.Generator, device: str
) -> TwoSample:
    """Train on one half to tell ``candidate`` from ``reference``, score the other, and the other way round (Lopez-Paz & Oquab 2017).

    Halves are those of :func:`two_sample_halves`; where nothing can be held out, the interval is NaN.
    """
    images, test = two_sample_halves(candidate, reference, rng)
    if not (test.fold >= 0).any():
        return test
    tasks = two_sample_tasks(images, test, [int(rng.integers(2**31)) for _ in range(2)])
    trained = train(tasks, kind=kind, ceiling=images_seen, device=device)
    return test.scored([one.classifier.predict(images[test.fold == f])[:, 1] for f, one in enumerate(trained)])


def _joint_groups(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """Integer groups of two sets of which a patient may have images in only one."""
    first, second = (np.unique(x, return_inverse=True)[1].reshape(-1).astype(np.int64) for x in (a, b))
    return np.concatenate([first, second + (first.max(initial=-1) + 1)])
