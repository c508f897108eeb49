"""The two-sample panel: can a judge tell synthetic images from sealed real ones, and better than real ones from real ones?

Three judges of different kinds look: a small network, plain features, and where there is one a network trained on ImageNet. The headline is
the best of them on synthetic against real, beside the best of them on real against real at the same n: choosing the best favours both
sides alike. Every score is of an image whose patient the judge did not see (Lopez-Paz & Oquab 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.comparisons import difference
from evaluation.data import Labelled, halve
from evaluation.giveaways import giveaways
from evaluation.intervals import CROSS_FITTED, cross_fitted, cross_fitted_estimate, interval
from evaluation.judges import unfit
from evaluation.metrics import TOO_FEW, Estimate, Floats, hanley_mcneil, independent
from evaluation.training import Task, train

VERSION = 1
"""Of the panel: raised when its judges change, so that scores of different releases are not held against each other."""
AIM = 0.05
"""How far above real against real the panel's best may lie for synthetic images to count as hard to tell."""
RESOLVED = 0.02
"""Standard error of that difference above which it is not resolvable."""
FOLDS = {"cnn": 2, "plain": 5, "imagenet": 5}
PENALTY = 0.1
"""Inverse strength of the logistic regression's penalty, on standardised features (scikit-learn's C)."""
CHOOSE = 5
"""One patient in so many of a training fold only says when the network has reached its plateau."""

Space = Callable[[NDArray[np.float32]], Floats]


@dataclass(frozen=True)
class Pair:
    """Two sets to be told apart, as rows of one pool; ``rows`` are those of both."""

    candidate: NDArray[np.int64]
    reference: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The candidate's rows, then the reference's."""
        return np.concatenate([self.candidate, self.reference])

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Which of :attr:`rows` are the candidate's."""
        return np.arange(len(self.candidate) + len(self.reference)) < len(self.candidate)


@dataclass(frozen=True)
class Scored:
    """A pair with a judge's scores: of ``pair.rows``, each by a model of the other folds."""

    pair: Pair
    scores: Floats
    fold: NDArray[np.int64]


