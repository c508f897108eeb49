"""What is done to a classifier's training images, against what is worked out by hand."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.augmentation import augmented, shift


def test_shift_moves_by_whole_pixels_and_repeats_the_border() -> None:
    x = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).reshape(2, 3, 5, 5)
    moved = shift(x, torch.tensor([[0, 0], [1, -2]]))
    assert torch.equal(moved[0], x[0])
    assert torch.equal(moved[1, :, 1:, :3], x[1, :, :-1, 2:])
    assert torch.equal(moved[1, :, 0, :3], x[1, :, 0, 2:])
    assert torch.equal(moved[1, :, 1:, 4], x[1, :, :-1, 4])


def test_augmentation_turns_shifts_and_changes_the_tone_as_asked() -> None:
    image = torch.from_numpy(np.random.default_rng(0).uniform(-0.8, 0.8, (1, 1, 8, 8)).astype(np.float32))

    def moved(*moves: float) -> NDArray[np.float32]:
        return augmented(image, torch.tensor([moves])).numpy()[0, 0]

    x = image.numpy()[0, 0]
    np.testing.assert_allclose(moved(0, 0, 0, 0, 0, 0), x, atol=1e-6)
    np.testing.assert_allclose(moved(0, 0, 2 / 8, 0, 0, 0)[:, 1:], x[:, :-1], atol=1e-5)
    np.testing.assert_allclose(moved(0, 0, 0, 2 / 8, 0, 0)[1:], x[:-1], atol=1e-5)
    np.testing.assert_allclose(moved(0, 0, 0, 0, 0.2, 0.1), (1.2 * x + 0.1).clip(-1, 1), atol=1e-6)
    quarter = moved(np.pi / 2, 0, 0, 0, 0, 0)
    assert min(np.abs(quarter - np.rot90(x, turn)).max() for turn in (1, 3)) < 1e-5
