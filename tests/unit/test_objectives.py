"""The objectives: their coefficients, conversions and common minimiser; Muon's orthogonalisation and the augmentation."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.precision import bf16_pays
from pipeline.diffusion import augment
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalise
from pipeline.diffusion.objectives import OBJECTIVES, Denoiser, precondition
from pipeline.diffusion.schedules import RANGE, alpha_sigma
from tests.unit.mixture import UNEVEN


class Constant(nn.Module):
    """A network whose output is one number."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.classes = 2
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x, c_noise, condition, augmentation=None):
        assert c_noise.shape == (len(x),)
        return self.value.expand_as(x)


class Table(nn.Module):
    """A network that is a table: at each of a few noise levels, piecewise linear in x, between KNOTS times the spread of x there."""

    def __init__(self, levels: torch.Tensor, objective: str) -> None:
        super().__init__()
        self.c_noise = levels.log() / 4
        self.place = (levels**2 + UNEVEN.sigma_data**2).rsqrt() / precondition(objective, levels, UNEVEN.sigma_data).c_in
        self.values = nn.Parameter(torch.zeros(len(levels), len(KNOTS)))

    def forward(self, x, c_noise, condition, augmentation=None):
        row = (c_noise[:, None] - self.c_noise).abs().argmin(dim=1)
        place = (x.flatten() * self.place[row] - KNOTS[0]) / (KNOTS[1] - KNOTS[0])
        left = place.floor().clamp(0, len(KNOTS) - 2)
        right = place - left
        values = self.values.flatten()
        first = row * len(KNOTS) + left.long()
        return (values[first] * (1 - right) + values[first + 1] * right).reshape(x.shape)


KNOTS = torch.linspace(-3, 3, 121)


def test_edm_keeps_input_and_target_at_unit_variance():
    sigma_data = 0.3
    sigma = torch.tensor([0.01, 0.3, 5.0])
    k = precondition("edm", sigma, sigma_data)
    torch.testing.assert_close(k.c_in**2 * (sigma**2 + sigma_data**2), torch.ones(3))
    # EDM eq. 113: the effective target (y - c_skip (y + n)) / c_out has unit variance.
    variance_target = ((1 - k.c_skip) ** 2 * sigma_data**2 + (k.c_skip * sigma) ** 2) / k.c_out**2
    torch.testing.assert_close(variance_target, torch.ones(3))


@pytest.mark.parametrize(("objective", "schedule"), [*((kind, "ddpm_linear") for kind in ("epsilon", "x0", "v")), ("flow", "flow")])
def test_a_denoiser_reads_its_network_as_the_published_prediction_at_the_published_input(objective, schedule):
    alpha, sigma = (torch.from_numpy(part) for part in alpha_sigma(schedule, [0.001, 0.3, 0.9]))
    image, noise = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64), torch.tensor([0.2, 0.5, -1.7], dtype=torch.float64)
    x_t = alpha * image + sigma * noise
    value = {"epsilon": noise, "x0": image, "v": alpha * noise - sigma * image, "flow": noise - image}[objective]
    k = precondition(objective, sigma / alpha, 0.5)
    torch.testing.assert_close(k.c_in * x_t / alpha, x_t)
    torch.testing.assert_close(k.c_skip * x_t / alpha + k.c_out * value, image)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_coefficients_are_finite_and_the_level_is_told_on_one_scale(objective):
    for value in precondition(objective, torch.logspace(math.log10(RANGE[0] * 0.1), math.log10(RANGE[1]), 50), 0.3):
        assert torch.isfinite(value).all()
    c_noise = precondition(objective, torch.tensor([RANGE[0] * 0.25, RANGE[1]]), 0.25).c_noise
    assert float(c_noise.abs().max()) < 2


