"""Which images each training step sees: drawn on the CPU from (seed, step), so the same on every device and however they are kept."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.diffusion.conditioning import Condition

AHEAD = 32
"""Steps whose images are drawn together, and uploaded in one transfer that nothing waits for."""


class Batches:
    """The batches of a training, from a set that lives on the device, or from one that streams from the host's memory or disk.

    Args:
        images: ``uint8`` or ``uint16 [n, C, ...]``: a tensor on the device, or an array (memory-mapped, say) to stream from.
        condition: of every image.
        batch: images a step.
        balance, groups: see :func:`class_balanced_cdf`.
        seed: what every step's draw is derived from.
        device: where the batches go.
    """

    def __init__(
        self,
        images: Tensor | NDArray[Any],
        condition: Condition,
        batch: int,
        balance: float,
        seed: int,
        device: str,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        self.resident = isinstance(images, Tensor)
        self.images = _signed(images) if isinstance(images, Tensor) else images
        self.full = 65535 if str(images.dtype).endswith("uint16") else 255
        self.batch, self.seed, self.device = batch, seed, device
        host = condition.to("cpu")
        self.condition = host.to(device) if self.resident else host
        self.cumulative = class_balanced_cdf(host.strata, balance, groups)
        self.generator = torch.Generator()
        self._block: tuple[int, Tensor] | None = None
        self._next: tuple[int, Future[tuple[Tensor, Condition]]] | None = None
        self._reader = None if self.resident else ThreadPoolExecutor(1)

    def draw(self, step: int) -> Tensor:
        """Numbers of the images of one step, ``int64 [batch]`` on the CPU."""
        self.generator.manual_seed(derive(self.seed, step, "batch"))
        return torch.searchsorted(self.cumulative, torch.rand(self.batch, generator=self.generator, dtype=torch.float64))

    def at(self, step: int) -> tuple[Tensor, Condition]:
        """Images of one step as stored, ``[batch, C, ...]`` (``uint16`` as ``int16`` of the same bits), and conditions, on the device."""
        if self._reader is not None:
            return self._streamed(step)
        if self._block is None or not self._block[0] <= step < self._block[0] + AHEAD:
            numbers = torch.stack([self.draw(one) for one in range(step, step + AHEAD)])
            self._block = step, _upload(numbers, self.device)
        chosen = self._block[1][step - self._block[0]]
        assert isinstance(self.images, Tensor)
        return self.images.index_select(0, chosen), self.condition.take(chosen)

    def to_unit(self, stored: Tensor) -> Tensor:
        """Images of :meth:`at` as ``float32`` in −1..1, 0 = black."""
        values = (stored.int() & 0xFFFF) if stored.dtype == torch.int16 else stored
        return values.float() * (2 / self.full) - 1

    def _streamed(self, step: int) -> tuple[Tensor, Condition]:
        """The next step's images are read while this one's are worked on."""
        assert self._reader is not None
        if self._next is None or self._next[0] != step:
            self._next = step, self._reader.submit(self._read, step)
        stored, condition = self._next[1].result()
        self._next = step + 1, self._reader.submit(self._read, step + 1)
        ready = condition.pinned() if self.device == "cuda" else condition
        return _upload(stored, self.device), ready.to(self.device)

    def _read(self, step: int) -> tuple[Tensor, Condition]:
        chosen = self.draw(step)
        # A memory map is read fastest in its own order.
        order, back = torch.unique(chosen, return_inverse=True)
        read = np.ascontiguousarray(np.asarray(self.images)[order.numpy()])
        return _signed(torch.from_numpy(read))[back], self.condition.take(chosen)


def class_balanced_cdf(labels: Tensor, balance: float, groups: NDArray[np.int64] | None = None) -> Tensor:
    """Cumulative sampling probabilities ``float64 [n]``: class c is drawn in proportion to its prevalence to the power 1 − balance.

    Args:
        labels: class of each image, ``int64 [n]``.
        balance: 0 draws as they come, 1 every class equally often.
        groups: near-duplicate group of each, ``int64 [n]``, -1 for none: a group counts, and is drawn, as one image. What is in a cohort k
            times would be learned by heart k times as soon.
    """
    part = torch.ones(len(labels), dtype=torch.float64)
    if groups is not None:
        group = torch.tensor(groups)
        twins = group >= 0
        _, member, size = torch.unique(group[twins], return_inverse=True, return_counts=True)
        part[twins] /= size[member]
    counts = torch.bincount(labels, part)
    share = torch.where(counts > 0, counts / counts.sum(), 0.0) ** (1 - balance) * (counts > 0)
    weight = (share / share.sum() / torch.where(counts > 0, counts, 1.0))[labels] * part
    cumulative = weight.cumsum(0)
    return cumulative / cumulative[-1]


def derive(seed: int, step: int, purpose: str) -> int:
    """The seed of one step's randomness for one purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()[:8], "big") >> 1


def _signed(images: Tensor) -> Tensor:
    """torch indexes few uint16 tensors, and int16 ones of the same bits everywhere."""
    return images.view(torch.int16) if images.dtype == torch.uint16 else images


def _upload(values: Tensor, device: str) -> Tensor:
    return values.pin_memory().to(device, non_blocking=True) if device == "cuda" else values
