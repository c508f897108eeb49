"""Samplers against their published formulas, and against mixtures whose denoiser, flow and distribution are known in closed form.

``python -m tests.benchmarks.sampler_oracle`` prints the whole table that BOUNDS holds, and the peers' beside it.
"""

import functools
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.diffusion.samplers import SAMPLERS, ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, euler, heun, unipc
from pipeline.diffusion.schedules import SCHEDULES, alpha_sigma, sampling_levels
from tests.unit.mixture import PLANE, TOY, UNEVEN, RankedNoise, order, quantiles, sampled

X = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]


class Counted:
    """A denoiser that counts its evaluations."""

    def __init__(self, mixture) -> None:
        self.mixture, self.levels = mixture, []

    def __call__(self, x, sigma):
        assert isinstance(sigma, float)
        self.levels.append(sigma)
        return self.mixture.denoise(x, sigma)


class Published:
    """The samplers as their papers write them: on x_t itself, with alpha, sigma and lambda = ln(alpha / sigma) of the kept steps.

    ``t`` are the kept times, from noise to image and not to 0; ``x`` is x_t at the first.
    """

    def __init__(self, schedule: str, t: np.ndarray, seed: int = 0) -> None:
        self.alpha, self.sigma = (part.tolist() for part in alpha_sigma(schedule, t, UNEVEN.sigma_data))
        self.lam = [math.log(a / s) for a, s in zip(self.alpha, self.sigma)]
        self.generator = torch.Generator().manual_seed(seed)

    def noise(self) -> torch.Tensor:
        return torch.randn(X.shape, generator=self.generator, dtype=torch.float64)

    def image(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return UNEVEN.denoise(x / self.alpha[i], self.sigma[i] / self.alpha[i])

    def ddpm(self, x: torch.Tensor) -> torch.Tensor:
        """Ho et al. 2020, eq. 6 and 7, with alpha_t of the paper that of the whole step to the previous kept one."""
        for i, j in pairwise(range(len(self.alpha))):
            bar, bar_before = self.alpha[i] ** 2, self.alpha[j] ** 2
            beta = 1 - bar / bar_before
            mean = math.sqrt(bar_before) * beta / (1 - bar) * self.image(x, i) + math.sqrt(1 - beta) * (1 - bar_before) / (1 - bar) * x
            x = mean + math.sqrt((1 - bar_before) / (1 - bar) * beta) * self.noise()
        return x

    def ddim(self, x: torch.Tensor, eta: float = 0.0) -> torch.Tensor:
        """Song et al. 2021, eq. 12 and 16."""
        for i, j in pairwise(range(len(self.alpha))):
            bar, bar_before = self.alpha[i] ** 2, self.alpha[j] ** 2
            image = self.image(x, i)
            noise = (x - math.sqrt(bar) * image) / math.sqrt(1 - bar)
            fresh = eta * math.sqrt((1 - bar_before) / (1 - bar)) * math.sqrt(1 - bar / bar_before)
            x = math.sqrt(bar_before) * image + math.sqrt(1 - bar_before - fresh**2) * noise
            x = x + fresh * self.noise() if eta else x
        return x

    def dpmpp_2m(self, x: torch.Tensor, sde: bool = False) -> torch.Tensor:
        """Lu et al. 2022 (DPM-Solver++), algorithm 2, and the same with the SDE's coefficients."""
        images: list[torch.Tensor] = []
        for i, j in pairwise(range(len(self.alpha))):
            images.append(self.image(x, i))
            h = self.lam[j] - self.lam[i]
            d = images[-1]
            if i > 0:
                r = (self.lam[i] - self.lam[i - 1]) / h
                d = (1 + 1 / (2 * r)) * images[-1] - 1 / (2 * r) * images[-2]
            if sde:
                x = self.sigma[j] / self.sigma[i] * math.exp(-h) * x + self.alpha[j] * (1 - math.exp(-2 * h)) * d
                x = x + self.sigma[j] * math.sqrt(1 - math.exp(-2 * h)) * self.noise()
            else:
                x = self.sigma[j] / self.sigma[i] * x - self.alpha[j] * (math.exp(-h) - 1) * d
        return x

    def unipc(self, x: torch.Tensor) -> torch.Tensor:
        """Zhao et al. 2023, order 2, data prediction, B2: weights a of R a = b, where B2 (R a)_n is the n-th moment of the step."""
        known, before = self.image(x, 0), None
        for i, j in pairwise(range(len(self.alpha))):
            h = self.lam[j] - self.lam[i]
            b2 = math.expm1(-h)
            base = self.sigma[j] / self.sigma[i] * x - self.alpha[j] * b2 * known
            past = [] if before is None else [((self.lam[i - 1] - self.lam[i]) / h, before)]
            predicted = base
            for r, image in past:
                predicted = base - self.alpha[j] * b2 * 0.5 * (image - known) / r
            if j == len(self.alpha) - 1:
                return predicted
            new = self.image(predicted, j)
            points = [*past, (1.0, new)]
            ratios = np.array([r for r, _ in points])
            phi, b = math.expm1(-h) / -h - 1, []
            for n in range(1, len(points) + 1):
                b.append(phi * math.factorial(n) / b2)
                phi = phi / -h - 1 / math.factorial(n + 1)
            weights = [0.5] if len(points) == 1 else np.linalg.solve(np.vander(ratios, increasing=True).T, b)
            x = base - self.alpha[j] * b2 * sum(float(a) * (image - known) / r for a, (r, image) in zip(weights, points))
            before, known = known, new
        return x


@pytest.mark.parametrize("kept", [5, 7, 250])
@pytest.mark.parametrize("schedule", ["ddpm_linear", "ddpm_cosine", "sigmoid"])
@pytest.mark.parametrize(
    ("sampler", "published"),
    [
        (ddpm, Published.ddpm),
        (ddim, Published.ddim),
        (functools.partial(ddim, eta=0.6), functools.partial(Published.ddim, eta=0.6)),
        (dpmpp_2m, Published.dpmpp_2m),
        (dpmpp_2m_sde, functools.partial(Published.dpmpp_2m, sde=True)),
        (unipc, Published.unipc),
    ],
    ids=["ddpm", "ddim", "ddim-eta", "dpmpp_2m", "dpmpp_2m_sde", "unipc"],
)
def test_samplers_are_their_papers_formulas_at_any_respacing(sampler, published, schedule, kept):
    t = np.linspace(0.98, 0.05, kept)
    papers = Published(schedule, t)
    expected = published(papers, X) / papers.alpha[-1]
    ours = Published(schedule, t)
    levels = [s / a for a, s in zip(ours.alpha, ours.sigma)]
    # The same noise: a step adds it to x_t in the paper and to x_t / alpha here, each in its own proportion.
    torch.testing.assert_close(sampler(UNEVEN.denoise, X / ours.alpha[0], levels, ours.noise), expected, rtol=1e-7, atol=1e-9)


def test_heun_is_edm_algorithm_1():
    levels = sampling_levels("edm", 6, 0.5)
    x = levels[0] * X
    expected = x
    for t, after in pairwise(levels):
        d = (expected - UNEVEN.denoise(expected, t)) / t
        step = expected + (after - t) * d
        if after != 0:
            step = expected + (after - t) * (d / 2 + (step - UNEVEN.denoise(step, after)) / after / 2)
        expected = step
    torch.testing.assert_close(heun(UNEVEN.denoise, x, levels), expected)


def test_ddim_is_euler_without_noise_and_ddpm_with_all_of_it():
    levels = sampling_levels("ddpm_cosine", 9, 0.5)
    assert torch.equal(ddim(UNEVEN.denoise, X, levels), euler(UNEVEN.denoise, X, levels))
    papers = [Published("flow", np.array([0.5])) for _ in range(2)]
    one = ddim(UNEVEN.denoise, X, levels, papers[0].noise, eta=1.0)
    assert torch.equal(one, ddpm(UNEVEN.denoise, X, levels, papers[1].noise))


def test_euler_goes_straight_along_the_velocity_of_flow_matching():
    t = np.linspace(0.95, 0.05, 8)
    x = 0.05 * X + 0.95 * X.flip(0)
    expected = x
    for now, then in pairwise(t):
        image = UNEVEN.denoise(expected / (1 - now), now / (1 - now))
        velocity = (expected - (1 - now) * image) / now - image
        expected = expected + (then - now) * velocity
    found = euler(UNEVEN.denoise, x / (1 - t[0]), (t / (1 - t)).tolist())
    torch.testing.assert_close(found, expected / (1 - t[-1]))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_work_and_cost_one_evaluation_each(name, schedule, steps):
    denoise = Counted(UNEVEN)
    levels = sampling_levels(schedule, steps, UNEVEN.sigma_data)
    noise = RankedNoise(UNEVEN, len(X))
    noise.x = X
    made = SAMPLERS[name](denoise, UNEVEN.mean + levels[0] * X, levels, noise.noise)
    assert torch.isfinite(made).all()
    assert denoise.levels == ([levels[0], *(level for level in levels[1:-1] for _ in range(2))] if name == "heun" else levels[:-1])
    if steps == 1:
        # One step from noise alone knows no more than the mean.
        torch.testing.assert_close(made, UNEVEN.mean.expand_as(made), atol=0.03, rtol=0)


@pytest.mark.parametrize("sampler", [ddpm, dpmpp_2m_sde, functools.partial(ddim, eta=0.5)])
def test_a_stochastic_sampler_without_noise_says_so(sampler):
    with pytest.raises(ValueError, match="needs noise"):
        sampler(UNEVEN.denoise, X, [2.0, 1.0, 0.0])
