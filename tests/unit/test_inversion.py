"""Counterfactuals between two Gaussians, where what they come to is known in closed form."""

import pytest
import torch
from torch import Tensor

from pipeline.diffusion.inversion import counterfactual
from pipeline.diffusion.schedules import sampling_levels

WIDTH = 0.3


def gaussian(mean: float):
    """The denoiser of a Gaussian about ``mean`` (Karras et al. 2022, eq. 57): the posterior mean."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return mean + WIDTH**2 / (WIDTH**2 + sigma**2) * (x - mean)

    return denoise


def chance(seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn((6, 1, 4, 4), generator=generator, dtype=torch.float64)


@pytest.fixture
def images() -> Tensor:
    return 0.5 + WIDTH * chance(0)()


def test_the_same_condition_leads_back_to_the_image_in_however_few_steps(images: Tensor) -> None:
    for steps in (2, 3, 10):
        levels = sampling_levels("edm", steps, WIDTH)
        torch.testing.assert_close(counterfactual(gaussian(0.5), gaussian(0.5), images, levels, chance()), images)


def test_another_class_moves_each_image_by_the_distance_of_the_classes_and_keeps_it_apart_from_the_others(images: Tensor) -> None:
    levels = sampling_levels("edm", 40, WIDTH)
    made = counterfactual(gaussian(0.5), gaussian(-0.2), images, levels, chance())
    torch.testing.assert_close(made - images, torch.full_like(images, -0.7), rtol=0, atol=5e-3)
    again = counterfactual(gaussian(0.5), gaussian(-0.2), images, levels, chance(2))
    torch.testing.assert_close(again, made)


@pytest.mark.parametrize("depth", [0.3, 1.0, 3.0])
def test_less_noise_changes_less(images: Tensor, depth: float) -> None:
    """A step keeps 1 - (1 - t²/s²) s²/(width² + s²) of the way that is left; all small ones together width² / (width² + sigma²)."""
    levels = sampling_levels("edm", 400, WIDTH, depth * WIDTH)
    moved = (counterfactual(gaussian(0.5), gaussian(-0.2), images, levels, chance()) - images).mean()
    assert float(moved) == pytest.approx(-0.7 * (1 - 1 / (1 + depth**2)), abs=5e-3)
