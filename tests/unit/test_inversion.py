"""Inversion and counterfactuals against a Gaussian of each class, whose probability flow is known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.diffusion.inversion import counterfactual, inverted
from pipeline.diffusion.samplers import heun
from pipeline.diffusion.schedules import sampling_levels

WIDTH = 0.3
LEVELS = sampling_levels("edm", 40, WIDTH)


def gaussian(mean: float):
    """The denoiser of a Gaussian about ``mean`` (Karras et al. 2022, eq. 57): the posterior mean."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return mean + WIDTH**2 / (WIDTH**2 + sigma**2) * (x - mean)

    return denoise


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 + WIDTH * torch.randn((6, 1, 4, 4), generator=generator, dtype=torch.float64)


def test_inversion_ends_where_the_closed_form_of_the_flow_does(images: Tensor) -> None:
    """(x - mean) / sqrt(width² + sigma²) stays along the flow."""
    levels = sampling_levels("edm", 80, WIDTH, 10 * WIDTH)
    expected = 0.5 + (images - 0.5) * math.sqrt(WIDTH**2 + levels[0] ** 2) / math.sqrt(WIDTH**2 + levels[-2] ** 2)
    torch.testing.assert_close(inverted(gaussian(0.5), images, levels), expected, rtol=1e-2, atol=1e-2)


def test_what_is_inverted_comes_back(images: Tensor) -> None:
    back = heun(gaussian(0.5), inverted(gaussian(0.5), images, LEVELS), LEVELS)
    torch.testing.assert_close(back, images, rtol=0, atol=3e-3)


def test_the_same_condition_changes_nothing_however_few_steps(images: Tensor) -> None:
    few = sampling_levels("edm", 3, WIDTH)
    torch.testing.assert_close(counterfactual(gaussian(0.5), gaussian(0.5), images, few), images)


def test_another_class_moves_each_image_by_the_distance_of_the_classes_and_keeps_it_apart_from_the_others(images: Tensor) -> None:
    made = counterfactual(gaussian(0.5), gaussian(-0.2), images, LEVELS)
    torch.testing.assert_close(made - images, torch.full_like(images, -0.7), rtol=0, atol=5e-3)


def test_less_noise_changes_less(images: Tensor) -> None:
    """Down from sigma, the closed form moves the mean by 1 - width / sqrt(width² + sigma²) of the way."""
    for depth in (0.3, 1.0, 3.0):
        levels = sampling_levels("edm", 40, WIDTH, depth * WIDTH)
        moved = (counterfactual(gaussian(0.5), gaussian(-0.2), images, levels) - images).mean()
        assert float(moved) == pytest.approx(-0.7 * (1 - 1 / math.sqrt(1 + depth**2)), abs=5e-3)


def test_one_level_is_no_way_up(images: Tensor) -> None:
    with pytest.raises(ValueError, match="at least two levels above 0"):
        inverted(gaussian(0.5), images, [1.0, 0.0])
