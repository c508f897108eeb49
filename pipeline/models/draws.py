"""What chance decides of a shift, from one seed an image: an image is shifted alike on any device, in any batch, on any day."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.shifts import SHIFTS, Draw, drawn
from pipeline.diffusion.noise import StepNoise
from pipeline.runtime import derive_seed


def seed_of(image: NDArray[Any]) -> int:
    """An image's seed, from its pixels alone: ``0 <= seed < 2**63``."""
    digest = hashlib.sha256(np.ascontiguousarray(image).data.cast("B"))
    digest.update(repr(image.shape).encode())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def draw(name: str, seeds: Sequence[int], images: Tensor, values: NDArray[np.float32] | None = None) -> Draw:
    """What is drawn of a shift for images ``[n, C, H, W]`` with these seeds, on their device. Noise is made when it is asked for, once.

    ``values`` are those of :func:`evaluation.shifts.drawn`, where somebody has drawn them before.
    """
    of = torch.from_numpy(drawn(name, seeds) if values is None else values).to(images.device)
    parameters = {key: of[:, k].reshape(-1, 1, 1, 1) for k, key in enumerate(SHIFTS[name].ranges)}

    @functools.cache
    def normal(k: int) -> Tensor:
        own = [derive_seed(seed, name, k) for seed in seeds]
        return StepNoise(own, images.shape[1:], str(images.device))()

    return Draw(parameters, normal)
