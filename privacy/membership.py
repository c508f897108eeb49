"""Membership inference from the weights: is the denoising loss lower on images that the model was trained on?

The attack of Carlini et al. 2023 (arXiv:2301.13188, section 6) in its simplest form: the loss at several noise levels, averaged over noise
draws that are the same for every image, beside the gain from knowing the class; a cross-fitted logistic regression makes one
score of them. Higher means "member".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.intervals import Interval, percentile_interval, resample_weights, weighted_auc
from evaluation.metrics import auc, tpr_at_fpr
from privacy.model import C, Denoiser

SIGMAS = (0.1, 0.25, 0.6)
"""Noise levels of the attack, for images in −1..1: where a denoiser's memory of an image's detail shows."""


@dataclass(frozen=True)
class Membership:
    """What the attack found; an AUC of 0.5 is guessing.

    Attributes:
        auc: of member against non-member, with a bootstrap interval by patient.
        tpr_at_1pct_fpr: largest true-positive rate with at most 1 % false positives, likewise.
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
        groups: patient of each image ``[n]``; folds and resamples keep patients whole.
        draws: noise draws for each level.
    """
    seeds = rng.integers(0, 2**62, size=draws)
    features = loss_features(denoiser, images, condition, seeds=seeds.tolist(), device=device)
    scores = cross_fitted_scores(features, member, groups)
    pixels = images.reshape(len(images), -1)
    reduced = PCA(min(20, *pixels.shape), random_state=0).fit_transform(pixels)
    control = cross_fitted_scores(reduced, member, groups)
    return Membership(
        auc=auc_interval(scores, member, groups, rng),
        tpr_at_1pct_fpr=tpr_interval(scores, member, groups, 0.01, rng),
        control_auc=auc_interval(control, member, groups, rng),
        members=int(member.sum()),
        non_members=int((~member).sum()),
    )


@torch.inference_mode()
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
    columns = []
    for level, sigma in enumerate(SIGMAS):
        errors = np.zeros((len(images), 2))
        for seed in seeds:
            noise = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)).to(device)
            for start in range(0, len(images), 256):
                rows = slice(start, start + 256)
                clean = torch.from_numpy(images[rows]).to(device)
                asked = condition.take(rows).to(device)
                conditions = [asked, asked.null()] if level == len(SIGMAS) - 1 else [asked]
                for column, c in enumerate(conditions):
                    denoised = denoiser(clean + sigma * noise, clean.new_full((len(clean),), sigma), c)
                    errors[rows, column] += (denoised - clean).square().flatten(1).mean(dim=1).double().cpu().numpy()
        errors = np.maximum(errors / len(seeds), 1e-12)  # a model that recalls an image exactly has an error of 0
        columns.append(np.log(errors[:, 0]))
    columns.append(np.log(errors[:, 1] / errors[:, 0]))
    return np.stack(columns, axis=1)


def cross_fitted_scores(features: NDArray[np.float64], member: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-odds of membership ``[n]`` by logistic regressions that never saw the image's patient (five folds)."""
    scores = np.zeros(len(features))
    folds = min(5, len(np.unique(groups)))
    for fit, held_out in GroupKFold(folds, shuffle=True, random_state=0).split(features, member, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced"))
        model.fit(features[fit], member[fit])
        scores[held_out] = model.decision_function(features[held_out])
    return scores


def auc_interval(scores: NDArray[np.float64], member: NDArray[np.bool_], groups: NDArray[np.int64], rng: np.random.Generator) -> Interval:
    """AUC with a percentile bootstrap by patient."""
    draws = weighted_auc(scores, member, resample_weights(groups, rng, 500))
    return percentile_interval(auc(scores, member), draws, len(scores))


def tpr_interval(
    scores: NDArray[np.float64], member: NDArray[np.bool_], groups: NDArray[np.int64], fpr: float, rng: np.random.Generator
) -> Interval:
    """True-positive rate at a bounded false-positive rate, with a percentile bootstrap by patient."""
    weights = resample_weights(groups, rng, 200).astype(np.int64)
    rows = np.arange(len(scores))
    draws = []
    for weight in weights:
        chosen = np.repeat(rows, weight)
        draws.append(tpr_at_fpr(scores[chosen], member[chosen], fpr))
    return percentile_interval(tpr_at_fpr(scores, member, fpr), draws, len(scores))
