"""Prompts aimed at one patient: does a report that was trained on, word by word, draw the patient that it is of?

Images are made of reports, of training patients and of sealed ones, and each is compared with that patient's own image and with those of
other patients who have the same findings. A report tells of its image, so that its own is nearer for sealed
patients too: they are the control, and what training patients have beyond them was learned by heart (as in :mod:`privacy.attributes`).
Patients are paired, one of training with one of the sealed who has the same findings; the test flips the signs of the pairs' differences.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.intervals import Interval, share_interval
from evaluation.metrics import share_estimate
from privacy.nearest import thumbnails

TEXT = "text"
MOST = 150
"""Pairs at the most: the mean of as many differences of uniform ranks has a standard error of .033."""
LEAST = 20
"""Pairs below which nothing is measured: sign flips of fewer say little."""
FLIPS = 9999
"""Draws of signs of the permutation test, whose p-value is 1 in 10 000 at the least."""


def aimed(train: Labelled, audit: Labelled, rng: np.random.Generator) -> NDArray[np.int64]:
    """Pairs of rows ``[p, 2]``, one of each side with a report (``asked["text"]``), whose findings are equal; every patient once.

    There are :data:`MOST` at the most, those whose reports fewest patients of both sides have: what many have is aimed at nobody. None,
    ``[0, 2]``, where there are fewer than :data:`LEAST`.
    """
    sides = (train, audit)
    whose: dict[str, set[tuple[int, Any]]] = {}
    for number, side in enumerate(sides):
        for text, patient in zip(side.asked[TEXT].tolist(), side.groups.tolist()):
            whose.setdefault(text, set()).add((number, patient))
    shared = [np.array([len(whose[text]) if text else 0 for text in side.asked[TEXT].tolist()], np.int64) for side in sides]
    by_findings: list[dict[tuple[int, ...], list[int]]] = [{}, {}]
    for side, many, found in zip(sides, shared, by_findings):
        rows = rng.permutation(np.flatnonzero(many > 0))
        rows = rows[np.argsort(many[rows], kind="stable")]
        for row in rows[np.sort(np.unique(side.groups[rows], return_index=True)[1])].tolist():
            found.setdefault(tuple(side.findings[row].tolist()), []).append(row)
    pairs = [pair for has, ours in by_findings[0].items() for pair in zip(ours, by_findings[1].get(has, ()))]
    if len(pairs) < LEAST:
        return np.zeros((0, 2), np.int64)
    pairs.sort(key=lambda pair: shared[0][pair[0]] + shared[1][pair[1]])
    return np.array(pairs[:MOST], np.int64)


def judge(
    train: Labelled, audit: Labelled, pairs: NDArray[np.int64], made: tuple[NDArray[Any], NDArray[Any]], rng: np.random.Generator
) -> dict[str, Any]:
    """How much nearer than sealed patients' own images to theirs those of training patients are to what their reports draw.

    Args:
        train, audit: both sides.
        pairs: of :func:`aimed`.
        made: the images of the reports of the one side and of the other, ``uint8 [p, C, H, W]`` each, in the order of the pairs.
        rng: draws the signs.

    Returns:
        ``pairs``; ``train`` and ``audit``, the mean probabilities that the image is nearer to the patient's own than to another's of the
        same findings (0.5 is chance), with intervals by patient; ``difference``, within the pairs; and ``p``, of the permutation test
        that it is not above 0. Empty where no pair has others of the same findings on both sides.
    """
    ranks = np.stack([_rank(side, pairs[:, k], made[k]) for k, side in enumerate((train, audit))])
    kept = ~np.isnan(ranks).any(axis=0)
    if not kept.any():
        return {}
    ours, theirs = ranks[:, kept]
    sides = {"train": ours, "audit": theirs}
    shares = {name: share_interval(share_estimate(values, np.arange(len(values)))) for name, values in sides.items()}
    apart = ours - theirs
    signs = rng.choice([-1.0, 1.0], (FLIPS, len(apart)))
    p = (1 + int((signs @ apart >= apart.sum() - 1e-9).sum())) / (1 + FLIPS)
    measured = {name: share.to_dict() for name, share in shares.items()}
    return {"pairs": len(apart), **measured, "difference": _mean(apart).to_dict(), "p": p}


def _mean(apart: NDArray[np.float64]) -> Interval:
    """Mean of differences with Student's interval: of ranks, it holds from :data:`LEAST` pairs on."""
    from scipy.special import stdtrit

    value, n = float(apart.mean()), len(apart)
    reach = float(stdtrit(n - 1, 0.975) * apart.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach), n)


def _rank(side: Labelled, rows: NDArray[np.int64], made: NDArray[Any]) -> NDArray[np.float64]:
    """Of the images of other patients with the same findings, the share that is farther from what was made than the own one, ``[p]``; ties
    count half. NaN where there is none."""
    near = (thumbnails(made) @ thumbnails(side.images).T).numpy()
    found = np.full(len(rows), np.nan)
    for place, row in enumerate(rows):
        others = (side.findings == side.findings[row]).all(axis=1) & (side.groups != side.groups[row])
        if others.any():
            own, rest = near[place, row], near[place, others]
            found[place] = (own > rest).mean() + (own == rest).mean() / 2
    return found
