"""Synthetic cases that can have several findings as a question to a classifier: each finding of a case is a question of its own.

A finding of a case is asked about where every judge sees what its label says, present or absent, and the judges are fit for that finding;
otherwise as :mod:`evaluation.hypotheses`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import findings
from evaluation.classifiers import Classifier
from evaluation.data import Labelled
from evaluation.hypotheses import SPARSE, Judgement, Space, by_halves
from evaluation.intervals import Interval, interval, share_interval
from evaluation.judges import unfit
from evaluation.metrics import Floats, share_estimate
from evaluation.training import unfinished

NOTE = (
    "A failure on synthetic cases is a hypothesis: it may be the model's, or the generator's. A finding of a case was asked about only "
    "where every one of {judges} judges saw what its label says, who had learned from the real cases; what they are unsure of was left out."
)
AT = 0.5
"""Probability from which a finding is called present."""


@dataclass(frozen=True)
class Judges:
    """Networks that learned from real cases.

    Attributes:
        networks: two a seed, of one half each.
        areas: AUC of each finding on the half that they did not see.
        unfit: by finding why nothing that they say of it counts, or None.
        spaces: that half in each one's features.
    """

    networks: tuple[Classifier, ...]
    areas: dict[str, Interval]
    unfit: dict[str, str | None]
    spaces: tuple[Space, ...] = ()


def learned(
    real: Labelled,
    names: Sequence[str],
    *,
    seeds: int,
    ceiling: int,
    rng: np.random.Generator,
    device: str,
    progress: Callable[[int], None] | None = None,
) -> Judges:
    """Train the judges, all side by side; the arguments are those of :func:`evaluation.hypotheses.learned`."""
    trained, scores, spaces = by_halves(real, real.findings, seeds=seeds, ceiling=ceiling, rng=rng, device=device, progress=progress)
    areas = {name: interval(findings.auc_of(scores, real, finding)) for finding, name in enumerate(names)}
    still = unfinished(trained)
    return Judges(tuple(one.classifier for one in trained), areas, {name: still or unfit(area) for name, area in areas.items()}, spaces)


def judgement(judges: Judges, images: NDArray[np.float32], marks: NDArray[np.int8], names: Sequence[str]) -> Judgement:
    """What the judges say of synthetic images ``[n, C, H, W]`` in -1..1 with these findings ``[n, K]``: 1, 0, -1.

    Returns:
        ``sure`` and ``fidelity`` (the mean probability that they give what the label says; NaN where it is unknown) are ``[n, K]``.
    """
    p = np.stack([one.predict(images) for one in judges.networks])
    said = np.where(marks == 1, p, 1 - p)
    right = ((p >= AT) == (marks == 1)).all(axis=0)
    fit = np.array([judges.unfit[name] is None for name in names])
    ranks = [space.rank(one.features(images)) for one, space in zip(judges.networks, judges.spaces)]
    distance = np.mean(ranks, axis=0) if ranks else np.full(len(marks), np.nan)
    return Judgement(right & (marks >= 0) & fit, np.where(marks >= 0, said.mean(axis=0), np.nan), distance)


def hypotheses(judges: Judges, judged: Judgement, p: Floats, marks: NDArray[np.int8], names: Sequence[str]) -> dict[str, Any]:
    """What the model misses among the findings of synthetic cases whose label is sure.

    Args:
        p: the model's probabilities ``[n, K]``; what it says of a finding that is not sure does not count.
        marks: of all cases, ``[n, K]``.

    Returns:
        ``images``; ``kept``, pairs of an image and a finding, and ``right``, the share of these that the model calls as labelled, by
        image; ``low_density``, the same of images beyond :data:`evaluation.hypotheses.SPARSE`; ``classes``: by name ``images`` and ``kept``
        with the finding, ``kept_without``, ``sensitivity`` and ``specificity``, or ``unfit``, why the judges say nothing of it.
    """
    right = (p >= AT) == (marks == 1)
    image = np.broadcast_to(np.arange(len(marks))[:, None], marks.shape)

    def share(of: NDArray[np.bool_]) -> Any:
        return share_interval(share_estimate(right[of], image[of]))

    classes: dict[str, Any] = {}
    for finding, name in enumerate(names):
        only = np.zeros(marks.shape, bool)
        only[:, finding] = True
        having, without = (judged.sure & only & (marks == mark) for mark in (1, 0))
        classes[name] = {
            "images": int((marks[:, finding] == 1).sum()),
            "kept": int(having.sum()),
            "kept_without": int(without.sum()),
            "sensitivity": share(having),
            "specificity": share(without),
        } | _reason(judges.unfit[name], "a judge ")
    far = judged.sure & (judged.distance >= SPARSE)[:, None]
    return {
        "images": len(marks),
        "kept": int(judged.sure.sum()),
        "right": share(judged.sure),
        "low_density": {"kept": int(far.sum()), "right": share(far)},
        "classes": classes,
    }


def told(judges: Judges, sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """As :func:`evaluation.hypotheses.told`."""
    return {
        "note": NOTE.format(judges=len(judges.networks)),
        "judges": {"per_class": {name: {"auc": area} | _reason(judges.unfit[name]) for name, area in judges.areas.items()}},
        "sets": [{"name": name} | dict(one) for name, one in sets.items()],
    }


def _reason(text: str | None, who: str = "") -> dict[str, str]:
    return {} if text is None else {"unfit": f"{who}{text}"}
