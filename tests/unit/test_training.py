"""The training loop: exact resumption, class balance, learning, clear failure."""

import numpy as np
import pytest
import torch

from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import Recipe, Training, class_balanced_cdf, learning_rate_factor
from pipeline.diffusion.unet import UNet

RECIPE = Recipe(images=16 * 24, batch=16, learning_rate=2e-3, label_dropout=0.1, augment=0.2, balance=0.5, ema=0.1)


def make(seed: int = 0, recipe: Recipe = RECIPE, dropout: float = 0.1) -> Training:
    torch.manual_seed(seed)
    network = UNet(channels=1, classes=2, size=16, widths=(16, 32), blocks=1, attention=(4,), patch=2, dropout=dropout)
    denoiser = Denoiser(network, torch.zeros(1, 16, 16), 0.5)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (40, 1, 16, 16), dtype=np.uint8))
    labels = torch.from_numpy((np.arange(40) % 4 == 0).astype(np.int64))
    return Training(denoiser, images, labels, recipe, seed=3)


@pytest.mark.parametrize("stop", [1, 7, 23])
def test_stopped_and_resumed_anywhere_gives_the_same_bits(stop):
    straight = make()
    straight.run()
    first = make()
    first.run(until=stop)
    saved = {name: value.clone() for name, value in first.state().items()}
    second = make(seed=9)
    second.load(saved)
    second.run()
    for name, value in straight.averaged().items():
        assert torch.equal(value, second.averaged()[name]), name
    for before, after in zip(straight.parameters, second.parameters):
        assert torch.equal(before, after)


def test_training_lowers_the_loss():
    training = make(recipe=Recipe(images=16 * 120, batch=16, learning_rate=3e-3, label_dropout=0.1, augment=0, balance=0, ema=0.1))
    training.images[:] = 200
    losses = []
    training.run(every=20, report=lambda step, loss: losses.append(loss))
    assert losses[-1] < losses[0] - 0.5


def test_a_diverged_training_says_so_instead_of_going_on():
    training = make()
    with torch.no_grad():
        training.parameters[0].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite at image"):
        training.run(every=2)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.9), (1.0, 0.5), (0.5, 0.75)])
def test_balance_evens_out_the_classes(balance, share):
    labels = torch.tensor([0] * 90 + [1] * 10)
    cdf = class_balanced_cdf(labels, balance)
    drawn = torch.searchsorted(cdf, torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert float((labels[drawn] == 0).double().mean()) == pytest.approx(share, abs=0.01)
    assert int(drawn.max()) < 100


def test_a_class_that_does_not_occur_is_never_drawn():
    cdf = class_balanced_cdf(torch.tensor([0, 2, 2]), 1.0)
    np.testing.assert_allclose(cdf.numpy(), [0.5, 0.75, 1.0])


def test_the_learning_rate_rises_holds_and_decays_to_zero():
    factors = [learning_rate_factor(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(0.02)
    assert factors[300] == 1
    assert factors[999] == pytest.approx(1 / 400)
    assert max(factors) == 1


@pytest.mark.parametrize("size", [28, 32, 30])
def test_the_network_takes_any_size(size):
    network = UNet(channels=3, classes=2, size=size, widths=(16, 32), blocks=2, attention=(8,), patch=2, dropout=0.0)
    x = torch.randn(2, 3, size, size)
    assert network(x, torch.zeros(2), torch.tensor([0, 2])).shape == x.shape
