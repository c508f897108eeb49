"""What synthetic cases find of the victims of :mod:`tests.benchmarks.stress_power`, and how well they rank them.

A run of phantoms gives them: every finding alike, and severities between normal and each finding. They are asked as in a stress test:
only where all judges, who learned from the real test cases, name their label. A victim is *found* where the share of one finding's kept
cases that it names is shown to be below :data:`LEAST` (all findings together, Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from evaluation.data import Labelled, to_unit
from evaluation.hypotheses import judgement, learned
from evaluation.intervals import Interval, share_interval
from evaluation.metrics import Floats, auc, share_estimate
from pipeline.ingest.standardize import Target, standardize
from pipeline.models.own_generator import OwnGenerator

LEAST = 0.8
WEIGHTS = (0.5, 0.75, 1.0, 1.5)
NAMES = ("normal", "abnormal")


@dataclass(frozen=True)
class Kept:
    """Synthetic cases whose label is sure: float32 ``[n, 1, H, W]`` in −1..1, whether each has a finding, which, and how many were made."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    finding: NDArray[np.str_]
    made: int


def kept_cases(run: Path, real: Labelled, side: int, each: int, ceiling: int, device: str) -> Kept:
    """The cases of a run's model that all judges of the real cases (two classes, ``side`` pixels) are sure of."""
    maker = OwnGenerator(run, device, batch=256)
    normal = maker.classes.index("normal")
    images, finding = [maker.images(normal, each, 0)], ["normal"] * each
    for k, name in enumerate(maker.classes):
        if k != normal:
            count = each // len(WEIGHTS)
            images += [maker.between(normal, k, weight, count, 0) for weight in WEIGHTS]
            finding += [name] * (count * len(WEIGHTS))
    sized = [standardize(image.astype(np.float32), 0.0, 255.0, Target(side, 1))[0] for image in np.concatenate(images)]
    unit, names = to_unit(np.stack(sized)), np.array(finding)
    labels = (names != "normal").astype(np.int64)
    judges = learned(real, NAMES, seeds=2, ceiling=ceiling, rng=np.random.default_rng(0), device=device)
    sure = judgement(judges, unit, labels, NAMES).sure
    return Kept(unit[sure], labels[sure], names[sure], len(labels))


def found_of(p: Floats, kept: Kept) -> dict[str, Any]:
    """What synthetic cases say of a victim with these probabilities ``[n, 2]``: ``synthetic`` (found), its AUC on them, and shares."""
    right = p.argmax(axis=1) == kept.labels
    shares: dict[str, Interval] = {}
    findings = sorted(set(kept.finding.tolist()))
    for name in findings:
        of = kept.finding == name
        shares[name] = share_interval(share_estimate(right[of], np.arange(int(of.sum()))), 1 - 0.05 / len(findings))
    return {
        "synthetic": any(share.high < LEAST for share in shares.values()),
        "synthetic_auc": auc(p[:, 1], kept.labels == 1),
        "synthetic_shares": {name: share.to_dict() for name, share in shares.items()},
    }


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> Interval:
    """Spearman's, with the 95 % interval of Bonett & Wright (2000, Psychometrika 65:23): its z has variance (1 + r²/2) / (n − 3)."""
    n, r = len(one), float(spearmanr(one, other).statistic)
    if n < 5 or not math.isfinite(r) or abs(r) == 1:
        return Interval(r, math.nan, math.nan, n)
    reach = 1.96 * math.sqrt((1 + r * r / 2) / (n - 3))
    return Interval(r, math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach), n)


def ranking(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the victims' order by AUC on synthetic cases foretells that on real ones, of all and of the defective alone."""
    bad = [row for row in rows if row["defect"] != "sound"]
    return {
        name: rank_correlation([row["synthetic_auc"] for row in of], [row["auc"] for row in of]).to_dict()
        for name, of in (("all", rows), ("defective", bad))
    }
