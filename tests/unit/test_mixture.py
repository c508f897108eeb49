"""The data as Gaussians: their fit, and their noisy points, against covariances in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.diffusion.mixture import COMPONENTS, EACH, FEWEST, PARTS, VALUES, Mixture, few, fit
from pipeline.diffusion.noise import StepNoise
from pipeline.diffusion.samplers import dpmpp_2m
from pipeline.diffusion.schedules import sampling_levels

SHAPE = (1, 3, 4)
SIZE = math.prod(SHAPE)


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of two classes that differ in their mean and share their covariance, and their labels."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(SIZE, SIZE)) * 0.5 ** np.arange(SIZE)
    labels = rng.integers(0, 2, count)
    flat = rng.normal(size=(count, SIZE)) @ mixing.T + 3 * labels[:, None]
    return flat.reshape(count, *SHAPE).astype(np.float32), labels


def covariance(mixture: Mixture, sigma: float) -> np.ndarray:
    """Of the noisy points: A Aᵀ, where they are mean + A noise."""
    basis = torch.eye(SIZE).reshape(SIZE, *SHAPE)
    label = torch.zeros(SIZE, dtype=torch.int64)
    matrix = (mixture.noisy(basis, label, sigma) - mixture.means[label]).flatten(1).double().numpy()
    return matrix.T @ matrix


def test_noisy_points_have_the_covariance_of_their_class_and_of_the_noise():
    """One of twelve directions is not kept: its variance, the smallest, is the rest's."""
    images, labels = drawn(350)
    images[labels == 0] *= 2
    mixture = fit(images, labels, 2, seed=0)
    flat = images.reshape(350, -1).astype(np.float64)
    within = flat - np.stack([flat[labels == c].mean(axis=0) for c in range(2)])[labels]
    shared = within.T @ within / 348  # two means were fitted
    own = within[labels == 0]
    expected = (own.T @ own + (SIZE - 1) * shared) / (len(own) - 1 + SIZE - 1)
    assert np.trace(expected) > 1.3 * np.trace(shared)
    for sigma in (0.0, 0.5, 8.0):
        np.testing.assert_allclose(covariance(mixture, sigma), expected + sigma**2 * np.eye(SIZE), atol=1e-3 * np.trace(expected))
    np.testing.assert_allclose(mixture.means[1].numpy(), images[labels == 1].mean(axis=0), atol=1e-4)


def test_the_directions_that_are_not_kept_share_their_variance():
    rng = np.random.default_rng(1)
    variances = np.concatenate([np.full(COMPONENTS, 9.0), np.full(200 - COMPONENTS, 0.25)])
    images = (rng.normal(size=(4000, 200)) * np.sqrt(variances)).astype(np.float32).reshape(4000, 1, 10, 20)
    mixture = fit(images, np.arange(4000) % 40, 40, seed=0)  # a part each
    assert mixture.components.shape == (COMPONENTS, 1, 10, 20)
    np.testing.assert_allclose(float(mixture.rest), 0.5, rtol=0.05)


def test_a_class_without_an_image_has_the_mean_of_all():
    images, labels = drawn(50)
    mixture = fit(images, labels * 2, 3, seed=0)
    np.testing.assert_allclose(mixture.means[1].numpy(), images.mean(axis=0), atol=1e-4)
    flat = (images.reshape(50, -1) - mixture.means[labels * 2].flatten(1).numpy()).astype(np.float64)
    label = torch.ones(SIZE, dtype=torch.int64)
    matrix = (mixture.noisy(torch.eye(SIZE).reshape(SIZE, *SHAPE), label, 0.0) - mixture.means[label]).flatten(1).double().numpy()
    np.testing.assert_allclose(matrix.T @ matrix, flat.T @ flat / 48, atol=1e-3 * np.trace(flat.T @ flat / 48))


