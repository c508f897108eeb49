"""When a judge can be believed: what it scores on real images that nobody learned from, beside what it says of synthetic ones.

A classifier that cannot name real images says nothing about synthetic ones. Such a judge is *unfit*, and where its number would have stood
there is ``{"unfit": reason}``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.intervals import Interval, interval, share_interval
from evaluation.metrics import (
    Floats,
    auc_estimate,
    balanced_accuracy_estimate,
    counted,
    macro_auc_estimate,
    recall_estimate,
)

LEAST_AUC = 0.7
"""AUC on real images under which a judge is unfit. Below it more than three pairs in ten are put in the wrong order (Hosmer & Lemeshow 2000
call 0.7 the least acceptable), so that what the judge says of a synthetic image is more about the judge."""


def unfit(measured: Interval) -> str | None:
    """Why a judge with this AUC is not to be believed: below :data:`LEAST_AUC`, or chance cannot be ruled out; None where it is fit."""
    if measured.value >= LEAST_AUC and measured.low > 0.5:
        return None
    if not math.isfinite(measured.low):
        return "could not be scored on so few patients"
    return f"could not be trained on so few images: AUC {measured.value:.3f} ({measured.low:.3f} to {measured.high:.3f})"


@dataclass(frozen=True)
class Fitness:
    """What a judge, trained several times, scores on real images.

    Attributes:
        auc: macro one-versus-rest AUC, over the classes of ``over``.
        over: the classes that enough patients have, and have not (:func:`evaluation.metrics.counted`).
        class_auc, recall: by class.
        unfit: why nothing that it says counts, or None.
        class_unfit: why nothing that it says of a class counts, or None, by class.
    """

    auc: Interval
    over: tuple[str, ...]
    class_auc: dict[str, Interval]
    recall: dict[str, Interval]
    unfit: str | None
    class_unfit: dict[str, str | None]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``auc``, ``auc_over`` and ``per_class`` with ``auc`` and ``recall``, each with ``unfit`` where it is."""
        per_class = {
            name: {"auc": self.class_auc[name], "recall": self.recall[name]} | _reason(self.class_unfit[name]) for name in self.class_auc
        }
        return {"auc": self.auc, "auc_over": list(self.over), "per_class": per_class} | _reason(self.unfit)


def fitness(probabilities: Floats, real: Labelled, names: tuple[str, ...], unfinished: str | None = None) -> Fitness:
    """Score a judge's trainings on real images that it did not learn from.

    A judge is unfit for a class, too, where it names real images of it no more often than chance would (1/K): it then misses the class
    whatever it ranks.

    Args:
        probabilities: ``[S, n, K]`` of the real images.
        unfinished: of :func:`evaluation.training.unfinished`; a judge that was still learning is unfit, whatever it scores.
    """
    predicted, labels = probabilities.argmax(axis=2), real.labels
    whole = interval(macro_auc_estimate(probabilities, labels, real.groups))
    reason = unfinished or unfit(whole)
    areas, recalls, reasons = {}, {}, {}
    for k, name in enumerate(names):
        areas[name] = interval(auc_estimate(probabilities[:, :, k], labels == k, real.groups))
        recalls[name] = share_interval(recall_estimate(predicted, labels, real.groups, k))
        reasons[name] = reason or unfit(areas[name]) or _by_chance(recalls[name], len(names))
    over = tuple(names[k] for k in counted(labels, real.groups, len(names)))
    return Fitness(whole, over, areas, recalls, reason, reasons)


def label_fidelity(judge: Fitness, probabilities: Floats, labels: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Any]:
    """How often real-trained classifiers name a synthetic image's own class, beside how often they name a real one's.

    Args:
        probabilities: of the synthetic images, ``[S, n, K]``.
        labels: the classes that were asked for, ``[n]``.

    Returns:
        ``per_class``: mean recall over the trainings, and ``real``: that on real test images; ``macro``: the mean over the classes that the
        judge is fit for, which ``macro_over`` names.
    """
    predicted, alone = probabilities.argmax(axis=2), np.arange(len(labels))
    per_class: dict[str, Any] = {}
    for k, name in enumerate(names):
        recall = share_interval(recall_estimate(predicted, labels, alone, k))
        per_class[name] = {"unfit": judge.class_unfit[name]} if judge.class_unfit[name] else recall
    enough = counted(labels, alone, len(names))
    judged = [name for k, name in enumerate(names) if not judge.class_unfit[name] and k in enough]
    macro: Any = {"unfit": judge.unfit or "could not be trained on so few images of any class"}
    if judged:
        rows = np.isin(labels, [names.index(name) for name in judged])
        macro = interval(balanced_accuracy_estimate(predicted[:, rows], labels[rows], alone[rows], len(names)))
    return {"per_class": per_class, "real": judge.recall, "macro": macro, "macro_over": judged}


def _by_chance(recall: Interval, classes: int) -> str | None:
    if recall.low > 1 / classes:
        return None
    return (
        f"could not be trained on so few images: it names {recall.value:.3f} ({recall.low:.3f} to {recall.high:.3f}) of the real images "
        f"of this class, chance {1 / classes:.3f}"
    )


def _reason(text: str | None) -> dict[str, str]:
    return {} if text is None else {"unfit": text}
