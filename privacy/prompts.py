"""Prompts aimed at one patient: does a report that was trained on, word by word, draw the patient that it is of?

Images are made of reports that one patient alone has, of training patients and of sealed ones, and each is compared with that patient's own
image and with those of other patients who have the same findings. A report tells of its image, so that its own is nearer for sealed
patients too: they are the control, and what training patients have beyond them was learned by heart (as in :mod:`privacy.attributes`).
Patients are paired, one of training with one of the sealed who has the same findings; the test flips the signs of the pairs' differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.intervals import share_interval
from evaluation.metrics import share_estimate
from privacy.attributes import difference
from privacy.nearest import thumbnails

TEXT = "text"
MOST = 150
"""Pairs at the most: the mean of as many differences of uniform ranks has a standard error of .033."""
LEAST = 20
"""Pairs below which nothing is measured: sign flips of fewer say little."""
FLIPS = 9999
"""Draws of signs of the permutation test, whose p-value is 1 in 10 000 at the least."""


def aimed(train: Labelled, audit: Labelled, rng: np.random.Generator) -> NDArray[np.int64]:
    """Pairs of rows ``[p, 2]``, one of each side, whose reports (``asked["text"]``) are each one patient's alone of both sides, and whose
    findings are equal; every patient once, :data:`MOST` pairs at the most. None, ``[0, 2]``, where there are fewer than :data:`LEAST`."""
    texts = [{str(text) for text in side.asked[TEXT]} for side in (train, audit)]
    rows = [_own_words(side, others, rng) for side, others in ((train, texts[1]), (audit, texts[0]))]
    by_findings: list[dict[tuple[int, ...], list[int]]] = [{}, {}]
    for side, places, found in zip((train, audit), rows, by_findings):
        for row in places.tolist():
            found.setdefault(tuple(side.findings[row].tolist()), []).append(row)
    pairs = [pair for has, ours in by_findings[0].items() for pair in zip(ours, by_findings[1].get(has, ()))]
    if len(pairs) < LEAST:
        return np.zeros((0, 2), np.int64)
    return np.array(pairs, np.int64)[rng.permutation(len(pairs))[:MOST]]


def _own_words(side: Labelled, others: set[str], rng: np.random.Generator) -> NDArray[np.int64]:
    """One row of every patient, in random order, whose text is no other patient's, nor one of ``others``."""
    whose: dict[str, set[Any]] = {}
    texts = [str(text) for text in side.asked[TEXT]]
    for text, patient in zip(texts, side.groups.tolist()):
        whose.setdefault(text, set()).add(patient)
    own = [row for row, text in enumerate(texts) if text and len(whose[text]) == 1 and text not in others]
    rows = rng.permutation(np.array(own, np.int64))
    return rows[np.sort(np.unique(side.groups[rows], return_index=True)[1])]


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
        same findings (0.5 is chance), with intervals by patient; ``difference``; and ``p``, of the permutation test that it is not
        above 0. Empty where no pair has others of the same findings on both sides.
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
    return {"pairs": len(apart), **measured, "difference": difference(shares["train"], shares["audit"]).to_dict(), "p": p}


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
