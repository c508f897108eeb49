"""The training loop of the denoiser: no step waits for the host, and on a GPU a whole step is one replayed CUDA graph.

Everything random in step k is drawn from a seed of (run seed, k), so that a run stopped at any step and resumed continues
bit for bit on a CPU. The process-wide generators are seeded too, once a step, because dropout takes no generator.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.muon import Muon
from pipeline.compilation import compiled
from pipeline.diffusion import augment, ema
from pipeline.diffusion.batches import Batches, derive
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.schedules import training_levels
from pipeline.diffusion.unet import AUGMENTATIONS
from pipeline.runtime import autocast

SNAPSHOT_WIDTHS = (0.05, 0.1)
"""Widths of the two averages that snapshots hold; from them any other is solved after training (EDM2, section 3.2)."""
PERSISTENT = 10
"""Steps in a row without a finite gradient that end the training."""
WARM_UP = 3
"""Steps taken before a step is captured as a CUDA graph; libraries allocate and tune in the first ones."""


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
    plateau: int = 0
    decay: float = 0.4
    accumulate: int = 1
    noise_schedule: str = "edm"
    snapshots: int = 0
    compile: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return -(-self.images // self.batch)


class BatchTooLarge(Exception):
    """A step ran out of memory; ``fits`` is the largest number of images that one forward and backward pass has room for."""

    def __init__(self, asked: int, fits: int) -> None:
        super().__init__(f"{asked} images in one pass do not fit into memory; {fits} do")
        self.asked, self.fits = asked, fits


class Training:
    """The state of one training: weights, optimiser, moving averages and step; all of it in :meth:`state`.

    Args:
        denoiser: on its device.
        images: ``uint8`` or ``uint16 [n, C, ...]``: a tensor on the device where the set fits, otherwise an array to stream from.
        condition: of every image.
        recipe: how to train; parameters that do not require a gradient stay as they are.
        seed: what every step's randomness is derived from.
        groups: near-duplicate group of every image, -1 for none (:func:`pipeline.diffusion.batches.class_balanced_cdf`).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        images: Tensor | NDArray[Any],
        condition: Condition,
        recipe: Recipe,
        seed: int,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        self.denoiser, self.recipe, self.seed = denoiser, recipe, seed
        self.device = denoiser.mean.device.type
        self.batches = Batches(images, condition, recipe.batch, recipe.balance, seed, self.device, groups)
        self.parameters = [p for p in denoiser.parameters() if p.requires_grad]
        widths = {recipe.ema, *(SNAPSHOT_WIDTHS if recipe.snapshots else ())}
        self.averages = {width: [p.detach().clone() for p in self.parameters] for width in sorted(widths)}
        self.rate = torch.tensor(0.0, device=self.device)
        self.optimisers = make_optimisers(self.parameters, self.rate)
        self.step = 0
        self.skipped = torch.zeros((), dtype=torch.int64, device=self.device)
        self.skipped_in_a_row = torch.zeros((), dtype=torch.int64, device=self.device)
        self.unusable = torch.zeros((), device=self.device)
        for optimiser in self.optimisers:
            optimiser.found_inf = self.unusable  # type: ignore[attr-defined]
        self.generator = torch.Generator(device=self.device)
        self.loss: Callable[..., Tensor] = compiled(denoiser.loss, denoiser.network) if recipe.compile else denoiser.loss
        self._replay: Callable[[Tensor, Condition], Tensor] | None = None
        if self.device == "cuda":
            torch.backends.cudnn.benchmark = True

    def run(
        self,
        *,
        until: int | None = None,
        every: int = 50,
        report: Callable[[int, float], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Train up to step ``until`` (the whole recipe by default), or until ``stop()``; every ``every`` steps ``report(step, mean loss)``.

        A step whose loss or gradient is not finite changes no weight, and is counted in :attr:`skipped`.

        Raises:
            FloatingPointError: :data:`PERSISTENT` steps in a row were not finite.
            BatchTooLarge: a step ran out of memory.
        """
        until = self.recipe.steps if until is None else min(until, self.recipe.steps)
        self.denoiser.train()
        total = torch.zeros((), device=self.device)
        since = 0
        while self.step < until and not (stop is not None and stop()):
            try:
                total += self._take_step().nan_to_num(0, 0, 0)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                failed = True
            else:
                failed = False
            if failed:  # outside of the handler, whose traceback would keep the failed step's memory
                raise BatchTooLarge(self.recipe.batch // self.recipe.accumulate, self.largest_batch())
            since += 1
            if self.step % every == 0 or self.step == until:
                self._check()
                if report is not None:
                    report(self.step, float(total) / since)
                total.zero_()
                since = 0

    def _check(self) -> None:
        if int(self.skipped_in_a_row) >= PERSISTENT:
            raise FloatingPointError(
                f"{int(self.skipped_in_a_row)} steps in a row had no finite gradient, up to image {self.step * self.recipe.batch}"
            )

    def _take_step(self) -> Tensor:
        seed = derive(self.seed, self.step, "step")
        stored, condition = self.batches.at(self.step)
        self.rate.fill_(self.recipe.learning_rate * learning_rate_factor(self.step, self.recipe))
        if self.recipe.compile and self.device == "cuda" and self._replay is None:
            self._replay = self._capture(stored, condition)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)
        loss = self._replay(stored, condition) if self._replay is not None else self._advance(stored, condition)
        self.step += 1
        for width, average in self.averages.items():
            ema.update(average, self.parameters, self.step, ema.gamma_of_width(width))
        return loss

    def _advance(self, stored: Tensor, condition: Condition) -> Tensor:
        """One optimiser step on a batch; device work only."""
        recipe, n, g = self.recipe, len(condition), self.generator
        images = self.batches.to_unit(stored)
        condition = condition.dropped(recipe.label_dropout, g)
        parameters = None
        if recipe.augment > 0:
            parameters = augment.draw(n, recipe.augment, (images.shape[-2], images.shape[-1]), g, self.device)
            images = augment.apply(images, parameters)
        sigma = training_levels(recipe.noise_schedule, n, self.denoiser.sigma_data, g, self.device)
        noise = torch.randn(images.shape, generator=g, device=self.device)
        total = self._gradients(images, noise, sigma, condition, parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        finite = torch.isfinite(norm) & torch.isfinite(total)
        self.unusable.copy_(~finite)
        for optimiser in self.optimisers:
            optimiser.step()
        self.skipped += ~finite
        self.skipped_in_a_row.add_(1).mul_(~finite)
        return total

    def _gradients(self, images: Tensor, noise: Tensor, sigma: Tensor, condition: Condition, parameters: Tensor | None) -> Tensor:
        """The mean loss, its gradient added up over ``accumulate`` passes."""
        for p in self.parameters:
            p.grad = None
        count = self.recipe.accumulate
        total = torch.zeros((), device=self.device)
        parts = [part.chunk(count) for part in (images, noise, sigma, condition)]
        told = parameters.chunk(count) if parameters is not None else itertools.repeat(None, count)
        for *part, known in zip(*parts, told):
            with autocast(self.device):
                loss = self.loss(*part, known).sum() / len(images)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _capture(self, stored: Tensor, condition: Condition) -> Callable[[Tensor, Condition], Tensor]:
        """Record one step as a CUDA graph; the steps that it takes to warm up are undone."""
        saved = {name: value.clone() for name, value in self.state().items()}
        inputs = stored.clone(), condition.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._advance(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph):
            loss = self._advance(*inputs)
        self.load(saved)

        def replay(stored: Tensor, condition: Condition) -> Tensor:
            inputs[0].copy_(stored)
            inputs[1].copy_(condition)
            graph.replay()
            return loss.clone()

        return replay

    def largest_batch(self) -> int:
        """The most images that fit into one forward and backward pass, to a sixteenth of those asked for; 0 where one alone does not."""
        fits, over = 0, self.recipe.batch // self.recipe.accumulate
        while over - fits > max(1, over // 16):
            middle = (fits + over) // 2
            if self._fits(middle):
                fits = middle
            else:
                over = middle
        return fits

    def _fits(self, count: int) -> bool:
        stored, condition = self.batches.at(self.step)
        stored = stored[:1].expand(count, *stored.shape[1:])
        condition = condition.take(torch.zeros(count, dtype=torch.int64, device=self.device))
        images = self.batches.to_unit(stored)
        sigma = torch.full((count,), self.denoiser.sigma_data, device=self.device)
        parameters = torch.zeros(count, AUGMENTATIONS, device=self.device) if self.recipe.augment > 0 else None
        try:
            with autocast(self.device):
                loss = self.denoiser.loss(images, torch.zeros_like(images), sigma, condition, parameters).mean()
            loss.backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            return False
        finally:
            for p in self.parameters:
                p.grad = None
            if self.device == "cuda":
                torch.cuda.empty_cache()
        return True

    def state(self) -> dict[str, Tensor]:
        """Everything that :meth:`load` needs to go on, as named tensors."""
        tensors = {"step": torch.tensor(self.step), "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}
        for number, weight in enumerate(self.parameters):
            tensors[f"weight.{number}"] = weight.detach().contiguous()
            for width, average in self.averages.items():
                tensors[f"average-{width}.{number}"] = average[number].contiguous()
            for optimiser in self.optimisers:
                for name, value in optimiser.state.get(weight, {}).items():
                    tensors[f"{name}.{number}"] = value.detach().contiguous()
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state` gave."""
        self.step = int(tensors["step"])
        self.skipped.copy_(tensors["skipped"])
        self.skipped_in_a_row.copy_(tensors["skipped_in_a_row"])
        for number, weight in enumerate(self.parameters):
            weight.copy_(tensors[f"weight.{number}"])
            for width, average in self.averages.items():
                average[number].copy_(tensors[f"average-{width}.{number}"])
        for optimiser, slots in zip(self.optimisers, (("step", "exp_avg", "exp_avg_sq"), ("momentum",))):
            for number, weight in enumerate(self.parameters):
                if f"{slots[-1]}.{number}" in tensors:
                    state = optimiser.state[weight]
                    for name in slots:
                        _restore(state, name, tensors[f"{name}.{number}"], weight)
                else:  # warm-up steps that are undone had no state before them
                    for value in optimiser.state.get(weight, {}).values():
                        value.zero_()

    @torch.no_grad()
    def restart(self, images: Tensor | NDArray[Any], condition: Condition, seed: int, groups: NDArray[np.int64] | None = None) -> None:
        """Begin anew in place, on other images and from the weights that the denoiser has now: bit for bit a new training on a CPU.

        What is compiled and captured serves on, and reads the same memory. As many classes, and images of the same shape and type.
        """
        self.seed, self.step = seed, 0
        self.batches = Batches(images, condition, self.recipe.batch, self.recipe.balance, seed, self.device, groups)
        for average in self.averages.values():
            torch._foreach_copy_(average, list(self.parameters))
        for optimiser in self.optimisers:
            for slots in optimiser.state.values():
                for value in slots.values():
                    value.zero_()
        self.skipped.zero_()
        self.skipped_in_a_row.zero_()

    @torch.no_grad()
    def averaged(self, width: float | None = None) -> dict[str, Tensor]:
        """The denoiser's state by name, with a moving average (that of ``recipe.ema`` by default) in place of the last weights."""
        names = [name for name, p in self.denoiser.named_parameters() if p.requires_grad]
        average = self.averages[self.recipe.ema if width is None else width]
        state = {name: value.detach().contiguous() for name, value in self.denoiser.state_dict().items()}
        return state | {name: value.detach().clone().contiguous() for name, value in zip(names, average)}

    def snapshot(self) -> dict[str, Tensor]:
        """The trained parameters' averages of :data:`SNAPSHOT_WIDTHS` now, as ``<width>/<name>``, in half precision."""
        names = [name for name, p in self.denoiser.named_parameters() if p.requires_grad]
        return {
            f"{width}/{name}": value.half().contiguous() for width in SNAPSHOT_WIDTHS for name, value in zip(names, self.averages[width])
        }


def make_optimisers(parameters: list[torch.nn.Parameter], rate: Tensor) -> list[torch.optim.Optimizer]:
    """AdamW for vectors and the thin outer layers, Muon for the kernels between; both read their learning rate from ``rate``."""
    kernels = {p for p in parameters if p.ndim >= 4 and min(p.shape[:2]) >= 16}
    others = [p for p in parameters if p not in kernels]
    on_gpu = rate.device.type == "cuda"
    return [
        torch.optim.AdamW([{"params": others}], lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True, capturable=on_gpu),
        Muon([{"params": [p for p in parameters if p in kernels]}], lr=rate),
    ]


def _restore(state: dict[str, Any], name: str, value: Tensor, weight: Tensor) -> None:
    """In place where there is a state already, which a CUDA graph writes to; otherwise a copy on the weight's device, in its memory
    format where it has its shape: bit-exact resumption needs the same kernels."""
    if name in state:
        state[name].copy_(value)
    elif value.shape == weight.shape:
        state[name] = torch.empty_like(weight).copy_(value)
    else:
        state[name] = value.clone().to(weight.device)


def _out_of_memory(error: BaseException) -> bool:
    """CUDA's allocator raises its own class; the CPU's raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Linear warm-up over the first 5 % (100 steps at most); constant, or after ``plateau`` images falling with the inverse square root of
    the images seen (EDM2, eq. 67); linear decay to 0 over the last share ``decay``."""
    steps = recipe.steps
    warm = (step + 1) / max(1, min(100, steps // 20))
    seen = step * recipe.batch
    slower = math.sqrt(recipe.plateau / seen) if 0 < recipe.plateau < seen else 1.0
    ending = (steps - step) / max(1.0, recipe.decay * steps) if recipe.decay else 1.0
    return min(1.0, warm, ending) * slower
