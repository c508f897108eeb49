"""Power-function averages: their profile, and any width solved after training against the same average tracked in training."""

import math

import numpy as np
import pytest
import torch

from pipeline.diffusion import ema
from pipeline.diffusion.ema import Profile

STEPS, EVERY = 3000, 125


def weights_over_training(steps: int) -> torch.Tensor:
    """A drift that slows down, under a random walk and fresh noise: ``float64 [steps, 64]``."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(steps, 64, generator=generator, dtype=torch.float64).cumsum(0) / steps**0.5
    drift = torch.linspace(0, 4, steps, dtype=torch.float64).neg().expm1()[:, None] * torch.linspace(-2, 2, 64, dtype=torch.float64)
    return walk + drift + torch.randn(steps, 64, generator=generator, dtype=torch.float64)


WEIGHTS = weights_over_training(STEPS)


def tracked(width: float, until: int = STEPS, stored: dict[Profile, torch.Tensor] | None = None) -> torch.Tensor:
    """The average of WEIGHTS as training tracks it, ``[64]``; every so often put into ``stored``."""
    average, gamma = [torch.zeros(64, dtype=torch.float64)], ema.gamma_of_width(width)
    for step in range(1, until + 1):
        ema.update(average, [WEIGHTS[step - 1]], step, gamma)
        if stored is not None and step % EVERY == 0:
            stored[Profile(step, width)] = average[0].clone()
    return average[0]


@pytest.fixture(scope="module")
def stored() -> dict[Profile, torch.Tensor]:
    found: dict[Profile, torch.Tensor] = {}
    for width in (0.05, 0.1):
        tracked(width, stored=found)
    return found


def solved(stored: dict[Profile, torch.Tensor], wanted: Profile) -> torch.Tensor:
    weights = ema.solve(list(stored), wanted)
    return ema.combine(weights, ({"w": value} for value in stored.values()))["w"]


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.25])
def test_gamma_has_the_relative_width_that_was_asked_for(width):
    gamma = ema.gamma_of_width(width)
    # The standard deviation of the density (gamma + 1) t^gamma on 0..1: EDM2, eq. 126.
    assert math.sqrt(gamma + 1) / ((gamma + 2) * math.sqrt(gamma + 3)) == pytest.approx(width, rel=1e-6)


def test_the_widest_average_is_the_plain_mean():
    assert ema.gamma_of_width(ema.WIDEST) == pytest.approx(0, abs=1e-9)
    average = [torch.zeros(64, dtype=torch.float64)]
    for step in range(1, 101):
        ema.update(average, [WEIGHTS[step - 1]], step, 0.0)
    torch.testing.assert_close(average[0], WEIGHTS[:100].mean(dim=0))


def test_the_tracked_average_weighs_each_step_by_its_part_of_the_profile():
    gamma = ema.gamma_of_width(0.1)
    edges = (np.arange(STEPS + 1) / STEPS) ** (gamma + 1)
    torch.testing.assert_close(tracked(0.1), torch.from_numpy(np.diff(edges)) @ WEIGHTS)


def test_the_solution_is_the_least_squares_fit_of_the_profiles_themselves():
    stored, wanted = [Profile(300, 0.05), Profile(400, 0.1), Profile(500, 0.05), Profile(500, 0.1)], Profile(500, 0.14)
    t = (np.arange(500_000) + 0.5) / 1000

    def density(profile: Profile) -> np.ndarray:
        gamma = ema.gamma_of_width(profile.width)
        return np.where(t <= profile.step, (gamma + 1) * (t / profile.step) ** gamma / profile.step, 0)

    # Under sum 1, the last weight is what the others leave.
    last = density(stored[-1])
    others = np.stack([density(profile) - last for profile in stored[:-1]], axis=1)
    fitted = np.linalg.lstsq(others, density(wanted) - last)[0]
    np.testing.assert_allclose(ema.solve(stored, wanted), [*fitted, 1 - fitted.sum()], rtol=1e-4)


@pytest.mark.parametrize("width", [0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25])
def test_any_width_is_found_after_training(stored, width):
    exact = tracked(width)
    other = tracked(0.05 if width >= 0.1 else 0.15)
    error = (solved(stored, Profile(STEPS, width)) - exact).norm()
    assert float(error) < 0.02 * float((other - exact).norm())


def test_an_earlier_step_is_found_too_from_what_was_stored_up_to_it(stored):
    step = STEPS // 2
    weights = ema.solve(list(stored), Profile(step, 0.12))
    assert all(weight == 0 for profile, weight in zip(stored, weights) if profile.step > step)
    exact = tracked(0.12, until=step)
    error = (solved(stored, Profile(step, 0.12)) - exact).norm()
    assert float(error) < 0.02 * float((tracked(0.05, until=step) - exact).norm())


@pytest.mark.parametrize("wanted", [Profile(STEPS, 0.03), Profile(STEPS, 0.25), Profile(1562, 0.12)])
def test_what_stood_still_is_found_as_it_was(stored, wanted):
    assert ema.solve(list(stored), wanted).sum() == pytest.approx(1, abs=1e-10)


def test_a_stored_average_is_its_own_solution(stored):
    weights = ema.solve(list(stored), Profile(STEPS, 0.1))
    expected = [float(profile == Profile(STEPS, 0.1)) for profile in stored]
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_nothing_stored_in_time_is_an_error():
    with pytest.raises(ValueError, match="up to step 99"):
        ema.solve([Profile(100, 0.05)], Profile(99, 0.1))


def test_combining_keeps_names_and_types():
    averages = [{"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}, {"a": torch.tensor([10.0, 20.0]), "b": torch.tensor(30.0)}]
    made = ema.combine([2.0, -0.1], averages)
    assert made["a"].dtype == torch.float32
    torch.testing.assert_close(made["a"], torch.tensor([1.0, 2.0]))
    assert float(made["b"]) == pytest.approx(3)
