"""The dispersion benchmark's arithmetic, against naive versions."""

import numpy as np
import pytest
import torch

from pipeline.diffusion.mixture import EACH, fit
from tests.benchmarks import dispersion

SHAPE = (1, 3, 4)


def crowds(count: int = 4 * EACH) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, the first of two crowds."""
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % 4 == 3).astype(np.int64)
    flat = rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)) + 6 * (np.arange(count) % 4 == 0)[:, None]
    return flat.reshape(count, *SHAPE).astype(np.float32), labels


def naive(mixture, x: np.ndarray, label: int, sigma: float) -> np.ndarray:
    """E[image | x] by whole covariance matrices."""
    directions = mixture.components.flatten(1).double().numpy()
    ends = [*mixture.first.tolist(), len(mixture.means)]
    shares = np.diff([0, *[bound for bound in mixture.bounds[label].tolist() if np.isfinite(bound)], 1])
    weights, means = [], []
    for part, share in zip(range(ends[label], ends[label + 1]), shares, strict=True):
        axes = mixture.axes[part].double().numpy().T @ directions
        rest = float(mixture.rest) ** 2
        clean = rest * np.eye(12) + axes.T @ np.diag(mixture.deviations[part].double().numpy() ** 2 - rest) @ axes
        noisy = clean + sigma**2 * np.eye(12)
        offset = x - mixture.means[part].double().numpy().ravel()
        weights.append(np.log(share) - 0.5 * (offset @ np.linalg.solve(noisy, offset) + np.linalg.slogdet(noisy)[1]))
        means.append(mixture.means[part].double().numpy().ravel() + clean @ np.linalg.solve(noisy, offset))
    weights = np.exp(np.array(weights) - max(weights))
    return (weights / weights.sum()) @ np.array(means)


@pytest.mark.parametrize("sigma", [0.3, 3.0, 30.0])
def test_the_mixtures_posterior_mean_is_that_of_whole_covariance_matrices(sigma):
    images, labels = crowds()
    mixture = fit(images, labels, 2, seed=0)
    assert mixture.first.tolist() == [0, len(mixture.means) - 1]
    assert len(mixture.means) > 2
    x = torch.from_numpy(images[:16]).double() + sigma * torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    found = dispersion.posterior_mean(mixture, x, torch.from_numpy(labels[:16]), sigma)
    expected = [naive(mixture, point.numpy().ravel(), int(label), sigma) for point, label in zip(x, labels)]
    np.testing.assert_allclose(found.flatten(1).numpy(), np.stack(expected), rtol=1e-5, atol=1e-5)


def test_an_exact_answer_has_slope_one_a_shrunk_one_more_and_one_learned_by_heart_less():
    """Gaussian data of variance 1 under noise of variance 1: E[x | noisy] = noisy / 2, with an error of 1/2."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(20_000, *SHAPE, generator=rng)
    noisy = images + torch.randn(images.shape, generator=rng)
    exact, shrunk, wild = (dispersion.told(images, share * noisy, torch.zeros(SHAPE)) for share in (0.5, 0.4, 0.7))
    assert exact["slope"] == pytest.approx(1, abs=0.01)
    assert exact["error"] == pytest.approx(0.5, abs=0.01)
    assert shrunk["slope"] == pytest.approx(1.25, abs=0.01)
    assert wild["slope"] == pytest.approx(1 / 1.4, abs=0.01)
    assert exact["error"] < min(shrunk["error"], wild["error"])
