"""Shadow trainings: which images each of them sees, and what an attack that knows them finds.

The chance that an attack does as well on a release without memory rests on one thing: the real split was drawn without any regard to the
shadows, and the shadows without any regard to it. Among the shadows themselves images are drawn in turns, so that each is in nearly as
many of them as any other: that leaves the real split as random as it was, given the shadows, and few of them tell as much as they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from evaluation.intervals import Interval, interval, tpr_interval
from evaluation.metrics import auc, auc_estimate, tpr_at_fpr
from privacy import lira, membership
from privacy.model import C, Denoiser

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEVELS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
"""Noise levels, for images in −1..1, at which a model's memory of an image is looked for: from its texture to its outline."""
FEWEST = 4
"""Shadows with which the likelihood ratio's variances can be learned."""
RARE = 3000
"""Independent non-members from which a false-positive rate of .1 % can be told from one of .2 % (Clopper and Pearson: 0 of 3000)."""
ENOUGH = 20
"""Patients of each side from which a class or a subgroup is looked at by itself."""
EXPOSED = 0.01
"""Share of the images that are looked at as the most exposed ones."""


def draw(units: NDArray[np.int64], strata: NDArray[np.int64], size: NDArray[np.int64], count: int, rng: np.random.Generator) -> Bools:
    """Which images each of ``count`` trainings sees, ``bool [count, n]``: whole units, drawn at random within each stratum.

    Args:
        units: what stays together, ``[n]`` from 0.
        strata: class of each image, ``[n]`` from 0; a unit is of the one that fewest units have of its images.
        size: images of each stratum that a training sees, as near as whole units allow, and at least one unit of every one.
        rng: where chance comes from. Units that were drawn least often come first, in random order.
    """
    present = np.zeros((int(units.max()) + 1, len(size)), bool)
    present[units, strata] = True
    stratum = np.where(present, present.sum(axis=0), len(present) + 1).argmin(axis=1)
    images = np.bincount(units)
    wanted = (
        np.asarray(size, np.float64) * np.bincount(stratum, images, len(size)) / np.maximum(np.bincount(strata, minlength=len(size)), 1)
    )
    drawn, inside = np.zeros(len(images), np.int64), np.zeros((count, len(images)), bool)
    for training in inside:
        for number, quota in enumerate(wanted):
            members = np.flatnonzero(stratum == number)
            if len(members):
                order = rng.permutation(members)
                order = order[np.argsort(drawn[order], kind="stable")]
                reached = np.cumsum(images[order])
                training[order[: 1 + int(np.abs(reached - quota).argmin())]] = True
        drawn += training
    return inside[:, units]


def weights_features(
    denoiser: Denoiser[C], images: NDArray[np.float32], condition: C, *, seeds: list[int], device: str, batch: int
) -> Floats:
    """Log denoising error of each image at each of :data:`LEVELS`, ``[n, levels]``: as :func:`privacy.membership.mean_error`, whose
    arguments these are. The seeds must be those of every training that is compared."""
    errors = [membership.mean_error(denoiser, images, condition, sigma, seeds=seeds, device=device, batch=batch) for sigma in LEVELS]
    return np.log(np.stack(errors, axis=1))


def scores(target: Floats, others: Floats, inside: Bools) -> Floats:
    """Membership of each image in the target, from its features ``[n, d]`` and those of k trainings ``[k, n, d]``: higher is member."""
    return lira.fit(others, inside).score(target)


def power(features: Floats, inside: Bools) -> dict[str, Any]:
    """What the attack finds where the answer is known: each training in turn as the target, attacked with the others.

    Args:
        features: of every training, ``[k, n, d]``.
        inside: which images each saw, ``[k, n]``.

    Returns:
        ``auc`` and ``tpr_at_1pct_fpr`` over the targets: ``{"value": mean, "spread": [least, most], "n": targets}``.
    """
    found = []
    for target in range(len(features)):
        others = np.arange(len(features)) != target
        guessed = scores(features[target], features[others], inside[others])
        found.append((auc(guessed, inside[target]), tpr_at_fpr(guessed, inside[target], 0.01)))
    columns = dict(zip(("auc", "tpr_at_1pct_fpr"), np.array(found).T))
    return {
        name: {"value": float(column.mean()), "spread": [float(column.min()), float(column.max())], "n": len(column)}
        for name, column in columns.items()
    }


def measure(guessed: Floats, member: Bools, groups: NDArray[Any], subgroups: Mapping[str, Bools]) -> dict[str, Any]:
    """The attack's success on the real split, by patient.

    Args:
        guessed: score of each image, ``[n]``.
        member: whether it was trained on.
        groups: its patient.
        subgroups: which images are of a class or a subgroup, by its name.

    Returns:
        ``auc``, ``tpr_at_1pct_fpr`` and, with :data:`RARE` non-members, ``tpr_at_01pct_fpr``; ``exposed``: how many of the images that
        score highest are members, and the chance of as many (or more) by a random guess; ``worst``: the class or subgroup with the highest
        lower bound, its interval being one of all that are looked at (Bonferroni); ``all`` where none has :data:`ENOUGH` patients.
    """
    found: dict[str, Any] = {
        "auc": interval(auc_estimate(guessed, member, groups)).to_dict(),
        "tpr_at_1pct_fpr": tpr_interval(guessed, member, groups, 0.01).to_dict(),
    }
    if len(np.unique(groups[~member])) >= RARE:
        found["tpr_at_01pct_fpr"] = tpr_interval(guessed, member, groups, 0.001).to_dict()
    found["exposed"] = exposed(guessed, member, groups)
    name, worst = _worst(guessed, member, groups, subgroups)
    found["worst"] = {"name": name, "auc": worst.to_dict()}
    return found


def exposed(guessed: Floats, member: Bools, groups: NDArray[Any]) -> dict[str, Any]:
    """Of the patients with the highest scores, :data:`EXPOSED` of all: ``{"patients", "members", "p"}``.

    A handful of memorised patients moves neither an AUC nor a rate of a thousand; it shows here. ``p`` is the hypergeometric chance of so
    many members among them. A patient scores as their highest image, and is a member where any image is.
    """
    names, patient = np.unique(groups, return_inverse=True)
    highest, is_member = np.full(len(names), -np.inf), np.zeros(len(names), bool)
    np.maximum.at(highest, patient.ravel(), guessed)
    np.logical_or.at(is_member, patient.ravel(), member)
    count = max(1, round(EXPOSED * len(names)))
    first = int(is_member[np.argsort(-highest, kind="stable")[:count]].sum())
    chance = float(hypergeom.sf(first - 1, len(names), int(is_member.sum()), count))
    return {"patients": count, "members": first, "p": chance}


def _worst(guessed: Floats, member: Bools, groups: NDArray[Any], subgroups: Mapping[str, Bools]) -> tuple[str, Interval]:
    large = {
        name: rows for name, rows in subgroups.items() if min(len(np.unique(groups[rows & side])) for side in (member, ~member)) >= ENOUGH
    } or {"all": np.ones(len(guessed), bool)}
    confidence = 1 - 0.05 / len(large)
    found = [(name, interval(auc_estimate(guessed[rows], member[rows], groups[rows]), confidence)) for name, rows in large.items()]
    return max(found, key=lambda one: -1.0 if np.isnan(one[1].low) else one[1].low)
