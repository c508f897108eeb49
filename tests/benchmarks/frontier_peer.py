"""A peer's recipe at the frontier: MONAI's network as EDM trains and samples it, on one subset of a pool of images after the other.

What :mod:`tests.benchmarks.frontier` asks of our trainings is asked of this one in the same words. Its learning rate stays as it is, so
that every moment is the end of a training, as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import runtime
from pipeline.conditions import Conditions
from pipeline.config import Config
from pipeline.diffusion.noise import StepNoise
from pipeline.diffusion.objectives import Denoiser
from pipeline.images import ImageSet, from_unit
from pipeline.train import recipe
from tests.benchmarks.peer_training import edm_parts, peer_network
from tests.benchmarks.quality import Images, Labels, in_batches


class Peer:
    """Trainings of the peer's recipe and the images that they make: one compiled network, begun anew in place.

    Args:
        config: the frontier's; length, images a step, whether to compile and how many images to make at once are its own.
        pool: images that a training may see.
        device: where to.
        sizes: of the network, where they are not the peer's own.
    """

    def __init__(self, config: Config, pool: ImageSet, device: str, **sizes: Any) -> None:
        assert config.train is not None
        self.pool, self.device, self.seed, self.sizes, self.size = pool, device, config.seed, sizes, config.generate.batch
        self.recipe, self.conditions = recipe(config.train), Conditions(pool.classes)
        self.training, self.draw = edm_parts(pool, config.seed, device, batch=self.recipe.batch, compiled=self.recipe.compile, **sizes)
        assert isinstance(self.training.network, Denoiser)
        self.denoiser = self.training.network
        self.untrained = {name: value.clone() for name, value in self.denoiser.state_dict().items()}

    def begin(self, number: int, inside: NDArray[np.bool_]) -> Peer:
        """The training on the images ``inside [n]`` of the pool before its first step, from a seed of the run's and ``number``."""
        seed = runtime.derive_seed(self.seed, "peer", number)
        fresh = peer_network(self.pool, seed, self.device, self.sizes).state_dict()
        self.denoiser.load_state_dict(self.untrained | {f"network.{name}": value for name, value in fresh.items()})
        self.training.begin(self.pool.take(inside), seed)
        return self

    def run(self, *, until: int) -> None:
        """Train up to step ``until``."""
        self.training.advance(until - self.training.steps)

    def averaged(self) -> dict[str, Tensor]:
        """The denoiser's state with averaged weights."""
        return self.training.averaged()

    @torch.inference_mode()
    def _make(self, labels: Labels, seeds: list[int]) -> Images:
        noise = StepNoise(seeds, self.denoiser.mean.shape, self.device)()
        return from_unit(self.draw(noise, torch.from_numpy(labels).to(self.device)).float().cpu().numpy())

    def release(self, asked: Any) -> Images:
        """The images that are asked for (:class:`pipeline.wanted.Wanted`, of one class each), from the weights as they are."""
        return in_batches(self._make, asked.findings.argmax(axis=1), asked.seeds, self.size)
