"""The membership attack on a model that remembers, and on one that cannot."""

import numpy as np
import pytest
import torch

from evaluation.metrics import auc
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
    assert found.auc.low > 0.95
    assert found.tpr_at_1pct_fpr.value > 0.8
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
    scores = membership.cross_fitted_scores(features, member, groups)
    assert auc(scores, member) == pytest.approx(0.5, abs=0.2)


def test_the_loss_features_are_the_mean_squared_errors_of_the_shared_noise():
    images = np.zeros((3, 1, 4, 4), dtype=np.float32)

    def echo(x, sigma, c):
        return x * (1 + c.classes.float()).reshape(-1, 1, 1, 1)

    features = membership.loss_features(echo, images, Condition.of_classes(np.zeros(3), 1), seeds=[5], device="cpu")
    noise = torch.randn((1, 4, 4), generator=torch.Generator().manual_seed(5)).double()
    expected = [np.log(sigma**2 * float(noise.square().mean())) for sigma in membership.SIGMAS]
    np.testing.assert_allclose(features[:, :-1], np.tile(expected, (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(features[:, -1], np.log(4), rtol=1e-5)
