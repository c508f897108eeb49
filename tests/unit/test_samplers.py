"""Samplers, guidance and levels against a Gaussian mixture, whose denoiser and distribution are known in closed form."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from pipeline.diffusion.guidance import guided
from pipeline.diffusion.samplers import dpmpp_2m, euler, heun, starting_noise
from pipeline.diffusion.schedules import RANGE, karras_sigmas, training_sigmas

MEANS = torch.tensor([-0.5, 0.5], dtype=torch.float64)
WIDTH = 0.05


def mixture(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x0 | x0 + sigma · noise = x] for two equal modes of standard deviation WIDTH."""
    total = WIDTH**2 + sigma.reshape(-1, 1, 1, 1) ** 2
    logits = torch.stack([-((x - mean) ** 2) / (2 * total) for mean in MEANS])
    weights = logits.softmax(dim=0)
    posterior = torch.stack([mean + WIDTH**2 / total * (x - mean) for mean in MEANS])
    return (weights * posterior).sum(dim=0)


def exact_ode(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Where the probability-flow ODE carries x from sigma to 0: it keeps the quantile of the marginal distribution."""
    grid = torch.linspace(-1.2, 1.2, 200_001, dtype=torch.float64)

    def cdf(value: torch.Tensor, spread: float) -> torch.Tensor:
        return torch.stack([0.5 * (1 + torch.erf((value - mean) / (spread * math.sqrt(2)))) for mean in MEANS]).mean(dim=0)

    target = cdf(x, math.hypot(WIDTH, sigma))
    return torch.from_numpy(np.interp(target.numpy(), cdf(grid, WIDTH).numpy(), grid.numpy()))


def solve(sampler, steps: int, count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    levels = karras_sigmas(steps, 0.002, 20.0).tolist()
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    x = levels[0] * torch.special.ndtri(quantiles).reshape(-1, 1, 1, 1)
    return sampler(mixture, x, levels), exact_ode(x, levels[0])


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (dpmpp_2m, 2)])
def test_samplers_converge_to_the_exact_flow_at_their_order(sampler, order):
    errors = []
    for steps in (50, 100, 200):
        found, exact = solve(sampler, steps)
        errors.append(float((found - exact).abs().mean()))
    rates = [math.log2(before / after) for before, after in pairwise(errors)]
    assert errors[-1] < (0.02 if order == 1 else 0.002)
    assert np.mean(rates) > order - 0.35, (errors, rates)


@pytest.mark.parametrize("steps", [10, 20, 50, 250])
@pytest.mark.parametrize("sampler", [heun, dpmpp_2m])
def test_samplers_give_the_mixture_at_any_number_of_steps(sampler, steps):
    found, _ = solve(sampler, steps, count=1000)
    rng = np.random.default_rng(0)
    truth = rng.choice(MEANS.numpy(), 4000) + WIDTH * rng.standard_normal(4000)
    assert abs(float((found > 0).double().mean()) - 0.5) < 0.01
    within = found[found > 0] - 0.5
    assert float(within.square().mean().sqrt()) == pytest.approx(WIDTH, rel=0.35 if steps == 10 else 0.12)
    if steps >= 20:
        assert ks_2samp(found.flatten().numpy(), truth).statistic < (0.15 if steps == 20 else 0.04)


def test_levels_follow_edm_equation_5():
    levels = karras_sigmas(18, 0.002, 80.0)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)] + [0]
    np.testing.assert_allclose(levels.numpy(), expected, rtol=1e-10)
    with pytest.raises(ValueError, match="at least 2 steps"):
        karras_sigmas(1, 0.002, 80.0)


def test_training_levels_have_the_stated_distribution_and_cover_the_samplers_range():
    sigma = training_sigmas(200_000, 0.25, torch.Generator().manual_seed(0), "cpu").double()
    logs = (sigma / 0.25).log()
    assert float(logs.median()) == pytest.approx(-0.5, abs=0.05)
    assert float(sigma.min()) < 0.25 * RANGE[0] * 2
    assert float(sigma.max()) > 0.25 * RANGE[1] / 2


def test_guidance_mixes_both_branches_inside_the_interval_and_not_outside():
    calls = []

    def denoiser(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return labels.double().reshape(-1, 1, 1, 1).expand_as(x)

    labels = torch.tensor([1, 2])
    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    denoise = guided(denoiser, labels, null=5, scale=3.0, interval=(0.5, 2.0))
    inside = denoise(x, torch.full((2,), 1.0))
    outside = denoise(x, torch.full((2,), 3.0))
    assert inside[:, 0, 0, 0].tolist() == [5 + 3 * (1 - 5), 5 + 3 * (2 - 5)]
    assert outside[:, 0, 0, 0].tolist() == [1, 2]
    assert calls == [4, 2]


def test_an_images_noise_depends_on_its_own_seed_alone():
    together = starting_noise([7, 8, 9], (1, 8, 8), "cpu")
    alone = starting_noise([8], (1, 8, 8), "cpu")
    assert torch.equal(together[1], alone[0])
