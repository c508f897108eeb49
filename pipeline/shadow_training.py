"""Shadow trainings: the run's recipe on other images of its cohort, one training after the other in one module.

Nothing is decided anew: network, spread of the data, length and sampling are what ``model.json`` and the configuration say. Weights are
reset in place, so that one compilation and one CUDA graph serve all trainings, and never reach the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import runtime, warm_start
from pipeline.conditions import Conditions
from pipeline.config import Config
from pipeline.denoiser import build_denoiser
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import Training
from pipeline.generate import Sampling, starts_on_mixture, use_average
from pipeline.images import ImageSet
from pipeline.train import mean_and_spread, mixture_of, recipe, snapshot_steps
from pipeline.wanted import Wanted

Report = Callable[[int], None]


class Shadows:
    """Trainings on subsets of a pool of images, and the images that each would have released.

    Args:
        config: the run's; its sections ``train`` and ``generate`` are replayed.
        pool: images that a training may see.
        model: the run's ``model.json``.
        device: where to.
        words: features of the words that the model is told of, where they are not learned.
    """

    def __init__(self, config: Config, pool: ImageSet, model: dict[str, Any], device: str, words: Tensor | None = None) -> None:
        assert config.train is not None
        self.section, self.sampled, self.seed, self.trainings = config.train, config.generate, config.seed, config.shadows.trainings
        self.pool, self.model, self.device, self.words = pool, model, device, words
        self.conditions = Conditions.of_model(model)
        self.training: Training | None = None
        self.sampling: Sampling | None = None
        self.subset = pool
        self.snapshots: list[dict[str, Tensor]] = []

    def train(self, number: int, inside: NDArray[np.bool_], report: Report = lambda done: None) -> Denoiser:
        """Train on the images ``inside [n]`` of the pool; the denoiser with the averaged weights, until the next call.

        ``report`` is told of the images seen so far.
        """
        training = self.begin(number, inside)
        self._run(training, report)
        training.denoiser.load_state_dict(training.averaged())
        return training.denoiser.eval()

    def begin(self, number: int, inside: NDArray[np.bool_]) -> Training:
        """The training on the images ``inside [n]`` before its first step: the same object each time, begun anew in place.

        Its weights, batches and noise are drawn from a seed of the run's and ``number``.
        """
        self.subset, seed = self.pool.take(inside), runtime.derive_seed(self.seed, "shadow", number)
        mean, _ = mean_and_spread(self.subset.images)
        torch.manual_seed(runtime.derive_seed(seed, "weights"))
        fresh = build_denoiser(self.model, mean, self.words)
        if self.section.start_from is not None:
            warm_start.start(fresh, self.section.start_from, self.conditions, self.section.start_classes, self.section.frozen)
        images: Any = np.asarray(self.subset.images)
        if runtime.fits(images.nbytes, self.device):
            images = torch.from_numpy(images).to(self.device)
        given = images, self.conditions.met.of(self.subset)
        drawn = runtime.derive_seed(seed, "training"), self.subset.duplicates
        if self.training is None:
            self.training = Training(fresh.to(self.device), *given, recipe(self.section), *drawn)
        else:
            self.training.denoiser.load_state_dict(fresh.state_dict())
            self.training.restart(*given, *drawn)
        return self.training

    def _run(self, training: Training, report: Report) -> None:
        self.snapshots = []
        for moment in snapshot_steps(self.section) or [self.model["steps"]]:
            training.run(until=moment, report=lambda step, loss: report(step * training.recipe.batch))
            if self.section.ema_snapshots:
                self.snapshots.append(training.snapshot())

    def release(self, asked: Wanted, report: Report = lambda done: None) -> NDArray[np.uint8]:
        """What the last training would release as the images that are asked for, sampled as the run's were."""
        assert self.training is not None
        denoiser, section = self.training.denoiser, self.sampled
        if section.ema is not None:
            use_average(denoiser, self.model, section.ema, self.snapshots)
        if self.sampling is None:
            self.sampling = Sampling(denoiser, self.model, section, self.device, count=len(asked) * max(1, self.trainings))
        if starts_on_mixture(section):
            seed = runtime.derive_seed(self.training.seed, "mixture") % 2**32
            self.sampling.start_on(mixture_of(self.subset, self.conditions, seed))
        made = []
        for start in range(0, len(asked), section.batch):
            made.append(self.sampling.make(asked.take(slice(start, start + section.batch))))
            report(min(start + section.batch, len(asked)))
        return np.concatenate(made)
