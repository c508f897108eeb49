"""The peers' recipes: MONAI's DiffusionModelUNet as its tutorials train and sample it, and with EDM's preconditioning.

Both have what costs a user nothing: the set on the GPU, bfloat16, compilation, channels-last memory and a fused optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.data import to_unit
from pipeline import runtime
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.noise import StepNoise
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.samplers import heun
from pipeline.diffusion.schedules import karras_sigmas
from pipeline.images import ImageSet, from_unit
from tests.benchmarks.peers import MonaiNetwork
from tests.benchmarks.quality import Images, Labels, State, Trained, even_batch, in_batches, take_snapshots

Loss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Loss of a batch: images ``[n, C, H, W]`` in -1..1, class indices ``[n]``, and where randomness comes from."""
Draw = Callable[[Tensor, Tensor], Tensor]
"""Images in -1..1 from standard normal noise ``[n, C, H, W]`` and class indices ``[n]``."""

SECONDS_OF_DECAY = 0.4
"""Share of the training over which EDM's learning rate falls to 0."""
TRAINED = 512
"""Images a training step, as in the peers' measured figures."""
TINY: dict[str, Any] = {"widths": (32, 64), "attention": (False, True), "head": 32}
"""Sizes of the network with which to see on a CPU that everything runs."""
BATCH = even_batch(1500)
"""Images generated together."""


class PeerTraining:
    """AdamW on a compiled loss, and an average of the weights that warms up.

    Args:
        network: whose parameters are trained, on its device.
        decays: whether the learning rate falls to 0 over the last :data:`SECONDS_OF_DECAY` of the planned steps.
        keep: the average's decay, from the number of steps taken.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        train: ImageSet,
        *,
        batch: int,
        learning_rate: float,
        decays: bool,
        keep: Callable[[int], float],
        seed: int,
        device: str,
    ) -> None:
        self.network, self.loss, self.batch, self.device, self.keep = network, loss, batch, device, keep
        self.parameters = list(network.parameters())
        self.peak, self.decays, self.planned = learning_rate, decays, 10**9
        self.rate = torch.tensor(learning_rate, device=device)
        self.optimiser = torch.optim.AdamW(self.parameters, lr=self.rate, fused=True)
        self.generator = torch.Generator(device=device)
        self.begin(train, seed)

    def begin(self, train: ImageSet, seed: int) -> None:
        """Be before the first step of a training on these images, from the weights that the network has now."""
        self.images = torch.from_numpy(np.array(train.images)).to(self.device)
        self.labels = torch.from_numpy(train.labels).to(self.device)
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimiser.state.clear()
        self.generator.manual_seed(seed)
        self.steps = 0

    def advance(self, steps: int) -> int:
        """Take so many optimiser steps, fewer at the end of what is planned; returns how many."""
        steps = min(steps, self.planned - self.steps)
        self.network.train()
        for _ in range(steps):
            chosen = torch.randint(len(self.images), (self.batch,), generator=self.generator, device=self.device)
            with runtime.autocast(self.device):
                loss = self.loss(self.images[chosen].float() / 127.5 - 1, self.labels[chosen], self.generator)
            loss.backward()  # type: ignore[no-untyped-call]
            left = (self.planned - self.steps) / (SECONDS_OF_DECAY * self.planned) if self.decays else 1.0
            self.rate.fill_(self.peak * min(1.0, left))
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self.steps += 1
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - self.keep(self.steps))
        return steps

    def plan(self, steps: int) -> None:
        """Say how many steps the whole training has."""
        self.planned = steps

    def averaged(self) -> State:
        """The network's state with the average in place of the parameters."""
        names = [name for name, _ in self.network.named_parameters()]
        return {**self.network.state_dict(), **{name: value.clone() for name, value in zip(names, self.average)}}


def textbook_average(step: int) -> float:
    """An average of .999 that warms up: without, a minute's average would still hold a good part of the untrained weights."""
    return min(0.999, (1 + step) / (10 + step))


def edm_average(step: int) -> float:
    """A half-life of 5 % of the training so far (EDM's ``ema_rampup_ratio``)."""
    return float(0.5 ** (1 / (0.05 * step))) if step > 1 else 0.0