def pairs_of_image_and_noise(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(images, noise, sigma), each ``float32 [n, 1, 1, 1]`` but sigma ``[n]``: evenly spread pairs at each level, where KNOTS reach."""
    number = np.arange(30_000)
    images = torch.from_numpy(UNEVEN.quantile((number + 0.5) / len(number))).float().repeat(len(levels))
    noises = torch.special.ndtri(torch.from_numpy((number * (5**0.5 - 1) / 2 + 0.5) % 1)).float().repeat(len(levels))
    sigma = levels.repeat_interleave(len(number))
    inside = (images + sigma * noises).abs() < 3 * (sigma**2 + UNEVEN.sigma_data**2).sqrt()
    return images[inside].reshape(-1, 1, 1, 1), noises[inside].reshape(-1, 1, 1, 1), sigma[inside]


def minimise(denoiser: Denoiser, parameters, images: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> None:
    """Full-batch L-BFGS on the denoiser's own loss."""
    solver = torch.optim.LBFGS(list(parameters), max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    labels = Condition.of_classes(torch.zeros(len(images)), 1)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = denoiser.loss(images, noise, sigma, labels).mean()
        value.backward()
        return value

    solver.step(loss)


@pytest.mark.parametrize("objective", ["edm", *(pytest.param(name, marks=pytest.mark.slow) for name in OBJECTIVES if name != "edm")])
def test_every_objective_has_its_minimum_at_the_conditional_expectation(objective):
    levels = torch.tensor([0.05, 0.3, 2.0])
    images, noise, sigma = pairs_of_image_and_noise(levels)
    denoiser = Denoiser(Table(levels, objective), torch.zeros(1, 1, 1), UNEVEN.sigma_data, objective)
    minimise(denoiser, denoiser.network.parameters(), images, noise, sigma)
    x = images + sigma.reshape(-1, 1, 1, 1) * noise
    found = denoiser(x, sigma, Condition.of_classes(torch.zeros(len(x)), 1)).detach().flatten().double()
    for one in levels:
        rows = sigma == one
        exact = UNEVEN.denoise(x[rows].reshape(-1, 1).double(), float(one)).flatten()
        assert float((found[rows] - exact).square().mean().sqrt()) < 0.008


def test_the_learned_log_variance_is_that_of_the_loss():
    levels = torch.tensor([0.02, 0.2, 1.0, 8.0])
    denoiser = Denoiser(Constant(), torch.zeros(1, 1, 1), 0.5)
    images, noise, sigma = pairs_of_image_and_noise(levels)
    plain = denoiser.loss(images, noise, sigma, Condition.of_classes(torch.zeros(len(images)), 1)).detach()
    minimise(denoiser, denoiser.log_variance.parameters(), images, noise, sigma)
    learned = denoiser.log_variance(levels.log() / 4).detach().exp()
    torch.testing.assert_close(learned, torch.stack([plain[sigma == one].mean() for one in levels]), rtol=1e-2, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_is_the_networks_squared_error_in_its_own_target(objective):
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.rand(3, 1, 4, 4, generator=generator) * 2 - 1, torch.randn(3, 1, 4, 4, generator=generator)
    sigma, spread = torch.tensor([0.05, 0.5, 5.0]), 0.4
    level = sigma.reshape(-1, 1, 1, 1)
    alpha, share = (1 + level**2).rsqrt(), level * (1 + level**2).rsqrt()
    total = level**2 + spread**2
    target = {
        "edm": (images - spread**2 / total * (images + level * noise)) * total.sqrt() / (level * spread),
        "epsilon": noise,
        "x0": images,
        "v": alpha * noise - share * images,
        "flow": noise - images,
    }[objective]
    denoiser = Denoiser(Constant(0.3), torch.zeros(1, 4, 4), spread, objective)
    loss = denoiser.loss(images, noise, sigma, Condition.of_classes(torch.zeros(3), 1))
    torch.testing.assert_close(loss, (0.3 - target).square().mean(dim=(1, 2, 3)), rtol=1e-4, atol=1e-5)


def test_a_network_that_says_nothing_denoises_to_the_wiener_estimate_about_the_mean():
    mean = torch.full((1, 4, 4), 0.2)
    denoiser = Denoiser(Constant(), mean, 0.5)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5, 2.0])
    wiener = 0.25 / (0.25 + sigma**2)
    expected = mean + wiener.reshape(-1, 1, 1, 1) * (x - mean)
    torch.testing.assert_close(denoiser(x, sigma, Condition.of_classes(torch.zeros(2), 1)), expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_volumes_are_denoised_like_images(objective):
    x = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma, labels = torch.tensor([0.3, 3.0]), Condition.of_classes(torch.zeros(2), 1)
    volumes = Denoiser(Constant(0.2), torch.full((1, 3, 4, 4), 0.1), 0.5, objective)
    slices = Denoiser(Constant(0.2), torch.full((1, 4, 4), 0.1), 0.5, objective)
    torch.testing.assert_close(volumes(x, sigma, labels)[:, :, 1], slices(x[:, :, 1], sigma, labels))
    assert volumes.loss(x, x, sigma, labels).shape == (2,)


def test_an_unknown_objective_is_an_error_at_once():
    with pytest.raises(ValueError, match="no objective 'score'"):
        Denoiser(Constant(), torch.zeros(1, 4, 4), 0.5, "score")


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


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)])
def test_orthogonalisation_through_the_gram_matrix_is_the_plain_iteration(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrices[0, 1] = matrices[0, 0]  # a singular value of zero
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True)
    for _ in range(ITERATIONS):
        a, b, c = COEFFICIENTS
        x = a * x + b * (x @ x.mT) @ x + c * (x @ x.mT) @ (x @ x.mT) @ x
    torch.testing.assert_close(orthogonalise(matrices.float()).double(), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_step_of_muon_is_the_orthogonalised_momentum_however_the_kernel_lies_in_memory(layout):
    kernel, gradient = torch.randn(2, 24, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    weight = kernel.clone().contiguous(memory_format=layout).requires_grad_()
    weight.grad = gradient.clone().contiguous(memory_format=layout)
    Muon([weight], lr=torch.tensor(0.1), weight_decay=0.5).step()
    momentum = 0.05 * gradient
    nesterov = (gradient + 0.95 * (momentum - gradient)).flatten(1)
    step = 0.2 * 144**0.5 * orthogonalise(nesterov[None])[0].reshape(kernel.shape)
    torch.testing.assert_close(weight.detach(), kernel * (1 - 0.1 * 0.5) - 0.1 * step, atol=1e-4, rtol=0)


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
    assert float((weight.detach() - target).square().mean()) < 1e-2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_each_weight_as_the_formula_says_in_any_memory_format(layout):
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 16, 3, 3), (16, 16, 3, 3), (24, 16, 3, 3), (16, 16, 1, 1)]
    weights = [torch.randn(shape, generator=generator).to(memory_format=layout).requires_grad_() for shape in shapes]
    expected = [weight.detach().clone() for weight in weights]
    momenta = [torch.zeros_like(weight) for weight in expected]
    optimiser = Muon(weights, lr=torch.tensor(0.02))
    for _ in range(3):
        for weight, known, momentum in zip(weights, expected, momenta):
            weight.grad = torch.randn(weight.shape, generator=generator)
            momentum.mul_(0.95).add_(0.05 * weight.grad)
            direction = orthogonalise((0.05 * weight.grad + 0.95 * momentum).flatten(1)[None])[0]
            step = 0.02 * 0.2 * max(direction.shape) ** 0.5 * direction
            known.mul_(1 - 0.02 * 0.01).sub_(step.reshape(known.shape))
        optimiser.step()
    for weight, known in zip(weights, expected):
        torch.testing.assert_close(weight.detach(), known.contiguous(memory_format=layout), atol=2e-3 if bf16_pays("cpu") else 1e-5, rtol=0)