def panel(
    audit: Labelled,
    synthetic: Labelled,
    names: tuple[str, ...],
    *,
    spaces: Mapping[str, Space | str],
    splits: int,
    ceiling: int,
    rng: np.random.Generator,
    device: str,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Let every judge tell synthetic images from half A of the sealed ones, and half B from A, on ``splits`` halvings by patient.

    Each class is taken at the largest n there is: as many images a side as the smallest of A, B and the synthetic ones has.

    Args:
        spaces: feature spaces by name, beside the network; instead of one, the reason why it is not there.
        ceiling: images in training one network, at the most.

    Returns:
        ``version``, ``n`` (images a side), ``splits``; ``judges`` by name, with ``synthetic``, ``floor`` and ``control``, or a reason;
        ``synthetic``, ``floor``, ``difference`` of the best, ``standard_error``, ``aim`` and ``verdict``; ``per_class`` the same by class;
        ``giveaways`` (:func:`~evaluation.giveaways.giveaways`).
        Where nothing can be held out, or no judge sees what was planted: ``{"unfit": reason}``.
    """
    pool = _pool(audit, synthetic)
    halvings = [_halving(audit, synthetic, names, rng) for _ in range(splits)]
    sides = {
        "synthetic": [Pair(made + len(audit), a) for a, _, made in halvings],
        "floor": [Pair(b, a) for a, b, _ in halvings],
        "control": [Pair(b + len(audit) + len(synthetic), a) for a, b, _ in halvings[:1]],
    }
    pairs = [pair for one in sides.values() for pair in one]
    n = min(len(pair.candidate) for pair in pairs)
    patients = min(len(np.unique(pool.groups[rows])) for pair in pairs for rows in (pair.candidate, pair.reference))
    found: dict[str, Any] = {"version": VERSION, "n": n, "splits": splits}
    if patients < 2 * TOO_FEW:
        return found | {"unfit": f"could not be trained on so few images: {patients} patients a side, fewer than {2 * TOO_FEW}"}
    scored = {"cnn": _network(pool, pairs, ceiling, rng, device, progress)}
    features = {name: space(pool.unit) for name, space in spaces.items() if callable(space)}
    scored |= {name: _linear(of_images, pool, pairs, FOLDS[name], rng) for name, of_images in features.items()}
    by_side = {judge: _by_side(all_pairs, sides) for judge, all_pairs in scored.items()}
    universe = pool.take(np.arange(len(pool)) < len(audit) + len(synthetic))
    is_made = np.arange(len(universe)) >= len(audit)
    controls = {judge: cross_fitted(*_flat(one["control"][0], pool)) for judge, one in by_side.items()}
    seeing = [judge for judge, control in controls.items() if unfit(control) is None]

    def best(side: str, judges: Sequence[str], label: int | None = None) -> Estimate:
        return _best([[by_side[judge][side][r] for judge in judges] for r in range(splits)], universe, is_made, label)

    found["judges"] = {name: {"skipped": reason} for name, reason in spaces.items() if isinstance(reason, str)}
    for judge, control in controls.items():
        blind = unfit(control)
        measured = {side: interval(best(side, [judge])) for side in ("synthetic", "floor")}
        found["judges"][judge] = {"control": control} | (measured if blind is None else {"unfit": blind})
    if not seeing:
        return found | {"unfit": "could not be trained on so few images: no judge sees a planted difference"}
    found |= verdict(best("synthetic", seeing), best("floor", seeing))
    if "plain" in seeing:
        a, b, made = halvings[0]
        half = halve(synthetic.groups[made], np.random.default_rng(0), synthetic.labels[made])
        first, second = (made[half == side] + len(audit) for side in (0, 1))
        found["giveaways"] = giveaways(features["plain"], pool, (first, a), (second, b))
    found["per_class"] = {}
    for k, name in enumerate(names):
        count = min(int((pool.labels[pair.candidate] == k).sum()) for pair in pairs)
        found["per_class"][name] = {"n": count} | verdict(best("synthetic", seeing, k), best("floor", seeing, k))
    return found


def verdict(synthetic: Estimate, floor: Estimate) -> dict[str, Any]:
    """Both, their difference, its standard error, and what that says of :data:`AIM`."""
    apart = difference(synthetic, floor)
    error = (apart.high - apart.low) / 2 / 1.96
    said = "not resolvable"
    if apart.low > AIM:
        said = "not reached"
    elif error <= RESOLVED:
        said = "reached" if apart.high <= AIM else "not reached"
    return {
        "synthetic": interval(synthetic),
        "floor": interval(floor),
        "difference": apart,
        "standard_error": error,
        "aim": AIM,
        "verdict": said,
    }


def planted(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The control's difference, which a judge has to see: a shift by half a pixel, then noise of 1 % of the range, in steps of 8 bits.

    In images with fine detail the shift shows, as it blurs; in smooth ones the noise.
    """
    edge = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(0, 1), (0, 1)], mode="edge")
    moved = (edge[..., :-1, :-1] + edge[..., 1:, :-1] + edge[..., :-1, 1:] + edge[..., 1:, 1:]) / 4
    noisy = moved + rng.normal(0, 0.02, images.shape)
    return np.asarray(np.rint((noisy.clip(-1, 1) + 1) * 127.5) / 127.5 - 1, np.float32)


def _pool(audit: Labelled, synthetic: Labelled) -> Labelled:
    """The sealed images, the synthetic ones, and the sealed ones with the control's difference, which keep their patients."""
    real, made = (np.unique(groups, return_inverse=True)[1].reshape(-1) for groups in (audit.groups, synthetic.groups))
    images = [audit.unit, synthetic.unit, planted(audit.unit, np.random.default_rng(0))]
    groups = [real, made + real.max(initial=-1) + 1, real]
    return Labelled(np.concatenate(images), np.concatenate([audit.findings, synthetic.findings, audit.findings]), np.concatenate(groups))