def textbook(train: ImageSet, at: Sequence[float], seed: int, device: str, *, batch: int, compiled: bool, **sizes: Any) -> Trained:
    """MONAI's network and schedulers as its tutorials use them: epsilon loss, linear betas, AdamW at 1e-4, DDIM-50.

    The sampler clips, as is its default: after a minute of training, half of the images would be noise without.
    """
    from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

    betas = {"schedule": "linear_beta", "beta_start": 1e-4, "beta_end": 0.02}
    noiser = DDPMScheduler(num_train_timesteps=1000, **betas)
    noiser.alphas_cumprod = noiser.alphas_cumprod.to(device)
    network = peer_network(train, seed, device, sizes)
    forward: Callable[..., Tensor] = torch.compile(network.net, dynamic=False) if compiled else network.net

    def loss(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        t = torch.randint(1000, (len(images),), generator=generator, device=device)
        noise = torch.randn(images.shape, generator=generator, device=device)
        noisy = noiser.add_noise(original_samples=images, noise=noise, timesteps=t)
        return (forward(noisy, t, class_labels=labels).float() - noise).square().mean()

    training = PeerTraining(
        network, loss, train, batch=batch, learning_rate=1e-4, decays=False, keep=textbook_average, seed=seed, device=device
    )

    def draw(noise: Tensor, labels: Tensor) -> Tensor:
        sampler = DDIMScheduler(num_train_timesteps=1000, **betas)
        sampler.set_timesteps(50)
        x = noise
        for t in sampler.timesteps.tolist():
            with runtime.autocast(device):
                predicted = forward(x, torch.full((len(x),), t, device=device), class_labels=labels).float()
            x, _ = sampler.step(predicted, t, x)
        return x

    return finish(training, draw, at, {"sampler": "MONAI DDIM, 50 steps"})


def edm(train: ImageSet, at: Sequence[float], seed: int, device: str, *, batch: int, compiled: bool, **sizes: Any) -> Trained:
    """MONAI's network under EDM's preconditioning (Karras et al. 2022, Table 1), AdamW at 2e-4 decaying to 0, 18 Heun steps.

    The loss has our learned log-variance (EDM2), which helps a peer too.
    """
    training, draw = edm_parts(train, seed, device, batch=batch, compiled=compiled, **sizes)
    return finish(training, draw, at, {"sampler": "EDM, 18 Heun steps"})


def edm_parts(train: ImageSet, seed: int, device: str, *, batch: int, compiled: bool, **sizes: Any) -> tuple[PeerTraining, Draw]:
    """The training of :func:`edm`, whose network is the denoiser, and its sampler."""
    spread = float(to_unit(train.images).std(dtype=np.float64))
    denoiser = Denoiser(peer_network(train, seed, device, sizes), torch.zeros(train.images.shape[1:]), spread).to(device)
    denoise: Callable[..., Tensor] = torch.compile(denoiser, dynamic=False) if compiled else denoiser
    weigh: Callable[..., Tensor] = torch.compile(denoiser.loss, dynamic=False) if compiled else denoiser.loss

    def loss(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        sigma = (1.2 * torch.randn(len(images), generator=generator, device=device) - 1.2).exp()
        noise = torch.randn(images.shape, generator=generator, device=device)
        return weigh(images, noise, sigma, Condition.of_classes(labels, len(train.classes), device)).mean()

    training = PeerTraining(denoiser, loss, train, batch=batch, learning_rate=2e-4, decays=True, keep=edm_average, seed=seed, device=device)

    levels = karras_sigmas(18, 0.002, 80.0).tolist()

    def draw(noise: Tensor, labels: Tensor) -> Tensor:
        condition = Condition.of_classes(labels, len(train.classes), device)
        with runtime.autocast(device):
            return heun(lambda x, sigma: denoise(x, x.new_full((len(x),), sigma), condition), levels[0] * noise, levels)

    return training, draw


def peer_network(train: ImageSet, seed: int, device: str, sizes: dict[str, Any]) -> MonaiNetwork:
    """MONAI's network of the given sizes, initialised from the seed."""
    torch.manual_seed(runtime.derive_seed(seed, "peer"))
    network = MonaiNetwork(train.images.shape[1], len(train.classes), **sizes).to(device)
    return network.to(memory_format=torch.channels_last) if device == "cuda" else network


def finish(training: PeerTraining, draw: Draw, at: Sequence[float], facts: dict[str, Any]) -> Trained:
    """Train, and generate from any snapshot in batches of BATCH."""
    device = training.device
    snapshots, rate = take_snapshots(training.advance, training.averaged, at, batch=training.batch, device=device, plan=training.plan)
    loaded: list[State] = []

    @torch.inference_mode()
    def batch(labels: Labels, seeds: list[int]) -> Images:
        noise = StepNoise(seeds, training.images.shape[1:], device)()
        return from_unit(draw(noise, torch.from_numpy(labels).to(device)).float().cpu().numpy())

    def generate(state: State, labels: Labels, seeds: list[int]) -> Images:
        if not loaded or loaded[0] is not state:
            training.network.load_state_dict(state)
            training.network.eval()
            loaded[:] = [state]
        return in_batches(batch, labels, seeds, BATCH)

    facts |= {"parameters": sum(p.numel() for p in training.parameters), "images_per_second": rate}
    return Trained(snapshots, generate, facts, warm=BATCH)
