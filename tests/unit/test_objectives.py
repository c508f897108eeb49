"""The EDM objective: its coefficients, its minimiser, the power-function average and Muon's orthogonalisation."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.diffusion import augment, ema
from pipeline.diffusion.muon import Muon, orthogonalise
from pipeline.diffusion.objectives import Denoiser, precondition


class Constant(nn.Module):
    """A network whose output is one number."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = 2
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, labels, augmentation=None):
        return self.value.expand_as(x)


def test_preconditioning_keeps_input_and_target_at_unit_variance():
    sigma_data = 0.3
    sigma = torch.tensor([0.01, 0.3, 5.0])
    k = precondition(sigma, sigma_data)
    variance_in = (k.c_in.flatten() ** 2) * (sigma**2 + sigma_data**2)
    torch.testing.assert_close(variance_in, torch.ones(3))
    # EDM eq. 113: the effective target (y - c_skip (y + n)) / c_out has unit variance.
    variance_target = ((1 - k.c_skip) ** 2 * sigma_data**2 + (k.c_skip * sigma.reshape(-1, 1, 1, 1)) ** 2) / k.c_out**2
    torch.testing.assert_close(variance_target.flatten(), torch.ones(3))


def test_a_network_that_says_nothing_denoises_to_the_wiener_estimate_about_the_mean():
    mean = torch.full((1, 4, 4), 0.2)
    denoiser = Denoiser(Constant(), mean, 0.5)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5, 2.0])
    wiener = 0.25 / (0.25 + sigma**2)
    expected = mean + wiener.reshape(-1, 1, 1, 1) * (x - mean)
    torch.testing.assert_close(denoiser(x, sigma, torch.zeros(2, dtype=torch.long)), expected)


def test_the_loss_is_least_at_the_conditional_expectation():
    torch.manual_seed(0)
    denoiser = Denoiser(Constant(), torch.zeros(1, 1, 1), 1.0)
    images = torch.full((512, 1, 1, 1), 0.7)
    sigma = torch.full((512,), 1.0)
    noise = torch.randn(512, 1, 1, 1)
    # E[image | x] = 0.7 whatever x: F must be (0.7 - c_skip x) / c_out on average.
    best = float(((0.7 - 0.5 * (images + noise)) / math.sqrt(0.5)).mean())
    losses = {}
    for value in (best - 0.2, best, best + 0.2):
        denoiser.network.value.data.fill_(value)
        losses[value] = denoiser.loss(images, noise, sigma, torch.zeros(512, dtype=torch.long)).mean().item()
    assert min(losses, key=losses.get) == best


def test_the_power_function_average_matches_its_integral():
    width, steps = 0.1, 400
    gamma = ema.gamma_of_width(width)
    # sigma_rel of the profile t^gamma: sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3))   (EDM2, eq. 126)
    assert math.sqrt(gamma + 1) / ((gamma + 2) * math.sqrt(gamma + 3)) == pytest.approx(width, rel=1e-6)
    average, weight = [torch.zeros(1, dtype=torch.float64)], [torch.zeros(1, dtype=torch.float64)]
    for step in range(1, steps + 1):
        weight[0].fill_(float(step))
        ema.update(average, weight, step, gamma)
    mean_time = (gamma + 1) / (gamma + 2)
    assert float(average[0]) / steps == pytest.approx(mean_time, rel=5e-3)


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16)])
def test_orthogonalisation_flattens_the_singular_values_and_keeps_the_singular_vectors(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonalise(matrices).float()
    values = torch.linalg.svdvals(made)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    core = u.transpose(1, 2) @ made @ vh.transpose(1, 2)
    off_diagonal = core - torch.diag_embed(core.diagonal(dim1=1, dim2=2))
    assert float(off_diagonal.abs().max()) < 0.05


def test_muon_solves_a_least_squares_problem():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(16, 16, 1, 1, generator=generator)
    weight = torch.zeros(16, 16, 1, 1, requires_grad=True)
    rate = torch.tensor(0.05)
    optimiser = Muon([weight], lr=rate, weight_decay=0.0)
    for step in range(300):
        rate.fill_(0.05 * (1 - step / 300))
        optimiser.zero_grad()
        (weight - target).square().sum().backward()
        optimiser.step()
    assert float((weight - target).square().mean()) < 1e-2


def test_augmentation_with_zero_parameters_is_the_image_and_a_flip_is_a_flip():
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    parameters = torch.zeros(4, 6)
    assert torch.equal(augment.apply(images, parameters), images)
    parameters[:, 0] = 1
    torch.testing.assert_close(augment.apply(images, parameters), images.flip(3), atol=1e-5, rtol=0)


def test_augmentation_is_drawn_as_often_as_asked():
    parameters = augment.draw(20_000, 0.25, torch.Generator().manual_seed(0), "cpu")
    assert float(parameters[:, 0].mean()) == pytest.approx(0.25, abs=0.02)
    assert float(parameters[:, 5].ne(0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert not augment.draw(100, 0.0, None, "cpu").any()
    assert np.isfinite(parameters.numpy()).all()
