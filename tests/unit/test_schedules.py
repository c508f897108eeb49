"""Noise schedules against their published formulas, and the levels that are trained on and sampled."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.diffusion.schedules import (
    RANGE,
    SCHEDULES,
    alpha_sigma,
    karras_sigmas,
    level,
    sampling_levels,
    time,
    training_levels,
    training_sigmas,
)

IN_TIME = [name for name in SCHEDULES if name != "edm"]
K = np.arange(1, 1001)


def published_alpha_bar(name: str) -> np.ndarray:
    """alpha² after steps 1 … 1000 as the papers write it: a running product of 1 − beta."""
    if name == "ddpm_linear":
        beta = [1e-4 + k * (0.02 - 1e-4) / 999 for k in range(1000)]
    else:

        def f(t: float) -> float:
            return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

        beta = [min(1 - f(k) / f(k - 1), 0.999) for k in range(1, 1001)]
    product, kept = 1.0, []
    for one in beta:
        product *= 1 - one
        kept.append(product)
    return np.array(kept)


@pytest.mark.parametrize("name", ["ddpm_linear", "ddpm_cosine"])
def test_discrete_schedules_are_the_published_ones_at_every_one_of_their_steps(name):
    alpha, sigma = alpha_sigma(name, K / 1000)
    np.testing.assert_allclose(alpha**2, published_alpha_bar(name), rtol=1e-11)
    np.testing.assert_allclose(sigma**2, 1 - published_alpha_bar(name), rtol=1e-9)


@pytest.mark.parametrize("name", ["ddpm_linear", "ddpm_cosine"])
def test_discrete_schedules_run_on_between_their_steps(name):
    fine = level(name, np.linspace(0, 1, 7001))
    assert (np.diff(fine) > 0).all()
    halfway = alpha_sigma(name, (K[:-1] + 0.5) / 1000)[0]
    np.testing.assert_allclose(halfway**2, np.sqrt(published_alpha_bar(name)[:-1] * published_alpha_bar(name)[1:]), rtol=1e-10)


def test_the_cosine_schedule_clips_its_last_beta():
    kept = alpha_sigma("ddpm_cosine", [0.999, 1.0])[0] ** 2
    assert kept[1] / kept[0] == pytest.approx(0.001)


def test_the_sigmoid_schedule_is_the_published_formula():
    t = np.linspace(0, 1, 1001)
    logistic = 1 / (1 + np.exp(-(6 * t - 3)))
    top, bottom = 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))
    alpha, sigma = alpha_sigma("sigmoid", t)
    np.testing.assert_allclose(alpha**2, np.clip((top - logistic) / (top - bottom), 1e-9, 1), rtol=1e-8)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-12)


def test_flow_matching_goes_straight_and_its_end_is_a_limit():
    alpha, sigma = alpha_sigma("flow", [0.0, 0.25, 1.0])
    assert alpha.tolist() == [1, 0.75, 0]
    assert sigma.tolist() == [0, 0.25, 1]
    assert level("flow", 1.0) == math.inf
    assert max(sampling_levels("flow", 10, 0.5)) == pytest.approx(RANGE[1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_level_and_time_undo_each_other(name):
    t = np.concatenate([np.linspace(1e-4, 0.9999, 500), K[:-1] / 1000])
    t = t[level(name, t, 0.3) <= RANGE[1]]
    np.testing.assert_allclose(time(name, level(name, t, 0.3), 0.3), t, rtol=1e-9)
    alpha, sigma = alpha_sigma(name, t, 0.3)
    np.testing.assert_allclose(sigma / alpha, level(name, t, 0.3), rtol=1e-12)


def test_edm_levels_follow_equation_5():
    levels = karras_sigmas(18, 0.002, 80.0)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)] + [0]
    np.testing.assert_allclose(levels.numpy(), expected, rtol=1e-10)
    assert karras_sigmas(1, 0.002, 80.0).tolist() == pytest.approx([80, 0])
    with pytest.raises(ValueError, match="at least 1 step"):
        karras_sigmas(0, 0.002, 80.0)


@pytest.mark.parametrize("steps", [1, 12, 16, 18, 1000])
def test_the_default_levels_are_those_of_earlier_releases_to_the_bit(steps):
    spread = 0.2371
    assert sampling_levels("edm", steps, spread) == karras_sigmas(steps, RANGE[0] * spread, RANGE[1] * spread).tolist()


@pytest.mark.parametrize("steps", [1, 2, 5, 7, 10, 999, 1000, 1234])
@pytest.mark.parametrize("name", SCHEDULES)
def test_any_number_of_steps_gives_decreasing_levels_down_to_zero(name, steps):
    levels = sampling_levels(name, steps, 0.5)
    assert len(levels) == steps + 1
    assert all(isinstance(value, float) for value in levels)
    assert all(now > then for now, then in pairwise(levels))
    assert levels[-1] == 0
    assert levels[0] <= RANGE[1] * (1 + 1e-9)


@pytest.mark.parametrize("steps", [5, 10, 20, 50, 250, 1000])
def test_respacing_keeps_every_so_many_of_the_published_steps(steps):
    kept = published_alpha_bar("ddpm_linear")[:: -1000 // steps]
    np.testing.assert_allclose(sampling_levels("ddpm_linear", steps, 0.5)[:-1], np.sqrt(1 / kept - 1), rtol=1e-9)


def test_sampling_may_start_lower_than_the_schedule_does():
    for name in IN_TIME:
        levels = sampling_levels(name, 6, 0.25, highest=40.0)
        assert levels[0] == pytest.approx(40)
        np.testing.assert_allclose(time(name, levels), np.linspace(time(name, 40.0), 0, 7), atol=1e-12)


def test_no_step_and_no_such_schedule_are_errors():
    with pytest.raises(ValueError, match="at least 1 step"):
        sampling_levels("ddpm_linear", 0, 0.5)
    with pytest.raises(ValueError, match="no noise schedule 'liner'"):
        sampling_levels("liner", 10, 0.5)


def test_edm_training_levels_have_the_stated_distribution_and_cover_the_samplers_range():
    sigma = training_levels("edm", 200_000, 0.25, torch.Generator().manual_seed(0), "cpu").double()
    logs = (sigma / 0.25).log()
    assert float(logs.median()) == pytest.approx(-0.5, abs=0.05)
    assert float(sigma.min()) < 0.25 * RANGE[0] * 2
    assert float(sigma.max()) > 0.25 * RANGE[1] / 2
    again = training_sigmas(200_000, 0.25, torch.Generator().manual_seed(0), "cpu")
    assert torch.equal(again.double(), sigma)


@pytest.mark.parametrize("name", IN_TIME)
def test_the_other_training_levels_are_uniform_in_time_within_the_range(name):
    sigma = training_levels(name, 20_000, 0.5, torch.Generator().manual_seed(0), "cpu")
    assert sigma.dtype == torch.float32
    assert float(sigma.min()) >= RANGE[0] * 0.5 * (1 - 1e-6)
    assert float(sigma.max()) <= RANGE[1]
    t = np.sort(time(name, sigma.double().numpy()))
    ends = (time(name, RANGE[0] * 0.5), time(name, RANGE[1]))
    # The nearest step above where steps are drawn: at most a thousandth away.
    np.testing.assert_allclose(t, ((np.arange(20_000) + 0.5) / 20_000).clip(*ends), atol=1.1e-3)


def test_discrete_schedules_train_on_their_own_steps_alone():
    sigma = training_levels("ddpm_linear", 5000, 0.5, torch.Generator().manual_seed(0), "cpu").double().numpy()
    steps = time("ddpm_linear", sigma) * 1000
    np.testing.assert_allclose(steps, np.rint(steps), atol=2e-3)
    assert set(np.rint(steps).astype(int)) == set(range(1, 1001))