def test_augmentation_with_zero_parameters_is_the_image():
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment.apply(images, torch.zeros(4, augment.AUGMENTATIONS)), images)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (0, 1.0, lambda x: x.flip(3)),
        (1, 1.0, lambda x: x.flip(2)),
        (2, 1.0, lambda x: x.transpose(2, 3)),
        (3, 2 / (augment.SHIFT * 16), lambda x: torch.cat([x[..., :1], x[..., :1], x[..., :-2]], dim=3)),
        (4, -1 / (augment.SHIFT * 16), lambda x: torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)),
        (5, 1.0, lambda x: x * np.exp(augment.LOG_CONTRAST)),
        (6, -1.0, lambda x: x - augment.BRIGHTNESS),
    ],
)
def test_each_augmentation_is_what_it_is_called(kind, value, expected):
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    parameters = torch.zeros(2, augment.AUGMENTATIONS)
    parameters[1, kind] = value
    made = augment.apply(images, parameters)
    assert torch.equal(made[0], images[0])
    torch.testing.assert_close(made[1], expected(images)[1].float())


def test_whole_pixels_are_moved_and_no_value_is_made_up():
    images = torch.rand(64, 1, 12, 20, generator=torch.Generator().manual_seed(0))
    parameters = augment.draw(64, 1.0, (12, 20), torch.Generator().manual_seed(1), "cpu")
    parameters[:, 5:] = 0
    assert not parameters[:, 2].any()  # not square, so never transposed
    for before, after in zip(images, augment.apply(images, parameters)):
        assert set(after.flatten().tolist()) <= set(before.flatten().tolist())


def test_augmentation_is_drawn_as_often_as_asked_in_units_of_its_own_spread():
    parameters = augment.draw(20_000, 0.25, (28, 28), torch.Generator().manual_seed(0), "cpu")
    assert parameters[:, [0, 1, 2, 5, 6]].ne(0).double().mean(dim=0).tolist() == pytest.approx([0.25] * 5, abs=0.02)
    assert parameters[:, 3:].square().sum(dim=0).div(20_000 * 0.25).tolist() == pytest.approx([1.0] * 4, abs=0.1)
    assert not augment.draw(100, 0.0, (28, 28), None, "cpu").any()
    assert np.isfinite(parameters.numpy()).all()


def test_volumes_are_augmented_slice_by_slice():
    volumes = torch.rand(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    parameters = augment.draw(3, 1.0, (8, 8), torch.Generator().manual_seed(1), "cpu")
    made = augment.apply(volumes, parameters)
    for depth in range(4):
        torch.testing.assert_close(made[:, :, depth], augment.apply(volumes[:, :, depth], parameters))
