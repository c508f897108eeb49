"""What gives synthetic images away: the plain features by which they differ most from real ones, for whoever wants to mend them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.intervals import FAMILY, interval
from evaluation.metrics import Floats, auc, auc_estimate
from evaluation.plain_features import feature_names

Rows = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Of synthetic and of real images."""
COUNT = 5
ALIKE = 0.8
"""Correlation from which two features are taken for one trait."""


def giveaways(features: Floats, pool: Labelled, design: Rows, confirmation: Rows) -> list[dict[str, Any]]:
    """The plain features that tell synthetic from real images best, each by itself, the best on the first half first.

    They are chosen on one half of the patients and of the synthetic images, and measured on the other; of features that go together
    (:data:`ALIKE`) the best one stands for all. One whose interval on the other half holds .5 is left out.

    Args:
        features: of every image of the pool, :func:`~evaluation.plain_features.plain_features`.
        pool: real and synthetic images.
        design, confirmation: rows of synthetic and of real images, which share no patient.

    Returns:
        At most :data:`COUNT` of ``feature`` (its name), ``synthetic`` (``more`` or ``less`` than in real images), and ``auc``: how often a
        synthetic image has more (or less) of it than a real one, with its interval over patients. All intervals hold together with 95 %
        confidence (Bonferroni).
    """
    names = feature_names(pool.unit.shape[1])
    x, made = _of(features, design)
    told = np.array([auc(column, made) for column in x.T])
    ranks = np.apply_along_axis(_standard_ranks, 0, x)
    chosen: list[int] = []
    for place in np.argsort(-np.abs(told - 0.5), kind="stable"):
        if all(abs(ranks[:, place] @ ranks[:, other]) < ALIKE for other in chosen):
            chosen.append(int(place))
        if len(chosen) == COUNT:
            break
    x, made = _of(features, confirmation)
    groups = pool.groups[np.concatenate(confirmation)]
    found = []
    for place in chosen:
        more = told[place] > 0.5
        measured = interval(auc_estimate(x[:, place] if more else -x[:, place], made, groups), 1 - FAMILY / COUNT)
        if measured.low > 0.5:
            found.append({"feature": names[place], "synthetic": "more" if more else "less", "auc": measured})
    return found


def _of(features: Floats, rows: Rows) -> tuple[Floats, NDArray[np.bool_]]:
    return features[np.concatenate(rows)], np.arange(sum(map(len, rows))) < len(rows[0])


def _standard_ranks(column: Floats) -> Floats:
    """Ranks whose dot products are Spearman's correlations."""
    from scipy.stats import rankdata

    ranks = rankdata(column)
    centred = ranks - ranks.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-12))