def _halving(audit: Labelled, synthetic: Labelled, names: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of A and of B, which share no patient, and of synthetic images: in each class as many as the smallest of the three has."""
    half = halve(audit.groups, rng, audit.labels)
    chosen: list[list[NDArray[np.int64]]] = [[], [], []]
    for k in range(len(names)):
        sets = [np.flatnonzero((half == side) & (audit.labels == k)) for side in (0, 1)] + [np.flatnonzero(synthetic.labels == k)]
        n = min(len(rows) for rows in sets)
        for rows, into in zip(sets, chosen):
            into.append(rng.permutation(rows)[:n])
    return [np.sort(np.concatenate(rows)) for rows in chosen]


def _folds(pair: Pair, groups: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold of each of the pair's rows: whole patients at random, on either side by itself."""
    found = []
    for rows in (pair.candidate, pair.reference):
        patients, member = np.unique(groups[rows], return_inverse=True)
        found.append((rng.permutation(len(patients)) % count)[member.reshape(-1)])
    return np.concatenate(found)


def _network(
    pool: Labelled, pairs: Sequence[Pair], ceiling: int, rng: np.random.Generator, device: str, progress: Callable[[int], None] | None
) -> list[Scored]:
    """The small network, cross-fitted; all trainings at the same time."""
    folds = [_folds(pair, pool.groups, FOLDS["cnn"], rng) for pair in pairs]
    tasks = []
    for pair, fold in zip(pairs, folds):
        side = np.zeros(len(pool), np.int64)
        side[pair.candidate] = 1
        for f in range(FOLDS["cnn"]):
            held = _folds(pair, pool.groups, CHOOSE, rng) == 0
            learn, choose = pair.rows[(fold != f) & ~held], pair.rows[(fold != f) & held]
            cell = side * pool.classes + pool.labels
            weights = np.zeros(len(pool))
            weights[learn] = 1 / np.bincount(cell[learn])[cell[learn]]
            watch = Labelled.of_classes(pool.unit[choose], side[choose], pool.groups[choose], 2)
            tasks.append(Task(pool.unit, side, 2, int(rng.integers(2**31)), watch, weights))
    trained = iter(train(tasks, kind="small", ceiling=ceiling, device=device, progress=progress))
    scored = []
    for pair, fold in zip(pairs, folds):
        scores = np.empty(len(fold))
        for f in range(FOLDS["cnn"]):
            scores[fold == f] = next(trained).classifier.predict(pool.unit[pair.rows[fold == f]])[:, 1]
        scored.append(Scored(pair, scores, fold))
    return scored


def _linear(features: Floats, pool: Labelled, pairs: Sequence[Pair], count: int, rng: np.random.Generator) -> list[Scored]:
    """Logistic regression on a feature space, cross-fitted; features beyond five standard deviations are cut there."""
    from sklearn.linear_model import LogisticRegression

    scored = []
    for pair in pairs:
        fold, scores = _folds(pair, pool.groups, count, rng), np.empty(len(pair.rows))
        x, y = features[pair.rows], pair.positive
        for f in range(count):
            learn = fold != f
            mean, deviation = x[learn].mean(axis=0), x[learn].std(axis=0)
            standard = ((x - mean) / np.where(deviation > 1e-9, deviation, np.inf)).clip(-5, 5)
            model = LogisticRegression(C=PENALTY, max_iter=300).fit(standard[learn], y[learn])
            scores[~learn] = model.decision_function(standard[~learn])
        scored.append(Scored(pair, scores, fold))
    return scored


def _by_side(scored: list[Scored], sides: Mapping[str, Sequence[Pair]]) -> dict[str, list[Scored]]:
    left = iter(scored)
    return {side: [next(left) for _ in pairs] for side, pairs in sides.items()}


def _flat(one: Scored, pool: Labelled) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    return one.scores, one.pair.positive, pool.groups[one.pair.rows], one.fold


def _best(by_split: Sequence[Sequence[Scored]], universe: Labelled, is_made: NDArray[np.bool_], label: int | None) -> Estimate:
    """The best judge's AUC in each split, and their mean's dependence on every image; within one class if given.

    The influence is that of the judge that was best (a maximum moves with the largest); images weigh by how often the splits use them. The
    splits' own variation is no further part of it, since they share their images: ``tests/benchmarks/judges.py coverage`` simulates it.
    """
    values, influence = [], np.zeros(len(universe))
    sides = [math.inf, math.inf]
    for judges in by_split:
        found = []
        for one in judges:
            keep = slice(None) if label is None else universe.labels[one.pair.rows] == label
            rows, positive = one.pair.rows[keep], one.pair.positive[keep]
            estimate = cross_fitted_estimate(one.scores[keep], positive, universe.groups[rows], one.fold[keep])
            found.append((np.nan_to_num(estimate.value, nan=-1.0), estimate, rows, positive))
        value, estimate, rows, positive = max(found, key=lambda one: one[0])
        values.append(value if value >= 0 else math.nan)
        np.add.at(influence, rows, estimate.influence / len(by_split))
        for index, side in enumerate((positive, ~positive)):
            sides[index] = min(sides[index], independent(universe.groups[rows[side]]))
    counted = np.ones(len(universe), bool) if label is None else universe.labels == label
    return Estimate(
        np.array([np.mean(values)]),
        influence[counted],
        is_made[counted].astype(np.int64),
        np.unique(universe.groups[counted], return_inverse=True)[1].reshape(-1),
        lambda truth: CROSS_FITTED * hanley_mcneil(truth, *sides),
        sum(len(one[0].pair.rows) if label is None else int((universe.labels[one[0].pair.rows] == label).sum()) for one in by_split[:1]),
    )