def test_a_mean_is_made_of_twenty_images_at_the_least_and_otherwise_of_all_that_there_are():
    images, labels = drawn(200)
    labels[:5], labels[5] = 2, 3
    mixture = fit(images, labels, 4, seed=0)
    for c, count in ((2, 5), (3, 1)):
        own = count / FEWEST
        expected = own * images[labels == c].mean(axis=0) + (1 - own) * images.mean(axis=0)
        np.testing.assert_allclose(mixture.means[c].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(mixture.means[0].numpy(), images[labels == 0].mean(axis=0), atol=1e-4)


def test_variances_are_unbiased_over_many_small_sets_whose_second_class_lacks_images():
    """Sets of 30 and 10 images of two classes of one distribution, of unit variance."""
    labels, found = np.repeat([0, 1], [30, 10]), []
    for seed in range(200):
        images = np.random.default_rng(seed).normal(size=(40, *SHAPE)).astype(np.float32)
        found.append(np.trace(covariance(fit(images, labels, 2, seed=0), 0.0)) / SIZE)
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert abs(np.mean(found) - 1) < 3 * error
    assert 3 * error < 1 / 60  # what a division by n loses is one in 30


def test_a_sampler_that_starts_there_ends_where_one_from_far_above_does():
    """On Gaussian data, whose denoiser is known, from the same noise: the start lies on the path, so that fewer steps lead to its end."""
    images, labels = drawn(350)
    mixture = fit(images, labels, 2, seed=0)
    clean = torch.from_numpy(covariance(mixture, 0.0))
    values, vectors = torch.linalg.eigh(clean)

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        offset = (x - mixture.means[label]).flatten(1).double() @ vectors
        return mixture.means[label] + ((offset * values / (values + sigma**2)) @ vectors.T).reshape(x.shape)

    spread = math.sqrt(float(values.mean()))
    label = torch.zeros(64, dtype=torch.int64)
    noise = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = mixture.noisy(noise.float(), label, 0.0).double()

    def error(x: torch.Tensor, levels: list[float]) -> float:
        return float((dpmpp_2m(denoise, x, levels) - exact).square().mean().sqrt())

    above = sampling_levels("edm", 8, spread)
    below = sampling_levels("edm", 8, spread, highest=8 * spread)
    assert below[0] == pytest.approx(8 * spread)
    from_above = error(mixture.means[label] + above[0] * noise, above)
    from_start = error(mixture.noisy(noise.float(), label, below[0]).double(), below)
    assert from_start < from_above / 2


def two_crowds(count: int, seed: int = 0) -> np.ndarray:
    """One class: a third of its images lie 10 from the others along every pixel, and five far away."""
    rng = np.random.default_rng(seed)
    flat = rng.normal(size=(count, SIZE)) + 10 * (np.arange(count) % 3 == 0)[:, None]
    flat[:5] = 200
    return flat.reshape(count, *SHAPE).astype(np.float32)


def test_a_class_is_parted_where_its_images_are_and_no_part_is_made_of_a_few():
    images = two_crowds(600)
    mixture = fit(images, np.zeros(600, np.int64), 1, seed=0)
    sizes = np.diff([0, *(600 * mixture.bounds[0, : len(mixture.means) - 1].double().numpy()).round(), 600])
    assert 2 <= len(mixture.means) <= min(PARTS, 600 // EACH)
    assert sizes.sum() == 600
    assert sizes.min() >= FEWEST
    means = mixture.means.flatten(1).mean(dim=1).numpy()
    assert means.max() < 50  # the five are no part of their own
    apart = np.minimum(np.abs(means), np.abs(means - 10))
    assert np.median(apart) < 1
    assert sizes[means > 5].sum() == pytest.approx(200, abs=5)


def test_drawn_points_are_distributed_as_the_data():
    images = two_crowds(3000)[5:]
    labels = np.arange(len(images)) % 7 == 0
    mixture = fit(images, labels.astype(np.int64), 2, seed=0)
    stream = StepNoise(range(3000), SHAPE, "cpu")
    asked = torch.ones(3000, dtype=torch.int64)
    parts = mixture.parts(asked, stream.uniform())
    assert mixture.first.tolist()[1] == parts.min()
    share = np.bincount(parts - parts.min()) / 3000
    expected = np.diff([0, *mixture.bounds[1, : len(share) - 1].tolist(), 1])
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / math.sqrt(3000))
    for sigma in (0.0, 3.0):
        made = mixture.noisy(stream(), parts, sigma).flatten(1).mean(dim=1).numpy()
        real = images[labels].reshape(labels.sum(), -1).mean(axis=1)
        real = real + sigma / math.sqrt(SIZE) * np.random.default_rng(1).normal(size=len(real))
        assert stats.ks_2samp(made, real).pvalue > 1e-3


def test_no_more_images_are_taken_than_fit_into_memory():
    np.testing.assert_array_equal(few(100, 784, 0), np.arange(100))
    chosen = few(10_000, VALUES // 1000, 0)
    assert len(chosen) == 1000 == len(set(chosen))
    np.testing.assert_array_equal(chosen, few(10_000, VALUES // 1000, 0))
    assert len(few(10_000, VALUES, 0)) == 2 * COMPONENTS
