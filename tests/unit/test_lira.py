"""The likelihood ratio with shadow trainings: against Bayes done by brute force, closed-form AUCs, and where little is known."""

import numpy as np
import pytest
from scipy.stats import multivariate_t, norm

from evaluation.metrics import auc, tpr_at_fpr
from privacy import lira


def simulated(k, n=4000, delta=1.5, spread=0.0, uneven=0.0, seed=0, share=2 / 3):
    """Features ``[k + 1, n, 3]`` of k + 1 trainings, and whom each saw: membership moves them by ``delta`` deviations of the noise."""
    rng = np.random.default_rng(seed)
    root = np.array([[1.0, 0, 0], [0.9, 0.5, 0], [-0.3, 0.2, 2.0]])  # features of unlike scale that depend on each other
    inside = rng.random((k + 1, n)) < share
    effect = delta / np.sqrt(3) + spread * rng.standard_normal((n, 3))
    noise = np.exp(uneven * rng.standard_normal((n, 1))) * rng.standard_normal((k + 1, n, 3))
    own, level = 9 * rng.standard_normal((n, 3)), rng.standard_normal((k + 1, 1, 3))
    return own + level + (inside[:, :, None] * effect + noise) @ root.T, inside


def guessed(features, inside):
    return lira.fit(features[1:], inside[1:]).score(features[0])


@pytest.mark.parametrize("delta", [0.5, 1.5])
def test_with_many_trainings_its_auc_is_that_of_two_known_gaussians(delta):
    features, inside = simulated(60, delta=delta)
    assert auc(guessed(features, inside), inside[0]) == pytest.approx(norm.cdf(delta / np.sqrt(2)), abs=0.025)


def test_with_few_it_loses_what_the_mean_of_so_many_leaves_open():
    """With one effect for all, k trainings leave an image's own mean a variance of 1 / k."""
    found = []
    for seed in range(3):
        features, inside = simulated(4, seed=seed)
        found.append(auc(guessed(features, inside), inside[0]))
    assert np.mean(found) == pytest.approx(norm.cdf(1.5 / np.sqrt(2 * (1 + 1 / 4))), abs=0.02)


def test_without_memory_it_finds_nothing():
    features, inside = simulated(8, delta=0.0)
    assert auc(guessed(features, inside), inside[0]) == pytest.approx(0.5, abs=0.03)


def test_an_image_whose_noise_is_large_does_not_fill_the_tail():
    features, inside = simulated(8, uneven=1.0)
    assert tpr_at_fpr(guessed(features, inside), inside[0], 0.01) > 0.1
    even = features[0] - features[1:].mean(axis=0)
    plain = (even - even.mean(axis=0)) @ np.linalg.inv(np.cov(even.T)) @ np.ones(3)
    assert tpr_at_fpr(plain, inside[0], 0.01) < 0.05


def test_scores_do_not_depend_on_units_mixing_or_a_trainings_level():
    features, inside = simulated(6, n=200, spread=0.5, uneven=0.3)
    mixing = np.array([[2.0, 1, 0], [0, 1e-3, 5], [1, 0, -1e3]])
    moved = features @ mixing + np.arange(7)[:, None, None]
    np.testing.assert_allclose(guessed(moved, inside), guessed(features, inside), rtol=1e-6, atol=1e-8)


def brute_force(found: lira.Lira, seen: np.ndarray, image: int) -> float:
    """From the joint Gaussian of every mean and the attacked model's features, given who saw the image; scaled to a Student."""
    r, scale, flat = len(found.effect), found.scale[image], 1e5
    have = [side for side in (0, 1) if found.counts[side, image]]
    densities = []
    for member in (0, 1):
        sides = [*have, member]
        # own ~ N(0, flat), effect ~ N(effect, spread): a side's mean is own + side * effect + noise.
        design = np.kron(np.array([[1, side] for side in sides]), np.eye(r))
        prior = np.diag([*[flat] * r, *found.spread])
        noise = [scale / found.counts[side, image] for side in have] + [scale]
        covariance = design @ prior @ design.T + np.diag(np.repeat(noise, r))
        mean = design @ np.concatenate([np.zeros(r), found.effect])
        known = np.concatenate([found.means[side, image] for side in have])
        cut = len(known)
        gain = covariance[cut:, :cut] @ np.linalg.inv(covariance[:cut, :cut])
        expected = mean[cut:] + gain @ (known - mean[:cut])
        shape = covariance[cut:, cut:] - gain @ covariance[:cut, cut:]
        densities.append(multivariate_t(expected, shape, df=found.freedom[image]).logpdf(seen[image]))
    return densities[1] - densities[0]


def test_scores_are_those_of_brute_force_also_for_images_that_all_or_none_saw():
    features, inside = simulated(5, n=60, spread=0.7, uneven=0.5)
    inside[1:, 0], inside[1:, 1] = True, False
    found = lira.fit(features[1:], inside[1:])
    seen = (features[0] - features[0].mean(axis=0)) @ found.directions
    assert (found.spread > 0).any()
    for image in range(12):
        assert found.score(features[0])[image] == pytest.approx(brute_force(found, seen, image), rel=2e-3, abs=2e-3)


def test_it_recovers_what_it_was_made_of():
    features, inside = simulated(40, spread=0.6, uneven=0.5)
    found = lira.fit(features[1:], inside[1:])
    back = np.linalg.pinv(found.directions)
    # Features are (effect + noise) @ root.T: shifts and covariances come back in their own units.
    root = np.array([[1.0, 0, 0], [0.9, 0.5, 0], [-0.3, 0.2, 2.0]])
    np.testing.assert_allclose(found.effect @ back, root @ np.full(3, 1.5 / np.sqrt(3)), atol=0.1)
    np.testing.assert_allclose(back.T @ np.diag(found.spread) @ back, 0.36 * root @ root.T, atol=0.15)
    assert np.log(found.scale).std() == pytest.approx(2 * 0.5, rel=0.15)


def test_features_that_say_nothing_or_the_same_twice_change_nothing():
    features, inside = simulated(6, n=300)
    more = np.concatenate([features, features[..., :1], np.full_like(features[..., :1], 3.0)], axis=2)
    np.testing.assert_allclose(guessed(more, inside), guessed(features, inside), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("inside", [np.ones((3, 5), bool), np.zeros((3, 5), bool), np.eye(2, dtype=bool)])
def test_trainings_that_cannot_teach_it_are_refused(inside):
    with pytest.raises(ValueError, match="too few trainings"):
        lira.fit(np.random.default_rng(0).standard_normal((*inside.shape, 2)), inside)


def test_the_density_is_the_students_up_to_what_both_sides_share():
    features, inside = simulated(5, n=30)
    found = lira.fit(features[1:], inside[1:])
    away, precision = features[0] @ found.directions, np.full((30, 3), 4.0)
    ours = found._log_density(away, precision) - found._log_density(2 * away, precision)
    for image in range(5):
        student = multivariate_t(shape=np.eye(3) * found.scale[image] * 1.25, df=found.freedom[image])
        assert ours[image] == pytest.approx(student.logpdf(away[image]) - student.logpdf(2 * away[image]))
