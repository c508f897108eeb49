"""The denoising loss on images outside of training, beside that on as many training images: what is learned by heart is their difference.

It is that of the averaged weights, which are the ones that are kept, attacked and sampled from; the last weights are the noisier for the
learning rate, on both sides alike. Levels and noise are fixed, so that two moments of a training differ by the weights alone. Nothing that
the training draws or holds is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ttest_ind
from torch import Tensor
from torch.func import functional_call

from evaluation.data import Labelled
from evaluation.intervals import Interval
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.objectives import precondition
from pipeline.diffusion.schedules import training_levels
from pipeline.diffusion.training import Training
from pipeline.errors import InputError
from pipeline.runtime import autocast

LEVELS = (0.2, 0.5, 1.0, 2.0)
"""Noise levels, in units of the data's standard deviation: from an image's texture to its outline."""
IMAGES = 256
"""Images of each side at most: as much work as a third as many training images a level."""
LEARNS_IN = 200
"""Steps after which a training has learned something, or never will."""
LEARNED = 0.05
"""Share of its target that a network must explain by then; the shipped configurations come to .6 and more."""


@dataclass(frozen=True)
class Losses:
    """What a moment of a training shows.

    Attributes:
        train, val: |D − image|² / c_out² of each image, averaged over its pixels, ``[levels, n]``.
        gap: mean log loss of ``val`` less that of ``train``, over images and levels, counted by patient (Welch's t).
    """

    train: NDArray[np.float64]
    val: NDArray[np.float64]
    gap: Interval

    def line(self) -> dict[str, Any]:
        """Mean losses by level, for a log."""
        return {side: [round(float(loss), 6) for loss in getattr(self, side).mean(axis=1)] for side in ("train", "val")}

    def facts(self) -> dict[str, Any]:
        """For JSON: the levels, the losses, and ``ratio``, how many times larger the loss on ``val`` is, with its interval."""
        value, low, high = (float(np.exp(bound)) for bound in (self.gap.value, self.gap.low, self.gap.high))
        ratio = Interval(value, low, high, self.gap.n)
        return {"levels": list(LEVELS), **self.line(), "ratio": ratio.to_dict()}


class Validation:
    """Two sets of as many images, and the noise that both are put under.

    Args:
        train, val: images with their patients, at least one.
        seed: which of them are looked at, and under which noise.
        condition: what the model is asked for to make such images; the class of each by default.
    """

    def __init__(
        self,
        train: Labelled,
        val: Labelled,
        seed: int,
        condition: Callable[[Labelled], Condition] = lambda side: Condition.of_classes(side.labels, side.classes),
    ) -> None:
        self.condition = condition
        rng = np.random.default_rng(seed)
        count = min(IMAGES, len(train), len(val))
        self.train, self.val = (side.take(np.sort(rng.permutation(len(side))[:count])) for side in (train, val))
        shape = (len(LEVELS), *self.train.images.shape)
        self.noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    @property
    def patients(self) -> int:
        """How many are looked at, on the side that has fewer; two are needed for an interval."""
        return min(len(np.unique(side.groups)) for side in (self.train, self.val))

    def __call__(self, training: Training) -> Losses:
        """The losses under the averaged weights of a training as it is now."""
        weights = training.averaged()
        train, val = (self._losses(training, weights, side) for side in (self.train, self.val))
        return self.losses(train, val)

    def losses(self, train: NDArray[np.float64], val: NDArray[np.float64]) -> Losses:
        """Losses ``[levels, n]`` of the two sides, with their gap."""
        return Losses(train, val, self._gap(_log(val), _log(train)))

    def parted(self, before: Losses, now: Losses) -> Interval:
        """How much further the loss has fallen on ``train`` than on ``val`` since an earlier moment: mean log ratio, counted by patient.

        The same images under the same noise are looked at both times, so that how hard each of them is cancels, and with it most of the
        error of :attr:`Losses.gap`.
        """
        return self._gap(_log(now.val) - _log(before.val), _log(now.train) - _log(before.train))

    def _gap(self, val: NDArray[np.float64], train: NDArray[np.float64]) -> Interval:
        patients = [_by_patient(values, side.groups) for values, side in ((val, self.val), (train, self.train))]
        value = float(np.mean(patients[0]) - np.mean(patients[1]))
        low = high = np.nan
        if min(map(len, patients)) > 1:
            low, high = ttest_ind(*patients, equal_var=False).confidence_interval(0.95)
        return Interval(value, float(low), float(high), len(val))

    @torch.inference_mode()
    def _losses(self, training: Training, weights: dict[str, Tensor], side: Labelled) -> NDArray[np.float64]:
        denoiser, device = training.denoiser, training.device
        condition = self.condition(side)
        size = training.recipe.batch // training.recipe.accumulate
        losses = np.zeros((len(LEVELS), len(side)))
        was_training = denoiser.training
        denoiser.eval()
        for number, level in enumerate(LEVELS):
            sigma = level * denoiser.sigma_data
            k = precondition(denoiser.objective, torch.tensor(sigma), denoiser.sigma_data)
            for start in range(0, len(side), size):
                rows = slice(start, start + size)
                images = torch.from_numpy(side.unit[rows]).to(device)
                noisy = images + sigma * self.noise[number, rows].to(device)
                asked = noisy, images.new_full((len(images),), sigma), condition.take(rows).to(device)
                with autocast(device):
                    error = functional_call(denoiser, weights, asked) - images
                losses[number, rows] = error.square().flatten(1).mean(dim=1).double().cpu().numpy() / float(k.c_out) ** 2
        denoiser.train(was_training)
        return losses


@torch.inference_mode()
def explained(training: Training, steps: int, seed: int) -> float:
    """How much of the network's target F it explains after ``steps``, on a batch of training images at the levels trained on.

    1 − error / error of F = 0, which is what a network starts as: 0 for one that has learned nothing, below 0 for one that has gone astray.

    Raises:
        InputError: no more than :data:`LEARNED` after :data:`LEARNS_IN` steps.
    """
    denoiser, device = training.denoiser, training.device
    stored, condition = training.batches.at(training.step)
    few = slice(training.recipe.batch // training.recipe.accumulate)
    images, condition = training.batches.to_unit(stored[few]), condition.take(few)
    generator = torch.Generator(device=device).manual_seed(seed)
    sigma = training_levels(training.recipe.noise_schedule, len(images), denoiser.sigma_data, generator, device)
    level = sigma.reshape(-1, *[1] * (images.ndim - 1))
    noisy = images + level * torch.randn(images.shape, generator=generator, device=device)
    k = precondition(denoiser.objective, level, denoiser.sigma_data)
    denoiser.eval()
    with autocast(device):
        answers = denoiser(noisy, sigma, condition), denoiser.mean + k.c_skip * (noisy - denoiser.mean)
    error, nothing = (float(((answer - images) / k.c_out).square().mean(dtype=torch.float64)) for answer in answers)
    share = 1 - error / nothing
    if steps >= LEARNS_IN and not share > LEARNED:
        raise InputError(
            f"after {steps} steps the network predicts no better than one that never learned (it explains {share:.0%} of its "
            "target): try another train.batch or a lower train.learning_rate, and on a GPU train.compile=false"
        )
    return share


def _log(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean log loss of each image over the levels, ``[n]``."""
    return np.asarray(np.log(np.maximum(losses, 1e-12)).mean(axis=0), np.float64)


def _by_patient(values: NDArray[np.float64], groups: NDArray[Any]) -> NDArray[np.float64]:
    _, patient, count = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(np.bincount(patient.ravel(), values) / count, np.float64)
