"""The membership attack on a model that remembers, and on one that cannot."""

import numpy as np
import pytest
import torch

from evaluation.intervals import cross_fitted, interval
from evaluation.metrics import auc, auc_estimate
from pipeline.diffusion.conditioning import Condition
from privacy import membership


def cohort(rng):
    images = rng.standard_normal((120, 1, 8, 8)).astype(np.float32) * 0.3
    return images, np.zeros(120, dtype=np.int64), np.arange(120) < 60, np.arange(120) // 2


def test_a_model_that_remembers_its_members_is_caught():
    rng = np.random.default_rng(0)
    images, labels, member, groups = cohort(rng)
    known = torch.from_numpy(images[member])

    def remembers(x, sigma, c):
        """The exact denoiser of the members: a softmax over their distances."""
        distance = ((x[:, None] - known[None]) ** 2).flatten(2).sum(dim=2)
        weights = torch.softmax(-distance / (2 * sigma[:, None] ** 2), dim=1)
        return torch.einsum("nm,mchw->nchw", weights, known)

    found = membership.attack(remembers, images, Condition.of_classes(labels, 1), member, groups, draws=2, rng=rng, device="cpu")
    assert found.auc.value > 0.99
    assert found.auc.low > 0.85
    assert found.tpr_at_1pct_fpr.value > 0.8
    assert found.tpr_at_1pct_fpr.low == 0, "60 non-members cannot tell where 1 % of them lie"
    assert found.control_auc.value < 0.65


def test_a_model_that_never_saw_them_is_not():
    rng = np.random.default_rng(1)
    images, labels, member, groups = cohort(rng)

    def wiener(x, sigma, c):
        return x * (0.09 / (0.09 + sigma**2)).reshape(-1, 1, 1, 1)

    found = membership.attack(wiener, images, Condition.of_classes(labels, 1), member, groups, draws=2, rng=rng, device="cpu")
    assert found.auc.low < 0.5 < found.auc.high
    assert (found.members, found.non_members) == (60, 60)


def test_scores_come_from_models_that_never_saw_the_patient():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 2)
    features = np.repeat(rng.standard_normal((40, 30)), 2, axis=0)  # images of a patient are twins: leakage would give them away
    member = np.repeat(rng.permutation(40) < 20, 2)
    scores, fold = membership.cross_fitted_scores(features, member, groups)
    assert auc(scores, member) == pytest.approx(0.5, abs=0.2)
    for number in range(5):
        rows = fold == number
        assert not set(groups[rows]) & set(groups[~rows])
        assert set(member[rows]) == {True, False}, "every fold has both sides"


@pytest.mark.parametrize(("members", "others"), [(1, 30), (30, 1)])
def test_one_patient_on_a_side_leaves_nothing_to_hold_out(members, others):
    member = np.arange(members + others) < members
    scores, fold = membership.cross_fitted_scores(np.ones((len(member), 2)), member, np.arange(len(member)))
    assert (fold == -1).all()
    found = cross_fitted(scores, member, np.arange(len(member)), fold)
    assert np.isnan([found.value, found.low, found.high]).all()


def test_the_interval_at_the_null_is_that_of_the_folds_and_wider_than_a_fixed_scores():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(25):
        features, member = rng.standard_normal((120, 6)), np.arange(120) < 60
        scores, fold = membership.cross_fitted_scores(features, member, np.arange(120))
        found = cross_fitted(scores, member, np.arange(120), fold)
        covered.append(found.low <= 0.5 <= found.high)
    assert sum(covered) >= 20  # of Binomial(25, .95), fewer than 20 have a probability of .0012
    fixed = interval(auc_estimate(scores, member, np.arange(120)))
    assert found.high - found.low > 1.3 * (fixed.high - fixed.low)


def test_the_loss_features_are_the_mean_squared_errors_of_the_shared_noise():
    images = np.zeros((3, 1, 4, 4), dtype=np.float32)

    def echo(x, sigma, c):
        return x * (1 + c.classes.float()).reshape(-1, 1, 1, 1)

    features = membership.loss_features(echo, images, Condition.of_classes(np.zeros(3), 1), seeds=[5], device="cpu")
    noise = torch.randn((1, 4, 4), generator=torch.Generator().manual_seed(5)).double()
    expected = [np.log(sigma**2 * float(noise.square().mean())) for sigma in membership.SIGMAS]
    np.testing.assert_allclose(features[:, :-1], np.tile(expected, (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(features[:, -1], np.log(4), rtol=1e-5)
