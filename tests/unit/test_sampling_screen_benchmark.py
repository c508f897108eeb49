"""The screen of sampling settings tells sharpened and darkened images from real ones, and by what."""

import numpy as np
import pytest

from evaluation.data import Labelled
from tests.benchmarks import sampling_screen


def smooth(seed: int, n: int = 160) -> Labelled:
    rng = np.random.default_rng(seed)
    images = 0.3 * rng.normal(size=(n, 1, 8, 8)).repeat(3, axis=2).repeat(3, axis=3) + 0.05 * rng.normal(size=(n, 1, 24, 24))
    return Labelled.of_classes(images.clip(-1, 1).astype(np.float32), np.arange(n) % 2, np.arange(n) // 2, 2)


def test_the_same_distribution_is_hardly_told_and_has_the_same_power():
    found = sampling_screen.screened(smooth(0), smooth(1), [], ("a", "b"))
    assert found["told"] < 0.65
    assert found["power"] == pytest.approx(np.ones(12), abs=0.15)
    assert found["by_class"]["a"]["n"] == 80


def test_excess_noise_is_told_and_shows_where_it_lies():
    noisy = smooth(1)
    noisy.unit[...] += np.random.default_rng(2).normal(0, 0.1, noisy.unit.shape).astype(np.float32)
    found = sampling_screen.screened(smooth(0), noisy, [], ("a", "b"))
    assert found["told"] > 0.95
    assert found["power"][-1] > 1.2
    assert found["power"][0] == pytest.approx(1, abs=0.15)
    printed = sampling_screen.table([found | {"settings": "generate.steps=4"}])
    assert printed.splitlines()[2].startswith("| generate.steps=4 | ")
    assert "a: recognised" in printed
