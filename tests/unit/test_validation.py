"""The loss on unseen images beside training: what it is, what it shows, and that training goes on as if nobody had looked."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind

from evaluation.data import Labelled
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import Recipe, Training
from pipeline.diffusion.unet import UNet
from pipeline.diffusion.validation import LEVELS, Validation

RNG = np.random.default_rng(0)
RECIPE = Recipe(images=16 * 12, batch=16, learning_rate=2e-3, label_dropout=0.1, augment=0.2, balance=0.0, ema=0.1)


def side(count: int, level: int = 0) -> Labelled:
    images = RNG.integers(level, level + 120, (count, 1, 16, 16), dtype=np.uint8)
    return Labelled.of_classes(images, np.arange(count) % 2, np.arange(count) // 2, 2)


def training(train: Labelled, recipe: Recipe = RECIPE, objective: str = "edm") -> Training:
    torch.manual_seed(0)
    network = UNet(channels=1, classes=2, size=16, widths=(16, 32), blocks=1, attention=(), patch=2, dropout=0.2)
    denoiser = Denoiser(network, torch.zeros(1, 16, 16), 0.4, objective)
    return Training(denoiser, torch.from_numpy(train.images), Condition.of_classes(train.labels, 2), recipe, seed=3)


def test_a_training_that_is_looked_at_goes_on_bit_for_bit():
    train, val = side(40), side(20)
    alone, watched, validation = training(train), training(train), Validation(train, val, 0)
    alone.run()
    for until in (3, 4, 9, 12):
        watched.run(until=until)
        validation(watched)
        torch.rand(5)  # nor does it matter what others draw
    for name, value in alone.state().items():
        assert torch.equal(watched.state()[name], value), name


@pytest.mark.parametrize("objective", ["edm", "v"])
def test_losses_are_those_of_the_averaged_weights_one_image_at_a_time(float32, monkeypatch, objective):
    monkeypatch.setattr("pipeline.diffusion.validation.autocast", lambda where: torch.autocast("cpu", enabled=False))
    train, val = side(24), side(10)
    run, validation = training(train, objective=objective), Validation(train, val, 0)
    run.run()
    found = validation(run)
    assert found.train.shape == found.val.shape == (len(LEVELS), 10)
    denoiser = training(train, objective=objective).denoiser.eval()
    denoiser.load_state_dict(run.averaged())
    with torch.no_grad():
        for image in range(10):
            clean = torch.from_numpy(val.unit[image : image + 1])
            for number, level in enumerate(LEVELS):
                condition = Condition.of_classes(val.labels[image : image + 1], 2)
                noise, sigma = validation.noise[number, image : image + 1], torch.tensor([level * 0.4])
                expected = denoiser.loss(clean, noise, sigma, condition)
                if denoiser.log_variance is not None:
                    u = denoiser.log_variance(torch.log(sigma) / 4)
                    expected = (expected - u) * u.exp()
                assert found.val[number, image] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_images_learned_by_heart_show_and_their_ratio_has_an_interval_by_patient():
    train, val = side(8), side(8)
    long = training(train, Recipe(images=16 * 250, batch=16, learning_rate=4e-3, label_dropout=0.0, augment=0.0, balance=0.0, ema=0.1))
    validation = Validation(train, val, 0)
    before = validation(long)
    long.run()
    after = validation(long)
    assert before.gap.low < 0 < before.gap.high
    assert after.gap.low > 0
    means = [np.log(losses).mean(axis=0).reshape(4, 2).mean(axis=1) for losses in (after.val, after.train)]
    low, high = ttest_ind(*means, equal_var=False).confidence_interval(0.95)
    facts = after.facts()
    assert facts["ratio"]["value"] == pytest.approx(math.exp(means[0].mean() - means[1].mean()))
    assert (facts["ratio"]["low"], facts["ratio"]["high"]) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert facts["val"] == pytest.approx(after.val.mean(axis=1), abs=1e-5)


def test_both_sides_have_as_many_images_and_one_patient_has_no_interval():
    train, val = side(300), side(2)
    found = Validation(train, val, 0)(training(train))
    assert found.train.shape == found.val.shape == (len(LEVELS), 2)
    assert math.isnan(found.gap.low)
    assert math.isfinite(found.gap.value)
