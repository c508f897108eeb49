"""The training loop of the denoiser: the set lives on the device, and no step waits for the host.

Everything random in step k is drawn from a seed of (run seed, k), so that a run stopped at any step and resumed continues
bit for bit on a CPU. The process-wide generators are seeded too, once a step, because dropout takes no generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.diffusion import augment, ema
from pipeline.diffusion.muon import Muon
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.schedules import training_sigmas
from pipeline.runtime import autocast


@dataclass(frozen=True)
class Recipe:
    """How to train; the fields are those of :class:`pipeline.config.TrainConfig`, which documents them."""

    images: int
    batch: int
    learning_rate: float
    label_dropout: float
    augment: float
    balance: float
    ema: float
    compile: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return -(-self.images // self.batch)


class Training:
    """The state of one training: weights, optimiser, moving average and step; all of it in :meth:`state`.

    Args:
        denoiser: on its device.
        images: ``uint8 [n, C, H, W]`` on the device.
        labels: class indices ``int64 [n]`` on the device.
        seed: what every step's randomness is derived from.
    """

    def __init__(self, denoiser: Denoiser, images: Tensor, labels: Tensor, recipe: Recipe, seed: int) -> None:
        self.denoiser, self.images, self.labels, self.recipe, self.seed = denoiser, images, labels, recipe, seed
        self.device = images.device.type
        self.parameters = [p for p in denoiser.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.rate = torch.tensor(0.0, device=self.device)
        kernels = {p for p in self.parameters if p.ndim == 4 and min(p.shape[:2]) >= 16}
        others = [p for p in self.parameters if p not in kernels]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=self.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
            Muon([p for p in self.parameters if p in kernels], lr=self.rate),
        ]
        self.step = 0
        self.gamma = ema.gamma_of_width(recipe.ema)
        self.null = int(denoiser.network.classes)  # type: ignore[arg-type]
        self.cumulative = class_balanced_cdf(labels, recipe.balance)
        self.generator = torch.Generator(device=self.device)
        self.loss = torch.compile(denoiser.loss) if recipe.compile else denoiser.loss

    def run(self, *, until: int | None = None, every: int = 50, report: Callable[[int, float], None] | None = None) -> None:
        """Train up to step ``until`` (the whole recipe by default); every ``every`` steps ``report(step, mean loss)``.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        until = self.recipe.steps if until is None else min(until, self.recipe.steps)
        self.denoiser.train()
        total = torch.zeros((), device=self.device)
        since = 0
        while self.step < until:
            total += self._step()
            since += 1
            if self.step % every == 0 or self.step == until:
                mean = float(total) / since
                if not np.isfinite(mean):
                    raise FloatingPointError(f"the training loss is not finite at image {self.step * self.recipe.batch}")
                if report is not None:
                    report(self.step, mean)
                total.zero_()
                since = 0

    def _step(self) -> Tensor:
        recipe, n, g = self.recipe, self.recipe.batch, self.generator
        step_seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{self.step}".encode()).digest()[:8], "big") >> 1
        g.manual_seed(step_seed)
        torch.manual_seed(step_seed)
        chosen = torch.searchsorted(self.cumulative, torch.rand(n, generator=g, device=self.device, dtype=torch.float64))
        images = self.images[chosen].float() / 127.5 - 1
        labels = self.labels[chosen]
        labels = torch.where(torch.rand(n, generator=g, device=self.device) < recipe.label_dropout, self.null, labels)
        parameters = None
        if recipe.augment > 0:
            parameters = augment.draw(n, recipe.augment, g, self.device)
            images = augment.apply(images, parameters)
        sigma = training_sigmas(n, self.denoiser.sigma_data, g, self.device)
        noise = torch.randn(images.shape, generator=g, device=self.device)
        with autocast(self.device):
            loss = self.loss(images, noise, sigma, labels, parameters).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.rate.fill_(recipe.learning_rate * learning_rate_factor(self.step, recipe.steps))
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        ema.update(self.average, self.parameters, self.step, self.gamma)
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """Everything that :meth:`load` needs to go on, as named tensors."""
        tensors = {"step": torch.tensor(self.step)}
        for number, (weight, average) in enumerate(zip(self.parameters, self.average)):
            tensors[f"weight.{number}"] = weight.detach().contiguous()
            tensors[f"average.{number}"] = average.contiguous()
            for optimiser in self.optimisers:
                for name, value in optimiser.state.get(weight, {}).items():
                    tensors[f"{name}.{number}"] = value.detach().contiguous()
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state` gave."""
        self.step = int(tensors["step"])
        for number, (weight, average) in enumerate(zip(self.parameters, self.average)):
            weight.copy_(tensors[f"weight.{number}"])
            average.copy_(tensors[f"average.{number}"])
            for optimiser, slots in zip(self.optimisers, (("step", "exp_avg", "exp_avg_sq"), ("momentum",))):
                if f"{slots[-1]}.{number}" in tensors:
                    optimiser.state[weight] = {name: _like(tensors[f"{name}.{number}"], weight) for name in slots}

    @torch.no_grad()
    def averaged(self) -> dict[str, Tensor]:
        """The denoiser's parameters by name, with the moving average in place of the last weights."""
        names = [name for name, p in self.denoiser.named_parameters() if p.requires_grad]
        averaged = {name: value.detach().clone().contiguous() for name, value in zip(names, self.average)}
        return averaged | {name: value.contiguous() for name, value in self.denoiser.named_buffers() if name == "mean"}


def _like(value: Tensor, weight: Tensor) -> Tensor:
    """A copy on the weight's device, in its memory format where it has its shape: bit-exact resumption needs the same kernels."""
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value.clone().to(weight.device)


def class_balanced_cdf(labels: Tensor, balance: float) -> Tensor:
    """Cumulative sampling probabilities ``float64 [n]``: class c is drawn in proportion to its prevalence to the power 1 − balance."""
    counts = torch.bincount(labels).double()
    share = torch.where(counts > 0, counts / counts.sum(), 0.0) ** (1 - balance) * (counts > 0)
    weight = (share / share.sum() / counts.clamp(min=1))[labels]
    cumulative = weight.cumsum(0)
    return cumulative / cumulative[-1]


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over the first 5 % (100 steps at most), constant, linear decay to 0 over the last 40 %."""
    warm = max(1, min(100, steps // 20))
    return min(1.0, (step + 1) / warm, (steps - step) / max(1, 0.4 * steps))
