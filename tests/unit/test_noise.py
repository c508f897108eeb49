"""The counter-based noise: the published generator's known answers, a normal distribution, independence of the batch."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.diffusion.noise import StepNoise, philox

# Known-answer tests of the authors' Random123 library, kat_vectors: counter, key, answer.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    words = [[torch.tensor(int(word, 16)) for word in text.split()] for text in (counter, key)]
    assert [f"{int(word):08x}" for word in philox(tuple(words[0]), tuple(words[1]))] == answer.split()


def test_the_noise_is_standard_normal_and_uncorrelated():
    noise = StepNoise(range(400), (1, 16, 16), "cpu")
    first, second = noise().double().flatten(1), noise().double().flatten(1)
    for drawn in (first, second):
        assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
    n = first.numel()
    for one, other in ((first, second), (first[:-1], first[1:]), (first[:, :-1], first[:, 1:]), (first[:, ::2], first[:, 1::2])):
        assert abs(float((one * other).mean())) < 4 / math.sqrt(n / 2)
    squares = float(((first[:, ::2] ** 2 - 1) * (first[:, 1::2] ** 2 - 1)).mean()) / 2
    assert abs(squares) < 4 / math.sqrt(n / 2)


def test_the_uniform_numbers_are_uniform_and_an_images_own():
    noise = StepNoise(range(4000), (1, 2, 2), "cpu")
    drawn = noise.uniform()
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(StepNoise([7, 2**62 + 9], (3,), "cpu").uniform()[:1], drawn[7:8])
    first = noise()
    assert torch.equal(noise.uniform(), drawn)
    for number in range(4):
        assert abs(np.corrcoef(first.flatten(1)[:, number].numpy(), drawn.numpy())[0, 1]) < 4 / math.sqrt(4000)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 3, 3, 3)])
def test_an_images_noise_depends_on_its_own_seed_alone(shape):
    seeds = [7, 2**62 + 9, 8]
    together, alone = StepNoise(seeds, shape, "cpu"), StepNoise([8], shape, "cpu")
    for _ in range(3):
        all_of_them, one = together(), alone()
        assert all_of_them.shape == (3, *shape)
        assert torch.equal(all_of_them[2], one[0])
        assert len(np.unique(all_of_them.numpy())) == all_of_them.numel()


def test_both_halves_of_a_seed_matter():
    drawn = StepNoise([1, 1 + 2**32, 2**32], (1, 8, 8), "cpu")()
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
