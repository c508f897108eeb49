"""Statistics and their influences: against naive versions, closed forms, and the change that a row makes when it counts more."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss
from torchmetrics.classification import MulticlassCalibrationError

from evaluation.metrics import (
    auc,
    auc_estimate,
    balanced_accuracy_estimate,
    brier_estimate,
    calibration_error,
    macro_auc,
    macro_auc_estimate,
    recall_estimate,
    share_estimate,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 60)
SCORES = RNG.normal(size=(60, 3)).round(1) + 0.8 * np.eye(3)[LABELS]  # rounded, so that there are ties
GROUPS = np.arange(60) // 2


def delong_variance(scores: np.ndarray, positive: np.ndarray) -> float:
    """DeLong et al. 1988, eqs. 4-6, with one pair at a time."""
    above, below = scores[positive], scores[~positive]

    def psi(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    v10 = [np.mean([psi(x, y) for y in below]) for x in above]
    v01 = [np.mean([psi(x, y) for x in above]) for y in below]
    return float(np.var(v10, ddof=1) / len(above) + np.var(v01, ddof=1) / len(below))


def test_the_influences_of_an_auc_are_delongs_placements():
    positive = LABELS == 1
    found = auc_estimate(SCORES[:, 1], positive, np.arange(60))
    assert found.value == pytest.approx(auc(SCORES[:, 1], positive))
    sides = [found.influence[side] for side in (positive, ~positive)]
    variance = sum(float(side @ side) * len(side) / (len(side) - 1) for side in sides)
    assert variance == pytest.approx(delong_variance(SCORES[:, 1], positive))


def statistics():
    named = SCORES.argmax(axis=1)
    yield "auc", lambda rows: auc(SCORES[rows, 1], LABELS[rows] == 1), auc_estimate(SCORES[:, 1], LABELS == 1, GROUPS)
    yield "macro", lambda rows: macro_auc(SCORES[rows], LABELS[rows]), macro_auc_estimate(SCORES, LABELS, GROUPS)
    yield "share", lambda rows: (named == LABELS)[rows].mean(), share_estimate(named == LABELS, GROUPS)
    p = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
    brier = lambda rows: np.mean([sum((p[i, k] - (LABELS[i] == k)) ** 2 for k in range(3)) / 2 for i in rows])  # noqa: E731
    yield "brier", brier, brier_estimate(p, LABELS, GROUPS)
    recalls = lambda rows: np.mean([(named[rows] == k)[LABELS[rows] == k].mean() for k in range(3)])  # noqa: E731
    yield "balanced", recalls, balanced_accuracy_estimate(named, LABELS, GROUPS, 3)


@pytest.mark.parametrize(("name", "naive", "estimate"), list(statistics()), ids=lambda x: x if isinstance(x, str) else "")
def test_an_influence_is_the_change_that_a_row_makes_when_it_counts_more(name, naive, estimate):
    everyone = np.arange(60)
    assert estimate.value == pytest.approx(naive(everyone))
    assert estimate.influence.sum() == pytest.approx(0, abs=1e-12)
    for row in (0, 17, 42):
        many = np.concatenate([np.repeat(everyone, 200), [row]])
        assert 200 * (naive(many) - naive(everyone)) == pytest.approx(estimate.influence[row], rel=0.03, abs=1e-5)


def test_trainings_are_averaged_and_kept_apart():
    several = np.stack([SCORES, SCORES[:, ::-1], SCORES + 1])
    found = macro_auc_estimate(several, LABELS, GROUPS)
    assert found.by_seed.tolist() == pytest.approx([macro_auc(one, LABELS) for one in several])
    assert found.value == pytest.approx(found.by_seed.mean())


def test_what_is_not_there_is_not_defined():
    assert math.isnan(auc_estimate(np.arange(4.0), np.ones(4, bool), np.arange(4)).value)
    assert math.isnan(share_estimate(np.zeros(0, bool), np.zeros(0)).value)
    assert math.isnan(recall_estimate(LABELS, LABELS, GROUPS, 9).value)
    assert math.isnan(macro_auc_estimate(SCORES[:3], np.zeros(3, int), np.arange(3)).value)


def test_the_reference_of_an_auc_is_its_variance_between_exponential_classes():
    """Hanley and McNeil's model: for two exponential classes the variance is exact."""
    rng = np.random.default_rng(1)
    sizes, rate = (25, 25), 4.0
    draws = [auc(np.r_[rng.exponential(rate, sizes[0]), rng.exponential(1, sizes[1])], np.arange(50) < sizes[0]) for _ in range(4000)]
    truth = rate / (1 + rate)
    reference = auc_estimate(np.zeros(50), np.arange(50) < sizes[0], np.arange(50)).reference(truth)
    assert reference == pytest.approx(np.var(draws), rel=0.08)


def test_every_pair_counts_once():
    scores, positive = np.array([3.0, 1, 2, 2]), np.array([True, False, True, False])
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x, y in itertools.product(scores[positive], scores[~positive])]
    assert auc(scores, positive) == np.mean(pairs)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_brier_and_calibration_error_are_those_of_scikit_learn_and_torchmetrics(classes):
    rng = np.random.default_rng(classes)
    labels, p = rng.integers(0, classes, 200), rng.dirichlet(np.ones(classes), 200).astype(np.float32).astype(float)
    p /= p.sum(axis=1, keepdims=True)
    found = brier_estimate(p, labels, np.arange(200)).value
    assert found == pytest.approx(brier_score_loss(labels, p, labels=range(classes), scale_by_half=True))
    reference = MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    assert calibration_error(p, labels) == pytest.approx(float(reference(torch.tensor(p), torch.tensor(labels))), abs=1e-6)


def test_calibration_errors_ends():
    sure = np.eye(2)[np.array([0, 1, 1, 0])]
    assert calibration_error(sure, np.array([0, 1, 1, 0])) == 0
    assert calibration_error(sure, np.array([1, 0, 0, 1])) == 1
    assert calibration_error(np.full((4, 2), 0.5), np.array([0, 0, 1, 1])) == 0
    assert math.isnan(calibration_error(np.zeros((0, 2)), np.zeros(0, int)))
    one = brier_estimate(np.stack([sure, 1 - sure]), np.array([0, 1, 1, 0]), np.arange(4))
    np.testing.assert_allclose(one.by_seed, [0, 1])
