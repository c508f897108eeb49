"""Images of a run's own model that a stress test asks for: every class as often, what lies between two, real ones with another finding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import runtime
from pipeline.denoiser import greys, load_denoiser
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.guidance import Denoise, guided
from pipeline.diffusion.inversion import counterfactual
from pipeline.diffusion.noise import StepNoise
from pipeline.diffusion.samplers import heun
from pipeline.diffusion.schedules import RANGE, sampling_levels
from pipeline.errors import InputError
from pipeline.further import find_model
from pipeline.models.draws import seed_of

STEPS = 18
"""Of Heun's method, as EDM takes them for images of 32 px (Karras et al. 2022, table 2)."""
CHANGES = 10
"""Steps of a counterfactual: with the finding that an image has, the way leads back to it in however few."""
LOWEST = 0.02
"""Last noise level before 0, in standard deviations of the data: below one grey level of 255."""


def is_run(path: Path) -> bool:
    """Whether a folder is a run's that has a trained model."""
    return (path.expanduser() / "train" / "record.json").is_file()


class OwnGenerator:
    """A run's model.

    Args:
        run: the run folder.
        device: ``cuda`` or ``cpu``.
        batch: images made together.

    Attributes:
        classes: names, in the order of its conditions.
        side, channels: of its images.

    Raises:
        InputError: there is no trained model, it is damaged, or it makes volumes.
    """

    def __init__(self, run: Path, device: str, batch: int = 64) -> None:
        model = find_model(run.expanduser())
        self.denoiser, facts = load_denoiser(model.folder, device)
        if len(facts["shape"]) != 3:
            raise InputError(f"{run.name} makes volumes: give a run of images, whose classes the model names, as --synthetic")
        lowest, highest = model.section.guidance_interval
        self.scale, self.interval = model.section.guidance_scale, (lowest * self.denoiser.sigma_data, highest * self.denoiser.sigma_data)
        self.conditions, self.device, self.batch = model.conditions, device, batch
        self.classes = model.conditions.classes
        self.channels, self.side = int(facts["shape"][0]), int(facts["shape"][1])
        self.lowest, self.highest = greys(facts)

    def images(self, label: int, count: int, seed: int) -> NDArray[np.uint8]:
        """``uint8 [count, C, H, W]`` of a class, guided and in greys as the run's own are; image k is a function of the seed and k."""
        seeds = [runtime.derive_seed(seed, "class", label, k) for k in range(count)]
        return self._sampled(self._bound(label, self.scale), seeds)

    def between(self, one: int, other: int, weight: float, count: int, seed: int) -> NDArray[np.uint8]:
        """Images whose condition lies between two classes, or beyond the second: D_one + weight · (D_other − D_one).

        The denoisers of two conditions are interpolated at every level, which is the score of p_one^(1 − weight) · p_other^weight (Liu et
        al. 2022, arXiv:2206.01714). The noise of image k is the same for all weights, so that they are one case at several severities.

        Args:
            weight: 0 is ``one``, 1 is ``other``; above 1 more of it than its class has.
        """
        seeds = [runtime.derive_seed(seed, "between", one, other, k) for k in range(count)]
        return self._sampled(self._bound(other, weight, one), seeds)

    def counterfactuals(self, images: NDArray[np.float32], own: int, other: int, depth: float, weight: float) -> NDArray[np.uint8]:
        """Real images with another finding (:func:`pipeline.diffusion.inversion.counterfactual`), ``uint8 [n, C, H, W]``.

        Args:
            images: ``float32 [n, C, side, side]`` in −1..1, of the class ``own``.
            depth: noise level up to which they are taken, in standard deviations of the data.
            weight: of the wanted finding over the one that they have, from which guidance leads away: it is what must go.

        What is drawn for an image is a function of the image alone. It may keep greys that no training image holds.
        """
        before, after = self._bound(own), self._bound(other, weight, own)
        levels, parts = self._levels(depth, CHANGES), []
        with torch.inference_mode():
            for rows in self._batches(len(images)):
                x = torch.from_numpy(images[rows]).to(self.device)
                noise = StepNoise([seed_of(image) for image in images[rows]], x.shape[1:], self.device)
                parts.append(counterfactual(before, after, x, levels, noise))
        return self._pixels(parts)

    def _bound(self, label: int, scale: float = 1.0, away: int | None = None) -> Denoise:
        """D(x, sigma) of one class for any number of images, in float32.

        Away from nothing at the run's own levels, away from a class at all of them: there it is an interpolation.
        """
        lowest, highest = self.interval if away is None else (0.0, float("inf"))

        def denoise(x: Tensor, sigma: float) -> Tensor:
            negative = None if away is None else self._condition(away, len(x))
            bound = guided(self.denoiser, self._condition(label, len(x)), scale=scale, interval=(lowest, highest), negative=negative)
            return bound(x, sigma)

        return denoise

    def _condition(self, label: int, count: int) -> Condition:
        """As many times one class, or of several findings this one alone; no attribute is asked for."""
        findings = (np.arange(len(self.classes)) == label).astype(np.int8)
        return self.conditions.condition(np.tile(findings, (count, 1)), {}).to(self.device)

    def _sampled(self, denoise: Denoise, seeds: Sequence[int]) -> NDArray[np.uint8]:
        levels, parts = self._levels(RANGE[1], STEPS), []
        with torch.inference_mode():
            for rows in self._batches(len(seeds)):
                noise = StepNoise(seeds[rows], self.denoiser.mean.shape, self.device)()
                parts.append(heun(denoise, self.denoiser.mean + levels[0] * noise, levels))
        return self._pixels(parts).clip(self.lowest, self.highest)

    def _levels(self, highest: float, steps: int) -> list[float]:
        spread = self.denoiser.sigma_data
        return sampling_levels("edm", steps, spread, highest * spread, LOWEST * spread)

    def _batches(self, count: int) -> list[slice]:
        return [slice(start, start + self.batch) for start in range(0, count, self.batch)]

    def _pixels(self, parts: Sequence[Tensor]) -> NDArray[np.uint8]:
        if not parts:
            return np.zeros((0, self.channels, self.side, self.side), np.uint8)
        return np.asarray(((torch.cat(list(parts)) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy())
