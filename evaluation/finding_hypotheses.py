"""Synthetic cases of several findings as a question to a classifier: each finding by itself, where judges are sure of it.

As :mod:`evaluation.hypotheses` for one class an image. A case is asked about every finding of which it is known what was asked for and all
judges say the same: a model that calls it present or absent against all of them may be wrong, or the generator may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import findings
from evaluation.data import Labelled
from evaluation.hypotheses import NOTE, SPARSE, Halves, halves
from evaluation.intervals import Interval, interval, share_interval
from evaluation.judges import unfit
from evaluation.metrics import Floats, share_estimate

CALLED = 0.5
"""Probability from which a finding is called present, as everywhere in the stress test."""


@dataclass(frozen=True)
class FindingJudges:
    """Networks that learned several findings from real cases.

    Attributes:
        halves: the networks.
        auc: what they score on the half that they did not see, by finding.
        unfit: why nothing that they say of a finding counts, or None, by finding.
    """

    halves: Halves
    auc: dict[str, Interval]
    unfit: dict[str, str | None]


@dataclass(frozen=True)
class Judgement:
    """What the judges say of synthetic cases.

    Attributes:
        sure: of which findings all say what was asked for, of those that they are fit for, ``bool [n, K]``.
        fidelity: mean probability that they give what was asked for, over the findings of which anything was, ``[n]``.
        distance: as :attr:`evaluation.hypotheses.Judgement.distance`.
    """

    sure: NDArray[np.bool_]
    fidelity: Floats
    distance: Floats


def learned(real: Labelled, names: Sequence[str], **settings: Any) -> FindingJudges:
    """Train the judges, with the settings of :func:`evaluation.hypotheses.halves`. Nothing is learned of what is unknown."""
    found = halves(real, real.findings, **settings)
    auc = {name: interval(findings.auc_of(found.scores, real, k)) for k, name in enumerate(names)}
    return FindingJudges(found, auc, {name: found.unfinished or unfit(one) for name, one in auc.items()})


def judgement(judges: FindingJudges, images: NDArray[np.float32], marks: NDArray[np.int8]) -> Judgement:
    """What the judges say of synthetic images ``[n, C, H, W]`` in -1..1 of which this was asked, ``[n, K]``: 1, 0, or -1 for nothing."""
    fit, known = np.array([one is None for one in judges.unfit.values()]), marks >= 0
    p = np.stack([one.predict(images) for one in judges.halves.networks])
    right = np.where(marks == 1, p, 1 - p).mean(axis=0)
    ranks = [space.rank(one.features(images)) for one, space in zip(judges.halves.networks, judges.halves.spaces)]
    return Judgement(
        np.asarray(known & fit & ((p >= CALLED) == (marks == 1)).all(axis=0), np.bool_),
        np.asarray((right * known).sum(axis=1) / np.maximum(known.sum(axis=1), 1), np.float64),
        np.mean(ranks, axis=0) if ranks else np.full(len(marks), np.nan),
    )


def hypotheses(judges: FindingJudges, judged: Judgement, p: Floats, marks: NDArray[np.int8], names: Sequence[str]) -> dict[str, Any]:
    """What the model calls present or absent against what was asked for and all judges see.

    Args:
        p: the model's probabilities of all synthetic cases, ``[n, K]``; of those that nothing is sure of, anything.
        marks: what was asked for, ``[n, K]``: 1, 0, or -1 for nothing.

    Returns:
        As :func:`evaluation.hypotheses.hypotheses`, where ``kept`` and ``right`` count pairs of a case and a finding; ``classes`` have
        ``images`` and ``kept`` of those asked to have it, with ``sensitivity``, and ``absent`` of those asked not to, with ``specificity``.
    """
    right, asked = (p >= CALLED) == (marks == 1), judged.sure
    far = asked & (judged.distance >= SPARSE)[:, None]
    classes: dict[str, Any] = {}
    for k, name in enumerate(names):
        found: dict[str, Any] = {} if judges.unfit[name] is None else {"unfit": f"a judge {judges.unfit[name]}"}
        for mark, measure in ((1, "sensitivity"), (0, "specificity")):
            rows = asked[:, k] & (marks[:, k] == mark)
            sides = {"images": int((marks[:, k] == mark).sum()), "kept": int(rows.sum()), measure: _share(right[rows, k])}
            found |= sides if mark else {"absent": sides}
        classes[name] = found
    kept = asked.any(axis=1)
    return {
        "images": len(marks),
        "kept": int(asked.sum()),
        "right": _share(right[asked], np.nonzero(asked)[0]),
        "distance": float(np.median(judged.distance[kept])) if kept.any() else float("nan"),
        "low_density": {"kept": int(far.sum()), "right": _share(right[far], np.nonzero(far)[0])},
        "classes": classes,
    }


def told(judges: FindingJudges, name: str, found: dict[str, Any]) -> dict[str, Any]:
    """As :func:`evaluation.hypotheses.told`, of one set."""
    per_class = {
        finding: {"auc": one} | ({} if judges.unfit[finding] is None else {"unfit": judges.unfit[finding]})
        for finding, one in judges.auc.items()
    }
    return {
        "note": NOTE.format(judges=len(judges.halves.networks)),
        "judges": {"per_class": per_class},
        "sets": [{"name": name} | found],
    }


def _share(right: NDArray[np.bool_], cases: NDArray[np.int64] | None = None) -> Interval:
    """The share that is right; what belongs to one case counts together."""
    return share_interval(share_estimate(right, np.arange(len(right)) if cases is None else cases))
