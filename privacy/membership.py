"""Membership inference from the weights: is the denoising loss lower on images that the model was trained on?

The attack of Carlini et al. 2023 (arXiv:2301.13188, section 6) in its simplest form: the loss at several noise levels, averaged over noise
draws that are the same for every image, beside the gain from knowing the class; a cross-fitted logistic regression makes one
score of them. Higher means "member".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.data import to_unit
from evaluation.intervals import Interval, cross_fitted, tpr_interval
from privacy.model import C, Denoiser

SIGMAS = (0.1, 0.25, 0.6)
"""Noise levels of the attack, for images in −1..1: where a denoiser's memory of an image's detail shows."""
FOLDS = 5


@dataclass(frozen=True)
class Membership:
    """What the attack found; an AUC of 0.5 is guessing.

    Attributes:
        auc: of member against non-member within each fold, their mean, with an interval by patient that allows for the folds' models
            being fitted on each other's rows (:data:`evaluation.intervals.CROSS_FITTED`).
        tpr_at_1pct_fpr: largest true-positive rate with at most 1 % false positives, by patient, at thresholds that are themselves
            uncertain (:func:`evaluation.intervals.tpr_interval`).
        control_auc: of a classifier that sees the images and not the model: it shows how far the two groups differ by themselves.
        members, non_members: images attacked.
    """

    auc: Interval
    tpr_at_1pct_fpr: Interval
    control_auc: Interval
    members: int
    non_members: int


def attack(
    denoiser: Denoiser[C],
    images: NDArray[np.float32],
    condition: C,
    member: NDArray[np.bool_],
    groups: NDArray[np.int64],
    *,
    draws: int,
    rng: np.random.Generator,
    device: str,
) -> Membership:
    """Attack a denoiser D(x, sigma, c).

    Args:
        images: ``float32 [n, C, H, W]`` in −1..1, members and non-members.
        condition: of each image.
        member: whether each image was trained on ``[n]``.
        groups: patient of each image ``[n]``; folds keep patients whole, and intervals count them.
        draws: noise draws for each level.
    """
    seeds = rng.integers(0, 2**62, size=draws)
    features = loss_features(denoiser, images, condition, seeds=seeds.tolist(), device=device)
    scores, fold = cross_fitted_scores(features, member, groups)
    return Membership(
        auc=cross_fitted(scores, member, groups, fold),
        tpr_at_1pct_fpr=tpr_interval(scores, member, groups, 0.01),
        control_auc=control(images, member, groups),
        members=int(member.sum()),
        non_members=int((~member).sum()),
    )


def loss_features(
    denoiser: Denoiser[C],
    images: NDArray[np.float32],
    condition: C,
    *,
    seeds: list[int],
    device: str,
) -> NDArray[np.float64]:
    """Log denoising error at each level, and the gain from the condition at the highest: ``float64 [n, len(SIGMAS) + 1]``.

    The noise is the same for every image, so that it adds nothing to the differences between them.
    """
    columns = [np.log(mean_error(denoiser, images, condition, sigma, seeds=seeds, device=device)) for sigma in SIGMAS]
    blind = np.log(mean_error(denoiser, images, condition.null(), SIGMAS[-1], seeds=seeds, device=device))
    return np.stack([*columns, blind - columns[-1]], axis=1)


@torch.inference_mode()
def mean_error(
    denoiser: Denoiser[C], images: NDArray[Any], condition: C, sigma: float, *, seeds: list[int], device: str, batch: int = 256
) -> NDArray[np.float64]:
    """Mean squared denoising error of each image over its pixels and the noise draws, above 0: ``float64 [n]``.

    Args:
        images: ``float32 [n, C, H, W]`` in −1..1, or as they are kept, ``uint8``: those of one batch at a time are then made float32.
        sigma: the noise level, for images in −1..1.
        seeds: one noise draw each, the same for every image and level.
        batch: images denoised together.
    """
    errors = np.zeros(len(images))
    for seed in seeds:
        noise = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)).to(device)
        for start in range(0, len(images), batch):
            rows = slice(start, start + batch)
            clean = torch.from_numpy(to_unit(images[rows])).to(device)
            denoised = denoiser(clean + sigma * noise, clean.new_full((len(clean),), sigma), condition.take(rows).to(device))
            errors[rows] += (denoised - clean).square().flatten(1).mean(dim=1).double().cpu().numpy()
    return np.maximum(errors / len(seeds), 1e-12)  # a model that recalls an image exactly has an error of 0


def control(images: NDArray[np.float32], member: NDArray[np.bool_], groups: NDArray[np.int64]) -> Interval:
    """AUC of telling the sides apart without any generator, cross-fitted by patient: a logistic regression on 20 principal components."""
    pixels = images.reshape(len(images), -1)
    reduced = PCA(min(20, *pixels.shape), random_state=0).fit_transform(pixels)
    scores, fold = cross_fitted_scores(reduced, member, groups)
    return cross_fitted(scores, member, groups, fold)


def cross_fitted_scores(
    features: NDArray[np.float64], member: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log-odds of membership ``[n]`` by logistic regressions that never saw the image's patient, and the fold of each image ``[n]``.

    Every fold has patients of both sides. With fewer than two patients on a side nothing can be held out: all are of fold -1.
    """
    scores, fold = np.zeros(len(features)), np.full(len(features), -1, dtype=np.int64)
    folds = min(FOLDS, *(len(np.unique(groups[side])) for side in (member, ~member)))
    if folds < 2:
        return scores, fold
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(features, member, groups)
    for number, (fit, held_out) in enumerate(splits):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced"))
        model.fit(features[fit], member[fit])
        scores[held_out], fold[held_out] = model.decision_function(features[held_out]), number
    return scores, fold
