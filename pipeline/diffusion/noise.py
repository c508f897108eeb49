"""Noise from one seed an image, by a counter-based generator: number j of image i's draw k is a function of (seed i, k, j) alone.

So an image is the same whatever stands beside it in the batch, in which order, on which rank; thousands of images' noise is
one computation on their device; and a draw can be captured in a CUDA graph, because nothing of it is on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405): four words of counter and two of key to four random words.

    All are ``int64`` tensors that hold unsigned 32-bit values, of shapes that broadcast.
    """
    (a, b, c, d), (low, high) = counter, key
    for _ in range(ROUNDS):
        # Products wrap at 64 bits as unsigned ones do; the mask takes off the sign that the shift drags along.
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = ((second >> 32) & MASK) ^ b ^ low, second & MASK, ((first >> 32) & MASK) ^ d ^ high, first & MASK
        low, high = (low + WEYL[0]) & MASK, (high + WEYL[1]) & MASK
    return a, b, c, d


class StepNoise:
    """Standard normal noise for a sampler: each call gives every image the next draw of its own stream.

    Args:
        seeds: one an image, 0 <= seed < 2**63: ``int64 [n]`` on the device where the noise is wanted, or a sequence with ``device``.
        shape: of one image, such as ``[C, H, W]``.
        device: where the noise is wanted.
    """

    def __init__(self, seeds: Sequence[int] | Tensor, shape: Sequence[int], device: str) -> None:
        self.seeds = torch.as_tensor(seeds, dtype=torch.int64).to(device)
        self.shape = tuple(shape)
        self.calls = 0

    def uniform(self) -> Tensor:
        """One number an image in [0, 1), ``float32 [n]``: the same at every call, and independent of every draw."""
        zero = torch.zeros_like(self.seeds)
        word = philox((zero, zero, zero + 1, zero), (self.seeds & MASK, self.seeds >> 32))[0]
        return (word >> 8).float() / 2**24

    def __call__(self) -> Tensor:
        """The next ``float32 [n, *shape]``, by Box and Muller's transform; the same on every device up to its rounding of log and cos."""
        size = math.prod(self.shape)
        block = torch.arange(-(-size // 4), device=self.seeds.device)
        zero = torch.zeros((), dtype=torch.int64, device=self.seeds.device)
        seeds = self.seeds[:, None]
        words = philox((block[None], zero + self.calls, zero, zero), (seeds & MASK, seeds >> 32))
        self.calls += 1
        # In (0, 1]: a logarithm follows.
        uniform = [((word.double() + 1) / 2**32) for word in words]
        radius = [(-2 * u.log()).sqrt() for u in uniform[:2]]
        angle = [2 * math.pi * u for u in uniform[2:]]
        normal = torch.stack(
            [radius[0] * angle[0].cos(), radius[0] * angle[0].sin(), radius[1] * angle[1].cos(), radius[1] * angle[1].sin()]
        )
        # Four numbers a block, block by block: image i's order does not depend on the batch.
        return normal.permute(1, 2, 0).flatten(1)[:, :size].float().reshape(len(self.seeds), *self.shape)
